// Package shoptest runs services of the shop in a test the way they run outside of
// one: with kaptar.Run, real ports, a real NATS server with JetStream and a real
// database for each service.
package shoptest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	_ "github.com/kaptar/kaptar/drivers/nats" // nats://
)

// patience is how long a test waits for what is bound to happen. It is never used
// up when all is well.
const patience = 20 * time.Second

// A System is services running in this process. Its methods are for the test's own
// goroutine.
type System struct {
	t         *testing.T
	sources   map[string]string
	endpoints map[string]kaptar.Endpoint
	cancel    context.CancelFunc
	result    chan error
	log       *buffer
}

// Start runs services until the test ends or Stop is called, and returns when all
// are ready. sources are settings by dotted key, as in config.yml; they come before
// those that Start makes: ports of the system's choice on loopback, for each service an
// SQLite database in a directory of the test, and a broker of its own (see Broker).
// The services' log is shown when the test fails.
func Start(t *testing.T, sources map[string]string, services ...kaptar.Service) *System {
	t.Helper()
	s := &System{t: t, sources: make(map[string]string)}
	dir := t.TempDir()
	for _, service := range services {
		own := "services." + service.Name + "."
		s.sources[own+"listen"] = "127.0.0.1:0"
		s.sources[own+"grpc_listen"] = "127.0.0.1:0"
		if sources["database_url"] == "" {
			s.sources[own+"database_url"] = "sqlite:" + filepath.Join(dir, service.Name+".db")
		}
	}
	s.sources["log_format"] = "text"
	if sources["broker_url"] == "" {
		s.sources["broker_url"] = Broker(t)
	}
	maps.Copy(s.sources, sources)
	s.run(services)
	return s
}

func (s *System) run(services []kaptar.Service) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.result, s.log = cancel, make(chan error, 1), new(buffer)
	log := s.log
	s.t.Cleanup(func() {
		s.Stop()
		if s.t.Failed() {
			s.t.Logf("log of the services:\n%s", log.String())
		}
	})
	ready := make(chan []kaptar.Endpoint, 1)
	go func() {
		s.result <- kaptar.Run(ctx, &kaptar.Options{
			Sources: config.Sources{Defaults: s.sources, DefaultsOrigin: "shoptest"},
			Log:     log,
			Ready:   func(endpoints []kaptar.Endpoint) { ready <- endpoints },
		}, services...)
	}()
	select {
	case endpoints := <-ready:
		s.endpoints = make(map[string]kaptar.Endpoint, len(endpoints))
		for _, e := range endpoints {
			s.endpoints[e.Service] = e
		}
	case err := <-s.result:
		s.cancel = nil
		s.t.Fatalf("shoptest: services did not start: %v", err)
	}
}

// Stop stops the services gracefully and fails the test when that does not succeed.
// Stopping twice is fine.
func (s *System) Stop() {
	s.t.Helper()
	if s.cancel == nil {
		return
	}
	s.cancel()
	s.cancel = nil
	if err := <-s.result; err != nil {
		s.t.Errorf("shoptest: services did not stop cleanly: %v", err)
	}
}

// Restart stops the services and starts services in their place, with the same
// databases and the same broker. Ports change.
func (s *System) Restart(services ...kaptar.Service) {
	s.t.Helper()
	s.Stop()
	s.run(services)
}

// URL returns where the service's HTTP port is: http://127.0.0.1:41234.
func (s *System) URL(service string) string { return "http://" + s.endpoint(service).HTTP }

// Conn returns a connection to the service's gRPC port, closed at the end of the test.
func (s *System) Conn(service string) *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient("passthrough:"+s.endpoint(service).GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		s.t.Fatalf("shoptest: gRPC of %s: %v", service, err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// Log returns what the services have logged since they were started.
func (s *System) Log() string { return s.log.String() }

func (s *System) endpoint(service string) kaptar.Endpoint {
	s.t.Helper()
	e, ok := s.endpoints[service]
	if !ok {
		s.t.Fatalf("shoptest: %s does not run", service)
	}
	return e
}

// A Response is an answer that has been read.
type Response struct {
	Status int
	Header http.Header
	Body   string
}

// Decode decodes the body into out, and fails the test when it is no such JSON.
func (r Response) Decode(t *testing.T, out any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.Body), out); err != nil {
		t.Fatalf("shoptest: body %q: %v", r.Body, err)
	}
}

// Do sends a request to a service over its HTTP port and reads the answer. body is
// sent as it is, as JSON; headers come as name, value pairs.
func (s *System) Do(method, service, path, body string, headers ...string) Response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.URL(service)+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatalf("shoptest: %s %s: %v", method, path, err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatalf("shoptest: %s %s%s: %v", method, service, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("shoptest: %s %s%s: %v", method, service, path, err)
	}
	return Response{resp.StatusCode, resp.Header, string(text)}
}

// Eventually asks done again and again until it is true, and fails the test with
// what and the last thing that done said when that takes too long.
func Eventually(t *testing.T, what string, done func() (bool, string)) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for {
		ok, said := done()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("shoptest: waited %v for %s; last: %s", patience, what, said)
		}
	}
}

// buffer is a bytes.Buffer for many writers.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
