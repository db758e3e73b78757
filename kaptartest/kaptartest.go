// Package kaptartest runs a whole system in a test: the real services, on free loopback ports, each
// with its own database in a directory of the test, and a broker in memory. It reads neither files
// nor environment variables, so a developer's settings have no effect, and systems that run at the
// same time do not share anything.
//
//	func TestOrder(t *testing.T) {
//		sys := kaptartest.Start(t, users.Service(), orders.Service())
//		resp, err := sys.Client().Post("http://order-service/orders", "application/json", body)
//		…
//		kaptartest.Eventually(t, "the event is published", func() error {
//			if n := len(sys.Events("order.placed.v1")); n != 1 {
//				return fmt.Errorf("%d events", n)
//			}
//			return nil
//		})
//	}
//
// A test can look at what the services did ([System.Events], [System.Spans], [System.Log]) and make
// things go wrong ([System.FaultBroker], [System.FaultHandlers], [System.FaultCalls]). [Simulate]
// does the latter at random, from a seed, in virtual time.
package kaptartest

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers"
	_ "github.com/kaptar/kaptar/drivers/sqlite" // the database of each service
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/transport"
)

// Options are the options of [StartWith]. nil and the zero value are the defaults.
type Options struct {
	// Settings are settings by dotted key, as in config.yml: "request_timeout", or
	// "services.user-service.database_url". They override those of kaptartest, so a test can use a
	// real broker or database.
	Settings map[string]string
	// Beside, if set, is a system whose broker and databases this one shares: its services are
	// further instances.
	Beside *System
	// As is the principal of the calls of Do, Client and Conn to services that package auth
	// protects, unless a request has credentials of its own; default none. A principal without a
	// Caller calls from outside.
	As *auth.Principal
}

// A System is a set of services that run in this process. Its methods may be called concurrently,
// except Stop and Restart, which only the test's own goroutine may call.
type System struct {
	t        testing.TB
	as       as
	own      map[string]string
	dir      string // of the databases
	broker   *broker
	spans    *tracetest.SpanRecorder
	client   *http.Client
	handlers faults // by topic
	calls    transport.Faults

	log       *buffer
	endpoints map[string]discovery.Instance
	cancel    context.CancelFunc
	result    chan error
}

// Start runs services until the test ends or Stop is called, and returns when all are ready. If
// they do not start, the test ends; if they do not stop gracefully, it fails. The log of the
// services is printed if the test has failed.
func Start(t testing.TB, services ...kaptar.Service) *System {
	t.Helper()
	return StartWith(t, nil, services...)
}

// StartWith is Start with options.
func StartWith(t testing.TB, opts *Options, services ...kaptar.Service) *System {
	t.Helper()
	if opts == nil {
		opts = new(Options)
	}
	s := &System{t: t, own: opts.Settings, dir: t.TempDir(), broker: newBroker(), spans: tracetest.NewSpanRecorder()}
	secret := rand.Text() + rand.Text()
	if opts.Beside != nil {
		s.dir, s.broker, secret = opts.Beside.dir, opts.Beside.broker, opts.Beside.as.secret
	}
	if err := s.as.become(opts.As, cmp.Or(opts.Settings["auth.internal_keys"], secret)); err != nil {
		t.Fatalf("kaptartest: %v", err)
	}
	s.client = &http.Client{Transport: network{&http.Transport{DialContext: s.dial}, &s.as}}
	t.Cleanup(s.client.CloseIdleConnections)
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
			s.t.Logf("log of the services:\n%s", log)
		}
	})
	settings := s.settings(services)
	wrapped := make([]kaptar.Service, len(services))
	for i, service := range services {
		wrapped[i] = s.withFaults(service)
	}
	ready := make(chan []discovery.Instance, 1)
	go func() {
		s.result <- kaptar.Run(ctx, &kaptar.Options{
			Sources:       config.Sources{Defaults: settings, DefaultsOrigin: "kaptartest"},
			Log:           log,
			SpanProcessor: s.spans,
			Backends:      map[string]drivers.Backend{brokerURL: s.broker},
			Ready:         func(endpoints []discovery.Instance) { ready <- endpoints },
		}, wrapped...)
	}()
	select {
	case endpoints := <-ready:
		s.endpoints = make(map[string]discovery.Instance, len(endpoints))
		for _, e := range endpoints {
			s.endpoints[e.Service] = e
		}
	case err := <-s.result:
		s.cancel = nil
		s.t.Fatalf("kaptartest: the services did not start: %v", err)
	}
}

// settings are the settings of the services. The test's own override those that isolate the system.
func (s *System) settings(services []kaptar.Service) map[string]string {
	all := map[string]string{"log_format": "text", "broker_url": brokerURL, "redis_host": "", "auth.internal_keys": s.as.secret} // caches are in process
	for _, service := range services {
		own := "services." + service.Name + "."
		all[own+"listen"] = "127.0.0.1:0"
		all[own+"grpc_listen"] = "127.0.0.1:0"
		if s.own["database_url"] == "" {
			all[own+"database_url"] = "sqlite:" + filepath.Join(s.dir, service.Name+".db")
		}
	}
	maps.Copy(all, s.own)
	return all
}

// Stop stops the services gracefully, and fails the test if they do not. Further calls do nothing.
func (s *System) Stop() {
	s.t.Helper()
	if s.cancel == nil {
		return
	}
	s.cancel()
	s.cancel = nil
	if err := <-s.result; err != nil {
		s.t.Errorf("kaptartest: the services did not stop gracefully: %v", err)
	}
}

// Restart stops the services and starts the given ones instead, with the same databases and broker.
// Ports change, and Log starts empty.
func (s *System) Restart(services ...kaptar.Service) {
	s.t.Helper()
	s.Stop()
	s.client.CloseIdleConnections()
	s.run(services)
}

// Client returns a client of the system's HTTP ports that is used like App.Client:
// http://order-service/orders. Other hosts are called as usual.
func (s *System) Client() *http.Client { return s.client }

func (s *System) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if host, _, err := net.SplitHostPort(address); err == nil {
		if e, ok := s.endpoints[host]; ok {
			address = e.HTTP
		}
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// URL returns the URL of a service's HTTP port, such as http://127.0.0.1:41234. If there is no such
// service, the test ends.
func (s *System) URL(service string) string {
	s.t.Helper()
	return "http://" + s.endpoint(service).HTTP
}

// Conn returns a connection to a service's gRPC port that is closed when the test ends.
func (s *System) Conn(service string) *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient("passthrough:"+s.endpoint(service).GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithChainUnaryInterceptor(s.as.unary(service)), grpc.WithChainStreamInterceptor(s.as.stream(service)))
	if err != nil {
		s.t.Fatalf("kaptartest: gRPC of %s: %v", service, err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (s *System) endpoint(service string) discovery.Instance {
	s.t.Helper()
	e, ok := s.endpoints[service]
	if !ok {
		s.t.Fatalf("kaptartest: there is no service %q in this system", service)
	}
	return e
}

// Log returns what the services have logged since they were started, one record per line.
func (s *System) Log() string { return s.log.String() }

// Spans returns the spans of all services that have ended so far, in the order of their ends.
func (s *System) Spans() []sdktrace.ReadOnlySpan { return s.spans.Ended() }

// Eventually calls done every 5 ms until it returns nil. If that takes longer than a minute, it ends
// the test with what and the last error.
func Eventually(t testing.TB, what string, done func() error) {
	t.Helper()
	waittest.Said(t, func() string {
		if err := done(); err != nil {
			return fmt.Sprintf("%s; last: %v", what, err)
		}
		return ""
	})
}

type buffer = waittest.Buffer
