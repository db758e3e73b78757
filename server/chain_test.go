package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/server"
)

type userKey struct{}

// guarded has the three kinds of middleware that every system needs, as anybody would write them.
func guarded(order *[]string, mu *sync.Mutex) []func(http.Handler) http.Handler {
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		*order = append(*order, what)
	}
	cors := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			note("cors")
			w.Header().Set("Access-Control-Allow-Origin", "https://shop.example")
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	limit := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			note("limit")
			if r.Header.Get("X-Greedy") != "" {
				http.Error(w, "too many requests", http.StatusTooManyRequests)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	authenticate := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			note("auth")
			name := r.Header.Get("Authorization")
			if name == "" {
				server.WriteProblem(w, r, server.Problem{Status: http.StatusUnauthorized})
				return
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, name)))
		})
	}
	return []func(http.Handler) http.Handler{cors, limit, authenticate}
}

// One middleware for all routes, preflight included, on both ways in, and what it answers is
// measured under the route that the request was for.
func TestMiddlewareSeesEveryRoute(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var order []string
	b := setup(t, server.Options{Middleware: guarded(&order, &mu)})
	b.HandleFunc("GET /users/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !trace.SpanContextFromContext(r.Context()).IsValid() {
			t.Error("the handler's context has no span")
		}
		_, _ = fmt.Fprint(w, r.Context().Value(userKey{}), " ", r.PathValue("id"), " ", r.Pattern)
	})
	b.SetReady(true)
	url := b.start(t)
	n := 0.0
	for name, c := range b.clients(t) {
		n++
		for _, tt := range []struct {
			method, path, header string
			status               int
			body                 string
			route                string
			passed               []string
		}{
			{"GET", "/users/7", "Authorization", 200, "x 7 GET /users/{id}", "/users/{id}", []string{"cors", "limit", "auth"}},
			{"GET", "/users/7", "X-None", 401, "", "/users/{id}", []string{"cors", "limit", "auth"}},
			{"GET", "/users/7", "X-Greedy", 429, "too many requests\n", "/users/{id}", []string{"cors", "limit"}},
			{"OPTIONS", "/users/7", "Access-Control-Request-Method", 204, "", "unmatched", []string{"cors"}},
			{"GET", "/nowhere", "Authorization", 404, "", "unmatched", []string{"cors", "limit", "auth"}},
			{"GET", "/livez", "X-None", 200, `{"status":"alive"}` + "\n", "", nil},
			{"GET", "/readyz", "X-None", 200, `{"status":"ready","checks":{}}` + "\n", "", nil},
		} {
			mu.Lock()
			order = nil
			mu.Unlock()
			a := do(t, c, tt.method, url+tt.path, nil, tt.header, "x")
			if a.status != tt.status || tt.body != "" && a.body != tt.body {
				t.Errorf("%s: %s %s with %s: %d %q, want %d %q", name, tt.method, tt.path, tt.header, a.status, a.body, tt.status, tt.body)
			}
			mu.Lock()
			if !slices.Equal(order, tt.passed) {
				t.Errorf("%s: %s %s passed %v, want %v", name, tt.method, tt.path, order, tt.passed)
			}
			mu.Unlock()
			if tt.route == "" {
				continue
			}
			if a.header.Get("Access-Control-Allow-Origin") == "" {
				t.Errorf("%s: %s %s: the header of the middleware is gone", name, tt.method, tt.path)
			}
			labels := prometheus.Labels{"service": "users", "method": tt.method, "endpoint": tt.route, "status": fmt.Sprint(tt.status)}
			eventually(t, "the request to be counted", func() bool { return b.metric(t, "http_requests_total", labels) == n })
		}
		do(t, c, "DELETE", url+"/nowhere", nil, "Authorization", "x").problem(t, 404)
	}
}

// What net/http offers through the writer reaches a handler behind middleware that wraps it.
func TestWritersReachThroughMiddleware(t *testing.T) {
	t.Parallel()
	plain := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(struct{ http.ResponseWriter }{w}, r) // without Unwrap: nothing but a writer
		})
	}
	b := setup(t, server.Options{MaxBody: 10, Middleware: []func(http.Handler) http.Handler{plain, unwrapping}})
	b.Handle("POST /large", server.MaxBody(100, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		server.SetRoute(r, "/named")
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n, err)
	})))
	url := b.start(t)
	for name, c := range b.clients(t) {
		if a := do(t, c, "POST", url+"/large", strings.NewReader(strings.Repeat("x", 50))); a.body != "50 <nil>" {
			t.Errorf("%s: the route's own limit is not found: %+v", name, a)
		}
	}
	eventually(t, "the route's name to be used", func() bool {
		return b.metric(t, "http_requests_total", prometheus.Labels{"service": "users", "method": "POST", "endpoint": "/named", "status": "200"}) == 2
	})

	b = setup(t, server.Options{Middleware: []func(http.Handler) http.Handler{unwrapping}})
	b.HandleFunc("GET /flush", func(w http.ResponseWriter, _ *http.Request) {
		rc := http.NewResponseController(w)
		if err := errors.Join(rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{}), rc.Flush()); err != nil {
			t.Error(err)
		}
		conn, _, err := rc.Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.Close()
	})
	url = b.start(t)
	if _, err := try(t.Context(), b.clients(t)["network"], "GET", url+"/flush", nil); err == nil {
		t.Error("a hijacked connection that was closed looks complete")
	}
}

func unwrapping(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(wrapped{w}, r) })
}

type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A middleware may answer while the handler still works, as http.TimeoutHandler does.
func TestMiddlewareThatLeavesTheHandlerBehind(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	b := setup(t, server.Options{Middleware: []func(http.Handler) http.Handler{
		func(next http.Handler) http.Handler { return http.TimeoutHandler(next, 5*time.Millisecond, "late") },
		nil,
	}})
	b.HandleFunc("POST /slow", func(http.ResponseWriter, *http.Request) { <-release })
	c := &http.Client{Transport: b.clients(t)["in process"].Transport}
	if a := do(t, c, "POST", "http://users/slow", strings.NewReader("x")); a.status != 503 || a.body != "late" {
		t.Errorf("%+v", a)
	}
	close(release)
	if got := b.metric(t, "http_requests_total", prometheus.Labels{"service": "users", "method": "POST", "endpoint": "/slow", "status": "503"}); got != 1 {
		t.Errorf("counted %v under the route, want 1", got)
	}
}

func TestPanicInMiddleware(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{Middleware: []func(http.Handler) http.Handler{func(http.Handler) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") })
	}}})
	do(t, b.clients(t)["in process"], "GET", "http://users/", nil).problem(t, 500)
}

func TestMistakesInTheDoors(t *testing.T) {
	t.Parallel()
	for pattern, path := range map[string]string{"GET /livez": "/livez", "/readyz": "/readyz", "POST /metrics": "/metrics"} {
		b := setup(t, server.Options{})
		b.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
		want := fmt.Sprintf("server: route %q: expected another path, as the server answers %s itself; AddReadiness adds to /readyz, a collector to /metrics", pattern, path)
		if err := b.Listen(); err == nil || err.Error() != want {
			t.Errorf("Listen = %v\nwant %s", err, want)
		}
	}
	b := setup(t, server.Options{})
	b.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	b.HandleFunc("GET /{name}", func(http.ResponseWriter, *http.Request) {})
	b.start(t) // a wildcard takes what is left
	b = setup(t, server.Options{Middleware: []func(http.Handler) http.Handler{func(http.Handler) http.Handler { return nil }}})
	if err := b.Listen(); err == nil || err.Error() != "server: middleware 0 returned no handler" {
		t.Errorf("Listen = %v", err)
	}
}

// Options may change until the server listens.
func TestOptionsAreReadAtTheStart(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	b.Options().MaxBody = 3
	b.Options().Middleware = append(b.Options().Middleware, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Seen", "yes")
			next.ServeHTTP(w, r)
		})
	})
	url := b.start(t)
	for name, c := range b.clients(t) {
		if a := do(t, c, "POST", url+"/", strings.NewReader("1234")); a.status != 413 || a.header.Get("X-Seen") != "yes" {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestInterceptors(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var order []string
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, what)
	}
	unary := func(what string) grpc.UnaryServerInterceptor {
		return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			note(what + info.FullMethod)
			if what == "b" {
				return nil, status.Error(codes.Unauthenticated, "who are you")
			}
			return h(ctx, req)
		}
	}
	b := setup(t, server.Options{
		Unary: []grpc.UnaryServerInterceptor{unary("a"), unary("b")},
		Stream: []grpc.StreamServerInterceptor{func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, _ grpc.StreamHandler) error {
			note("s" + info.FullMethod)
			return status.Error(codes.PermissionDenied, "no")
		}},
	})
	b.GRPC().RegisterService(&echoDesc, echo{onSay: func(context.Context, string) (string, error) {
		t.Error("the handler ran")
		return "", nil
	}})
	b.SetReady(true)
	b.start(t)
	for _, conn := range []grpc.ClientConnInterface{b.dial(t), b.InProcess()} {
		order = nil
		if _, err := say(t.Context(), conn, "hi"); status.Code(err) != codes.Unauthenticated {
			t.Errorf("unary: %v", err)
		}
		if err := watchOnce(t.Context(), conn, "hi"); status.Code(err) != codes.PermissionDenied {
			t.Errorf("stream: %v", err)
		}
		if err := healthy(t.Context(), conn); err != nil {
			t.Errorf("the health service is intercepted: %v", err)
		}
		if want := []string{"a" + sayMethod, "b" + sayMethod, "s" + watchMethod}; !slices.Equal(order, want) {
			t.Errorf("passed %v, want %v", order, want)
		}
	}
	eventually(t, "the refusals to be counted", func() bool {
		return b.metric(t, "rpc_requests_total", prometheus.Labels{"service": "users", "method": "test.v1.Echo/Say", "code": "Unauthenticated"}) == 2
	})
}

func TestTLS(t *testing.T) {
	t.Parallel()
	pair := httptest.NewUnstartedServer(nil)
	pair.StartTLS()
	defer pair.Close()
	b := setup(t, server.Options{TLS: &tls.Config{Certificates: pair.TLS.Certificates}})
	b.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.Proto, r.TLS != nil) })
	b.GRPC().RegisterService(&echoDesc, echo{onSay: func(_ context.Context, s string) (string, error) { return s, nil }})
	b.start(t)
	roots := x509.NewCertPool()
	roots.AddCert(pair.Certificate())
	config := &tls.Config{RootCAs: roots, ServerName: "example.com"}
	tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	if a := do(t, &http.Client{Transport: tr}, "GET", "https://"+b.HTTPAddr()+"/", nil); a.body != "HTTP/2.0true" {
		t.Errorf("HTTPS: %+v", a)
	}
	conn, err := grpc.NewClient(b.GRPCAddr(), grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if got, err := say(t.Context(), conn, "hi"); err != nil || got != "hi" {
		t.Errorf("gRPC over TLS: %q, %v", got, err)
	}
}

func TestConnectionsAreCapped(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{Limit: server.Limit{Connections: 1}})
	in, release := make(chan struct{}, 2), make(chan struct{})
	b.HandleFunc("GET /", func(http.ResponseWriter, *http.Request) { in <- struct{}{}; <-release })
	url := b.start(t)
	done := make(chan error, 2)
	for range 2 {
		tr := &http.Transport{DisableKeepAlives: true}
		go func() {
			_, err := try(t.Context(), &http.Client{Transport: tr}, "GET", url, nil)
			done <- err
		}()
	}
	<-in
	if n := b.Busy(); !slices.Equal(n, []string{"1 HTTP request: GET /"}) {
		t.Errorf("busy with %v, want one request", n)
	}
	close(release)
	if err := errors.Join(<-done, <-done); err != nil {
		t.Errorf("the second one is served after the first: %v", err)
	}
}
