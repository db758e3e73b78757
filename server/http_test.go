package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar/internal/deadline"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/telemetry"
)

const parentTrace = "0af7651916cd43dd8448eb211c80319c"

func TestRequestIsMeasuredLoggedAndTraced(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	var span trace.SpanContext
	b.HandleFunc("GET /users/{id}", func(w http.ResponseWriter, r *http.Request) {
		span = trace.SpanContextFromContext(r.Context())
		_, _ = io.WriteString(w, "user "+r.PathValue("id"))
	})
	url := b.start(t)
	n := 0.0
	for name, c := range b.clients(t) {
		b.log.Reset()
		a := do(t, c, "GET", url+"/users/42", nil, "Traceparent", "00-"+parentTrace+"-b7ad6b7169203331-01")
		if a.status != 200 || a.body != "user 42" {
			t.Errorf("%s: got %d %q", name, a.status, a.body)
		}
		n++
		labels := prometheus.Labels{"service": "users", "method": "GET", "endpoint": "/users/{id}"}
		eventually(t, "the request to be measured", func() bool { return b.metric(t, "http_request_duration_seconds", labels) == n })
		labels["status"] = "200"
		if got := b.metric(t, "http_requests_total", labels); got != n {
			t.Errorf("%s: http_requests_total = %v, want %v", name, got, n)
		}
		eventually(t, "a line in the log", func() bool { return len(b.lines(t, "request")) > 0 })
		lines := b.lines(t, "request")
		if len(lines) != 1 {
			t.Fatalf("%s: %d access log lines, want one", name, len(lines))
		}
		for key, want := range map[string]any{
			"level": "INFO", "method": "GET", "path": "/users/42", "route": "/users/{id}", "status": 200.0, "bytes": 7.0,
			"service": "users", "trace_id": parentTrace, "span_id": span.SpanID().String(),
		} {
			if lines[0][key] != want {
				t.Errorf("%s: log %s = %v, want %v", name, key, lines[0][key], want)
			}
		}
		if d, ok := lines[0]["duration_ms"].(float64); !ok || d <= 0 {
			t.Errorf("%s: log duration = %v", name, lines[0]["duration_ms"])
		}
		if span.TraceID().String() != parentTrace || span.SpanID().String() == "b7ad6b7169203331" || span.IsRemote() {
			t.Errorf("%s: handler's span is %v, want one of its own in the caller's trace", name, span)
		}
	}
}

func TestMuxErrorsAreProblems(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.HandleFunc("GET /users/{id}", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no such user", http.StatusNotFound)
	})
	b.HandleFunc("POST /users/{id}", func(http.ResponseWriter, *http.Request) {})
	url := b.start(t)
	for name, c := range b.clients(t) {
		p := do(t, c, "GET", url+"/nowhere", nil).problem(t, 404)
		if p.Instance != "/nowhere" || !strings.Contains(p.Detail, "/nowhere") {
			t.Errorf("%s: %+v", name, p)
		}
		a := do(t, c, "DELETE", url+"/users/1", nil)
		a.problem(t, 405)
		if got := a.header.Get("Allow"); got != "GET, HEAD, POST" {
			t.Errorf("%s: Allow = %q", name, got)
		}
		if a := do(t, c, "GET", url+"/users/1", nil); a.body != "no such user\n" || a.status != 404 {
			t.Errorf("%s: the handler's own 404 became %d %q", name, a.status, a.body)
		}
		if a := do(t, c, "HEAD", url+"/nowhere", nil); a.status != 404 || a.body != "" {
			t.Errorf("%s: HEAD got %d %q", name, a.status, a.body)
		}
		do(t, c, "BREW", url+"/nowhere", nil).problem(t, 404)
	}
	eventually(t, "unmatched requests to be counted without their path", func() bool {
		return b.metric(t, "http_requests_total", prometheus.Labels{"service": "users", "method": "GET", "endpoint": "unmatched", "status": "404"}) == 2 &&
			b.metric(t, "http_requests_total", prometheus.Labels{"service": "users", "method": "OTHER", "endpoint": "unmatched", "status": "404"}) == 2
	})
}

func TestPanics(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.HandleFunc("GET /before", func(http.ResponseWriter, *http.Request) { panic("boom before") })
	b.HandleFunc("GET /after", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
		panic("boom after")
	})
	b.HandleFunc("GET /abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	arrived := make(chan struct{})
	b.HandleFunc("GET /unwritable", func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
		for {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				panic(fmt.Errorf("the answer: %w", err)) // as huma does
			}
		}
	})
	url := b.start(t)
	for name, c := range b.clients(t) {
		b.log.Reset()
		p := do(t, c, "GET", url+"/before", nil).problem(t, 500)
		if strings.Contains(p.Detail, "boom") {
			t.Errorf("%s: the panic's value was told to the client: %+v", name, p)
		}
		lines := b.lines(t, "panic in handler")
		if len(lines) != 1 || lines[0]["panic"] != "boom before" || lines[0]["trace_id"] != p.TraceID ||
			!strings.Contains(lines[0]["stack"].(string), "http_test.go") {
			t.Errorf("%s: panic logged as %v, want value, trace id and stack", name, lines)
		}
		if a, err := try(t.Context(), c, "GET", url+"/after", nil); err == nil {
			t.Errorf("%s: a panic after the header looks complete: %d, %d bytes", name, a.status, len(a.body))
		}
		b.log.Reset()
		if a, err := try(t.Context(), c, "GET", url+"/abort", nil); err == nil {
			t.Errorf("%s: ErrAbortHandler gave an answer: %+v", name, a)
		}
		eventually(t, "the access log of the aborted request", func() bool { return len(b.lines(t, "request")) == 1 })
		if lines := b.lines(t, "panic in handler"); len(lines) != 0 {
			t.Errorf("%s: ErrAbortHandler was logged as a panic: %v", name, lines)
		}
		b.log.Reset()
		ctx, leave := context.WithCancel(t.Context())
		go func() {
			<-arrived
			leave()
		}()
		if a, err := try(ctx, c, "GET", url+"/unwritable", nil); err == nil {
			t.Errorf("%s: a client that left got an answer: %+v", name, a)
		}
		eventually(t, "the access log of the client that left", func() bool { return len(b.lines(t, "request")) == 1 })
		if lines := b.lines(t, "panic in handler"); len(lines) != 0 {
			t.Errorf("%s: a handler that could not write its answer was logged as a panic: %v", name, lines)
		}
	}
	eventually(t, "the server to see that nothing is under way after panics", func() bool { return len(b.Busy()) == 0 })
}

func TestConnectionSurvivesAPanic(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	var peers []string
	b.HandleFunc("GET /panic", func(_ http.ResponseWriter, r *http.Request) {
		peers = append(peers, r.RemoteAddr)
		panic("boom")
	})
	url := b.start(t)
	c := b.clients(t)["network"]
	do(t, c, "GET", url+"/panic", nil)
	do(t, c, "GET", url+"/panic", nil)
	if len(peers) != 2 || peers[0] != peers[1] {
		t.Errorf("requests came over %v, want one connection", peers)
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{Timeout: 30 * time.Minute})
	b.HandleFunc("GET /left", func(w http.ResponseWriter, r *http.Request) {
		at, ok := r.Context().Deadline()
		_, _ = fmt.Fprintf(w, "%v %d", ok, time.Until(at).Round(10*time.Minute)/(10*time.Minute))
	})
	ran := make(chan struct{}, 10)
	b.HandleFunc("GET /ran", func(http.ResponseWriter, *http.Request) { ran <- struct{}{} })
	b.HandleFunc("GET /waits", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	b.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		before := r.Context()
		w.(http.Flusher).Flush()
		_, ok := before.Deadline()
		_, _ = fmt.Fprintf(w, "%v %s", ok, telemetry.TraceID(r.Context()))
	})
	url := b.start(t)
	for name, c := range b.clients(t) {
		for header, want := range map[string]string{"": "true 3", "36000000": "true 60", "600000": "true 1", "nonsense": "true 3"} {
			if a := do(t, c, "GET", url+"/left", nil, deadline.Header, header); a.body != want {
				t.Errorf("%s: with %q the handler has %q left, want %q", name, header, a.body, want)
			}
		}
		for _, header := range []string{"0", "-5"} {
			do(t, c, "GET", url+"/ran", nil, deadline.Header, header).problem(t, 504)
		}
		if len(ran) != 0 {
			t.Errorf("%s: work ran although the caller had no time left", name)
		}
		do(t, c, "GET", url+"/waits", nil, deadline.Header, "20").problem(t, 504)
		if a := do(t, c, "GET", url+"/stream", nil, "Traceparent", "00-"+parentTrace+"-b7ad6b7169203331-01"); a.body != "false "+parentTrace {
			t.Errorf("%s: stream has %q, want no deadline, and the trace", name, a.body)
		}
		if a := do(t, c, "GET", url+"/stream", nil, deadline.Header, "60000"); !strings.HasPrefix(a.body, "false ") {
			t.Errorf("%s: the caller's deadline cuts a stream: %q", name, a.body)
		}
	}
}

func TestDeadlinePassedBeforeArrivalInProcess(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.HandleFunc("GET /", func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") })
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/", nil))
	if w.Code != 504 {
		t.Errorf("got %d, want 504", w.Code)
	}
}

func TestClientThatGoesAwayIsNoSuccess(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	here := make(chan struct{}, 1)
	b.HandleFunc("GET /slow", func(_ http.ResponseWriter, r *http.Request) {
		here <- struct{}{}
		<-r.Context().Done()
	})
	url := b.start(t)
	for name, c := range b.clients(t) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-here; cancel() }()
		if _, err := try(ctx, c, "GET", url+"/slow", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want a cancellation", name, err)
		}
	}
	eventually(t, "both to be counted as 499", func() bool {
		return b.metric(t, "http_requests_total", prometheus.Labels{"service": "users", "method": "GET", "endpoint": "/slow", "status": "499"}) == 2
	})
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{MaxBody: 1000})
	b.HandleFunc("POST /read", func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = fmt.Fprint(w, len(data))
	})
	b.HandleFunc("POST /silent", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	url := b.start(t)
	type unsized struct{ io.Reader } // hides the length from the client
	for name, c := range b.clients(t) {
		if a := do(t, c, "POST", url+"/read", strings.NewReader(strings.Repeat("x", 1000))); a.body != "1000" {
			t.Errorf("%s: 1000 bytes of 1000 allowed: %d %q", name, a.status, a.body)
		}
		if a := do(t, c, "POST", url+"/read", unsized{strings.NewReader(strings.Repeat("x", 1000))}); a.body != "1000" {
			t.Errorf("%s: 1000 unannounced bytes of 1000 allowed: %d %q", name, a.status, a.body)
		}
		do(t, c, "POST", url+"/read", strings.NewReader(strings.Repeat("x", 1001))).problem(t, 413)
		p := do(t, c, "POST", url+"/read", unsized{strings.NewReader(strings.Repeat("x", 1001))}).problem(t, 413)
		if !strings.Contains(p.Detail, "1000 bytes") {
			t.Errorf("%s: detail %q does not name the limit", name, p.Detail)
		}
		do(t, c, "POST", url+"/silent", unsized{strings.NewReader(strings.Repeat("x", 1001))}).problem(t, 413)
	}
	unlimited := setup(t, server.Options{MaxBody: -1})
	unlimited.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n)
	})
	c := unlimited.clients(t)["in process"]
	if a := do(t, c, "POST", "http://x/", strings.NewReader(strings.Repeat("x", 2<<20))); a.body != "2097152" {
		t.Errorf("without limit: %d %q", a.status, a.body)
	}
}

func TestWriteProblem(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.HandleFunc("POST /users", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		server.WriteProblem(w, r, server.Problem{
			Status: 422, Type: "https://example.com/invalid", Title: "Invalid user", Detail: "two fields are wrong", Instance: "/users/new",
			Errors: []server.FieldError{{Location: "body.email", Message: "is no address", Value: "x"}, {Location: "body.age", Message: "odd", Value: func() {}}},
		})
	})
	url := b.start(t)
	for name, c := range b.clients(t) {
		a := do(t, c, "POST", url+"/users", nil)
		if a.status != 422 || a.header.Get("Content-Encoding") != "" || a.header.Get("Content-Type") != "application/problem+json" ||
			!strings.HasPrefix(a.body, `{"type":"https://example.com/invalid","title":"Invalid user","status":422,"detail":"two fields are wrong","instance":"/users/new","trace_id":"`) ||
			!strings.HasSuffix(a.body, `"errors":[{"location":"body.email","message":"is no address"},{"location":"body.age","message":"odd"}]}`) {
			t.Errorf("%s: %d %v\n%s", name, a.status, a.header, a.body)
		}
	}
	w := httptest.NewRecorder()
	server.WriteProblem(w, httptest.NewRequest("GET", "/x", nil), server.Problem{})
	if want := `{"type":"about:blank","title":"Internal Server Error","status":500,"instance":"/x"}`; w.Body.String() != want || w.Code != 500 {
		t.Errorf("zero problem: %d %s, want %s", w.Code, w.Body, want)
	}
}

func TestStreamingReachesTheClientAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	more := make(chan struct{})
	b.HandleFunc("GET /events", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "one")
		w.(http.Flusher).Flush()
		<-more
		_, _ = io.WriteString(w, "two")
	})
	url := b.start(t)
	for name, c := range b.clients(t) {
		resp, err := c.Get(url + "/events")
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 3)
		if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "one" {
			t.Errorf("%s: %q, %v while the handler goes on", name, first, err)
		}
		more <- struct{}{}
		rest, err := io.ReadAll(resp.Body)
		if err != nil || string(rest) != "two" {
			t.Errorf("%s: rest %q, %v", name, rest, err)
		}
		_ = resp.Body.Close()
	}
}

func TestH2CAndLimits(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	url := b.start(t)
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	h2c := &http.Transport{Protocols: p}
	defer h2c.CloseIdleConnections()
	if a := do(t, &http.Client{Transport: h2c}, "GET", url+"/", nil); a.body != "HTTP/2.0" {
		t.Errorf("h2c: served over %q", a.body)
	}
	c := b.clients(t)["network"]
	if a := do(t, c, "GET", url+"/", nil); a.body != "HTTP/1.1" {
		t.Errorf("HTTP/1.1: served over %q", a.body)
	}
	if a := do(t, c, "GET", url+"/", nil, "X-Big", strings.Repeat("x", 80<<10)); a.status != 431 {
		t.Errorf("80 KiB of headers: got %d, want 431", a.status)
	}
}

// TestLogLinesAreBounded: what a client makes up is cut, and cannot write lines or move a terminal.
func TestLogLinesAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	h := b.Handler()
	for _, path := range []string{strings.Repeat("é", 30_000), strings.Repeat("\x1b", 60_000), "\xff\xfe\n" + strings.Repeat("\xff", 60_000)} {
		for _, method := range []string{"GET", strings.Repeat("M", 60_000)} {
			r := httptest.NewRequest("GET", "/", nil)
			r.Method, r.URL.Path = method, "/"+path
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
	}
	lines := b.lines(t, "request")
	if len(lines) != 6 {
		t.Fatalf("%d lines, want 6", len(lines))
	}
	for _, line := range lines {
		path, method := line["path"].(string), line["method"].(string)
		if len(path) > 3*2100 || len(method) > 2100 || !strings.HasSuffix(path, "…") {
			t.Errorf("path of %d bytes, method of %d, want them cut to 2 KiB with a mark", len(path), len(method))
		}
	}
}
