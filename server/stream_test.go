package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/kaptar/kaptar/internal/deadline"
	"github.com/kaptar/kaptar/server"
)

// However a stream ends, metrics and log say so, and the deadline is never the reason.
func TestStreamEndings(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{Timeout: 2 * time.Second})
	causes, started := make(chan error, 1), make(chan struct{}, 10)
	b.HandleFunc("GET /stream/{how}", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context()) // made before it is a stream
		defer cancel()
		at, _ := ctx.Deadline()
		w.(http.Flusher).Flush()
		started <- struct{}{}
		switch r.PathValue("how") {
		case "failed":
			panic(http.ErrAbortHandler)
		case "finished":
			<-time.After(time.Until(at) + 20*time.Millisecond) // longer than the deadline was
			if ctx.Err() == nil {
				_, _ = io.WriteString(w, "all")
			}
		default:
			<-ctx.Done()
			causes <- context.Cause(ctx)
		}
	})
	url := b.start(t)
	n := 0.0
	ended := func(how string) {
		t.Helper()
		eventually(t, "a stream that has "+how, func() bool {
			return b.metric(t, "http_streams_total", prometheus.Labels{"service": "users", "method": "GET", "endpoint": "/stream/{how}", "end": how}) == n
		})
		eventually(t, "the log to say so", func() bool {
			lines := b.lines(t, "request")
			return len(lines) > 0 && lines[len(lines)-1]["end"] == how && lines[len(lines)-1]["status"] == 200.0
		})
	}
	clients := b.clients(t)
	for name, c := range clients {
		n++
		if a := do(t, c, "GET", url+"/stream/finished", nil, deadline.Header, "1500"); a.body != "all" {
			t.Errorf("%s: a stream is cut by a deadline: %+v", name, a)
		}
		ended("finished")
		if _, err := try(t.Context(), c, "GET", url+"/stream/failed", nil); err == nil {
			t.Errorf("%s: an aborted stream looks complete", name)
		}
		ended("failed")
		for len(started) > 0 {
			<-started
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-started
			cancel()
		}()
		_, _ = try(ctx, c, "GET", url+"/stream/gone", nil)
		if err := <-causes; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: cause %v", name, err)
		}
		ended("client_gone")
	}
	if lines := b.lines(t, "panic in handler"); len(lines) != 0 {
		t.Errorf("logged %v", lines)
	}
	go func() {
		<-started
		_ = b.Shutdown(t.Context())
	}()
	n = 1
	a, err := try(t.Context(), clients["network"], "GET", url+"/stream/stop", nil)
	if err != nil || a.status != 200 {
		t.Errorf("a stream at the stop: %+v, %v, want a clean end", a, err)
	}
	if err := <-causes; !errors.Is(err, server.ErrStopping) {
		t.Errorf("cause %v, want ErrStopping", err)
	}
	ended("stopping")
}

// A handler moves its own deadline with what net/http has for that: a long poll.
func TestLongPoll(t *testing.T) {
	t.Parallel()
	const timeout = 1500 * time.Millisecond
	b := setup(t, server.Options{Timeout: timeout})
	b.HandleFunc("GET /poll", func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Hour)); err != nil {
			t.Error(err)
		}
		select {
		case <-time.After(timeout + 20*time.Millisecond):
			w.WriteHeader(http.StatusNoContent)
		case <-r.Context().Done():
		}
	})
	b.HandleFunc("GET /short", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(30 * time.Millisecond))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	url := b.start(t)
	for name, c := range b.clients(t) {
		if a := do(t, c, "GET", url+"/poll", nil); a.status != 204 {
			t.Errorf("%s: %+v", name, a)
		}
		_, _ = try(t.Context(), c, "GET", url+"/short", nil)
	}
	eventually(t, "streams whose own deadline has passed", func() bool {
		return b.metric(t, "http_streams_total", prometheus.Labels{"service": "users", "method": "GET", "endpoint": "/short", "end": "timeout"}) == 2
	})
}

// slowBody brings a step of the body every few milliseconds.
type slowBody struct{ left int }

func (s *slowBody) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	s.left--
	<-time.After(40 * time.Millisecond)
	return min(len(p), 32<<10), nil
}

// An upload may take longer than the deadline as long as it comes, within the limit of its route.
func TestUpload(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{Timeout: 4 * time.Second}) // for each part of the body, and it takes longer than that
	read := func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || r.Context().Err() != nil {
			http.Error(w, fmt.Sprint(n, err, r.Context().Err()), http.StatusBadRequest)
			return
		}
		_, _ = fmt.Fprint(w, n)
	}
	b.Handle("POST /large", server.MaxBody(-1, http.HandlerFunc(read)))
	b.Handle("POST /small/", server.MaxBody(4, http.HandlerFunc(read)))
	b.HandleFunc("POST /plain", read)
	url := b.start(t)
	for name, c := range b.clients(t) {
		if a := do(t, c, "POST", url+"/large", &slowBody{left: 110}); a.status != 200 {
			t.Errorf("%s: %+v", name, a)
		}
		for path, want := range map[string]string{
			"/small/x": "the request body is larger than the 4 bytes that max_body allows for POST /small/",
			"/plain":   "the request body is larger than the 1048576 bytes that max_body allows for POST /plain",
		} {
			a := do(t, c, "POST", url+path, strings.NewReader(strings.Repeat("x", 2<<20)))
			if p := a.problem(t, 413); p.Detail != want {
				t.Errorf("%s: %q, want %q", name, p.Detail, want)
			}
		}
	}
	if got := b.metric(t, "http_requests_total", prometheus.Labels{"service": "users", "method": "POST", "endpoint": "/small/", "status": "413"}); got != 2 {
		t.Errorf("413 counted %v times under its route, want 2", got)
	}
	w := httptest.NewRecorder() // outside of a server
	server.MaxBody(4, http.HandlerFunc(read)).ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader("12345")))
	if w.Code != 400 {
		t.Errorf("outside of a server: %d", w.Code)
	}
}

// Clients that do not read are cut, in their time or at the stop, whether the handler still writes
// or has left the rest to net/http.
func TestClientsThatDoNotRead(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/large"
	if err := os.WriteFile(file, make([]byte, 32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, limit := range map[string]time.Duration{"in their time": 50 * time.Millisecond, "at the stop": time.Hour} {
		b := setup(t, server.Options{WriteTimeout: limit})
		b.HandleFunc("GET /bytes", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 32<<20)) })
		b.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
		b.start(t)
		for range 5 {
			for _, path := range []string{"/bytes", "/file"} {
				conn, err := net.Dial("tcp", b.HTTPAddr())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
				_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
			}
		}
		if limit == time.Hour {
			eventually(t, "ten requests", func() bool { return strings.HasPrefix(fmt.Sprint(b.Busy()), "[10 HTTP requests") })
			began := time.Now()
			if err := b.Shutdown(t.Context()); err != nil || time.Since(began) > 20*time.Second {
				t.Errorf("%s: Shutdown took %v: %v", what, time.Since(began), err)
			}
		}
		eventually(t, "all handlers to return "+what, func() bool { return len(b.Busy()) == 0 })
	}
	b := setup(t, server.Options{WriteTimeout: 5 * time.Second})
	b.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
	url := b.start(t)
	if a := do(t, b.clients(t)["network"], "GET", url+"/file", nil); len(a.body) != 32<<20 {
		t.Errorf("who reads gets %d bytes", len(a.body))
	}
}

func TestScrapeThatIsCutIsNoError(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	for i := range 20000 {
		b.tel.Registry().MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: fmt.Sprintf("m%d", i), Help: strings.Repeat("x", 50)}))
	}
	b.start(t)
	conn, err := net.Dial("tcp", b.HTTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
	_, _ = bufio.NewReader(conn).ReadString('\n')
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
	if err := b.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if log := b.log.String(); strings.Contains(log, "ERROR") {
		t.Errorf("logged: %s", log)
	}
}

func TestPathsInErrorsAreHarmless(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{Timeout: -1})
	b.HandleFunc("/", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	go func() {
		_, _ = try(t.Context(), b.clients(t)["in process"], "GET", "http://users/a%1b%5b31mred%ff", nil)
	}()
	eventually(t, "a request", func() bool { return len(b.Busy()) == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := b.Shutdown(ctx)
	if want := "server: shutdown: cut 1 HTTP request: GET /a%1B%5B31mred%FF: context canceled"; err == nil || err.Error() != want {
		t.Errorf("Shutdown = %v\nwant %s", err, want)
	}
}

// A client that leaves makes a handler fail, which is not the server's failure.
func TestClientThatLeavesIsNoServerError(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	in := make(chan struct{}, 1)
	b.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		in <- struct{}{}
		<-r.Context().Done()
		http.Error(w, "bad gateway", http.StatusBadGateway)
	})
	url := b.start(t)
	for _, c := range b.clients(t) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-in; cancel() }()
		_, _ = try(ctx, c, "GET", url+"/", nil)
	}
	eventually(t, "both to be counted as 499", func() bool {
		return b.metric(t, "http_requests_total", prometheus.Labels{"service": "users", "method": "GET", "endpoint": "/", "status": "499"}) == 2
	})
	if log := b.log.String(); strings.Contains(log, "ERROR") || !strings.Contains(log, `"end":"client_gone"`) {
		t.Errorf("logged %s", log)
	}
}

// An RPC that only receives is an upload, which is waited for.
func TestStoppingStreams(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	causes := make(chan error, 1)
	b.GRPC().RegisterService(&echoDesc, echo{onWatch: func(ss grpc.ServerStream) error {
		<-ss.Context().Done()
		causes <- context.Cause(ss.Context())
		return ss.Context().Err()
	}})
	b.start(t)
	for _, conn := range []grpc.ClientConnInterface{b.dial(t)} {
		stream, err := conn.NewStream(t.Context(), watchDesc, watchMethod)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "a stream", func() bool { return len(b.Busy()) == 1 })
		if err := b.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-causes; !errors.Is(err, server.ErrStopping) {
			t.Errorf("cause %v, want ErrStopping", err)
		}
		if err := stream.RecvMsg(nil); err == nil || !strings.Contains(err.Error(), "Unavailable") {
			t.Errorf("the client sees %v", err)
		}
	}
}
