package kaptar_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/server"
)

// endless is a service with a stream that only the end of its context ends, and a gateway in front
// of it; causes gets why the contexts have ended.
func endless(causes chan error) []kaptar.Service {
	return []kaptar.Service{
		{Name: "gateway", Setup: func(app *kaptar.App) error {
			p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "back"})
			p.Transport = app.Client().Transport
			app.Handle("/", p)
			return nil
		}},
		{Name: "back", Setup: func(app *kaptar.App) error {
			app.HandleFunc("GET /sse", func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, "data: 1\n\n")
				w.(http.Flusher).Flush()
				<-r.Context().Done()
				causes <- context.Cause(r.Context())
			})
			app.HandleFunc("GET /up", func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Connection", "Upgrade")
				w.Header().Set("Upgrade", "x")
				w.WriteHeader(http.StatusSwitchingProtocols)
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					causes <- err
					return
				}
				defer conn.Close()
				line, _ := rw.ReadString('\n')
				_, _ = io.WriteString(conn, "echo "+line)
				_, err = rw.ReadString('\n') // minds no context, as most of the kind
				causes <- err
			})
			return nil
		}},
	}
}

func TestStreamsThroughAGatewayEndWithTheService(t *testing.T) {
	t.Parallel()
	const limit = 3 * time.Second // in which all streams must begin
	for _, timeout := range []string{"10s", "0s"} {
		causes := make(chan error, 4)
		at, stop := start(t, map[string]string{"request_timeout": limit.String(), "call_timeout": limit.String(), "shutdown_timeout": timeout}, endless(causes)...)
		for _, base := range []string{at["back"].HTTP, at["gateway"].HTTP} {
			resp, err := http.Get("http://" + base + "/sse")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			first := make([]byte, 9)
			if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "data: 1\n\n" {
				t.Fatalf("first part %q, %v", first, err)
			}
			conn := upgrade(t, base)
			defer conn.Close()
		}
		select {
		case err := <-causes:
			t.Fatalf("a stream ended with %v before the stop", err)
		case <-time.After(limit + 500*time.Millisecond):
		}
		began := time.Now()
		if err := stop(); err != nil {
			t.Errorf("stop within %s: %v", timeout, err)
		}
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("the stop took %v, want the two seconds that a deaf stream gets", took)
		}
		told := 0
		for range 4 {
			if errors.Is(<-causes, server.ErrStopping) {
				told++
			}
		}
		if told == 0 { // the gateway, which stops at the same time, may be the first to leave the other one
			t.Error("no stream was told why it ends")
		}
	}
}

func upgrade(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, "GET /up HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %+v, %v", resp, err)
	}
	_, _ = io.WriteString(conn, "hello\n")
	if line, err := r.ReadString('\n'); line != "echo hello\n" {
		t.Fatalf("over the connection: %q, %v", line, err)
	}
	return conn
}

// Who balances the load sees the service leave while it still answers.
func TestDrainDelay(t *testing.T) {
	t.Parallel()
	const delay = 10 * time.Second // in which the test must see both on a busy machine
	registry := new(discovery.Memory)
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan string, 1), make(chan error, 1)
	s := kaptar.Service{Name: "s", Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") })
		return nil
	}}
	go func() {
		done <- kaptar.Run(ctx, &kaptar.Options{
			Sources:  onFreePorts(map[string]string{"drain_delay": delay.String()}, []kaptar.Service{s}),
			Log:      t.Output(),
			Registry: registry,
			Ready:    func(all []discovery.Instance) { ready <- all[0].HTTP },
		}, s)
	}()
	addr := "http://" + <-ready
	var gone atomic.Bool
	go func() {
		_ = registry.Watch(t.Context(), "s", func(list []discovery.Instance) { gone.Store(len(list) == 0) })
	}()
	began := time.Now()
	cancel()
	for {
		if status, body := get(t, addr+"/readyz"); status == 503 && strings.Contains(body, "draining") {
			break
		}
	}
	for {
		if status, body := get(t, addr+"/"); status != 200 || body != "here" {
			t.Fatalf("while it leaves: %d %q", status, body)
		}
		if gone.Load() {
			break
		}
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(began); took < delay {
		t.Errorf("stopped after %v, want the delay first", took)
	}
}

// The error of a stop names what the user wrote, and no task of the toolkit's.
func TestStopBlamesNoInternals(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	_, stop := start(t, map[string]string{"shutdown_timeout": "0s"}, kaptar.Service{Name: "s", Setup: func(app *kaptar.App) error {
		app.Go("deaf", func(context.Context) error { <-release; return nil })
		app.Go("polite", func(ctx context.Context) error { <-ctx.Done(); return nil })
		return nil
	}})
	err := stop()
	if want := "kaptar: still running at the end of the shutdown timeout: [s: deaf]"; err == nil || err.Error() != want {
		t.Errorf("stop = %v\nwant %s", err, want)
	}
}

// What Setup changes through the doors of the App holds.
func TestDoorsOfTheApp(t *testing.T) {
	t.Parallel()
	at, _ := start(t, nil, kaptar.Service{Name: "s", Setup: func(app *kaptar.App) error {
		app.Server().MaxBody = 4
		app.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Outer", "1")
				next.ServeHTTP(w, r)
			})
		}, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Inner", w.Header().Get("X-Outer")+"2")
				next.ServeHTTP(w, r)
			})
		})
		app.UseGRPC(nil, nil)
		app.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
		})
		return nil
	}})
	resp, err := http.Post("http://"+at["s"].HTTP+"/", "text/plain", bytes.NewReader(make([]byte, 5)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 413 || resp.Header.Get("X-Inner") != "12" || !strings.Contains(string(body), "4 bytes that max_body allows for POST /") {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
}

// TestStopWithoutACollector: telemetry that goes nowhere holds a stop for about 2 s, is no error, and
// one warning of each service says how much is lost.
func TestStopWithoutACollector(t *testing.T) {
	t.Parallel()
	const endpoint = "http://127.0.0.1:1"
	services := endless(make(chan error, 2))
	sources := onFreePorts(map[string]string{"otel.exporter_otlp_endpoint": endpoint}, services)
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan []discovery.Instance, 1), make(chan error, 1)
	log := new(lockedBuffer)
	go func() {
		ended <- kaptar.Run(ctx, &kaptar.Options{Sources: sources, Log: log, Ready: func(list []discovery.Instance) { ready <- list }}, services...)
	}()
	select {
	case list := <-ready:
		for _, in := range list {
			get(t, "http://"+in.HTTP+"/nothing")
		}
	case err := <-ended:
		t.Fatal(err)
	}
	began := time.Now()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v, want nil: a stop is complete without its telemetry", err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("the stop took %v, want about 2 s", took)
	}
	for _, name := range []string{"gateway", "back"} {
		var warnings []string
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, `"WARN"`) && strings.Contains(line, `"service":"`+name+`"`) {
				warnings = append(warnings, line)
			}
		}
		if len(warnings) != 1 || !strings.Contains(warnings[0], "logs not sent") || !strings.Contains(warnings[0], "spans not sent") {
			t.Errorf("%s: warnings %q, want one that says what is lost", name, warnings)
		}
	}
}
