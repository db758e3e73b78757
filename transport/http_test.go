package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/deadline"
)

func TestARealServiceIsCalledByItsName(t *testing.T) {
	noLeaks(t)
	m := new(discovery.Memory)
	server(t, m, "order-service", "a", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Host", r.Host)
		w.Header().Set("X-Path", r.URL.RequestURI())
		_, _ = w.Write(append([]byte("got "), b...))
	})
	tr := over(t, Options{Resolver: m}, nil)
	client := &http.Client{Transport: tr}
	for range 3 {
		resp, err := client.Post("http://order-service/orders?x=1", "text/plain", strings.NewReader("tea"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(b) != "got tea" || err != nil {
			t.Errorf("body %q, %v, want %q", b, err, "got tea")
		}
		if h := resp.Header; h.Get("X-Host") != "order-service" || h.Get("X-Path") != "/orders?x=1" {
			t.Errorf("the service saw host %q and path %q", h.Get("X-Host"), h.Get("X-Path"))
		}
		if got := resp.Request.URL.String(); got != "http://order-service/orders?x=1" {
			t.Errorf("response's request is for %s, want the caller's URL", got)
		}
	}
}

func TestTheRequestIsNotModifiedAndItsBodyIsClosed(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]roundTripper{
		"answered": func(r *http.Request) (*http.Response, error) {
			r.Header["A"] = append(r.Header["A"], "x")
			return reply(r, 200), nil
		},
		"unready": func(r *http.Request) (*http.Response, error) { return reply(r, 503), nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tr := over(t, Options{Resolver: listed("a")}, f)
				ctx := trace.ContextWithSpanContext(t.Context(), parentSpan())
				body := &closer{Reader: strings.NewReader("x")}
				req, _ := http.NewRequestWithContext(ctx, "PUT", orders, body)
				req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil }
				values := make([]string, 1, 4) // room that an append could write to
				values[0] = "1"
				req.Header["A"] = values
				before, url := req.Header.Clone(), *req.URL
				_, _ = send(t, tr, req)
				if !reflect.DeepEqual(req.Header, before) || *req.URL != url || req.Host != "order-service" || req.Context() != ctx || req.Body != body {
					t.Errorf("the request was modified: %v %v %v", req.Header, req.URL, req.Host)
				}
				if values[:2][1] != "" {
					t.Errorf("the array under a header's values was written to: %q", values[:2])
				}
				if body.closed.Load() == 0 {
					t.Error("the body was not closed")
				}
			})
		})
	}
}

type closer struct {
	io.Reader
	closed atomic.Int32
}

func (c *closer) Close() error { c.closed.Add(1); return nil }

func parentSpan() trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
}

func TestTheBodyIsClosedWhenNothingIsSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := over(t, Options{Resolver: listed("a")}, func(r *http.Request) (*http.Response, error) { return reply(r, 500), nil })
		for range 5 {
			_, _ = do(t, tr, "POST", orders, nil)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for _, test := range []struct {
			ctx context.Context
			url string
			err error
		}{
			{t.Context(), orders, ErrOpen},
			{t.Context(), "http://unknown-service/", ErrNoInstances},
			{ended, orders, context.Canceled},
			{t.Context(), "ftp://order-service/", nil},
		} {
			body := &closer{Reader: strings.NewReader("x")}
			req, _ := http.NewRequestWithContext(test.ctx, "POST", test.url, body)
			_, err := send(t, tr, req)
			if err == nil || (test.err != nil && !errors.Is(err, test.err)) {
				t.Errorf("%s: error %v, want %v", test.url, err, test.err)
			}
			if body.closed.Load() != 1 {
				t.Errorf("%s (%v): body closed %d times, want once", test.url, err, body.closed.Load())
			}
		}
	})
}

func TestTheDeadlineGoesOutShortened(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		caller, own, want time.Duration
	}{
		{0, 0, 5 * time.Second},
		{2 * time.Second, 0, 2 * time.Second},
		{time.Minute, 0, time.Minute},
		{time.Minute, 3 * time.Second, 3 * time.Second},
		{2 * time.Second, 3 * time.Second, 2 * time.Second},
		{0, -1, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			var sent []string
			tr := over(t, Options{Resolver: listed("a"), Targets: map[string]Settings{"order-service": {Timeout: test.own}}},
				func(r *http.Request) (*http.Response, error) {
					sent = append(sent, r.Header.Get(deadline.Header))
					time.Sleep(500 * time.Millisecond)
					return reply(r, 503, "Retry-After", "0"), nil
				})
			ctx := t.Context()
			if test.caller > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, test.caller)
				defer cancel()
			}
			req, _ := http.NewRequestWithContext(ctx, "GET", orders, nil)
			req.Header.Set(deadline.Header, "999999") // what a proxy would pass on
			_, _ = send(t, tr, req)
			for i, got := range sent {
				want := strconv.FormatInt((test.want - time.Duration(i)*500*time.Millisecond - 5*time.Millisecond).Milliseconds(), 10)
				if test.want == 0 {
					want = "999999"
				}
				if got != want {
					t.Errorf("caller %v, own %v, attempt %d: header %q, want %q", test.caller, test.own, i+1, got, want)
				}
			}
			if len(sent) != 3 {
				t.Errorf("%d attempts, want 3", len(sent))
			}
		})
	}
}

func TestTheDeadlineCoversTheBody(t *testing.T) {
	t.Parallel()
	m := new(discovery.Memory)
	gone := make(chan struct{})
	server(t, m, "order-service", "a", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10") // an answer, not a stream
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})
	tr := over(t, Options{Resolver: m, Default: Settings{Timeout: 1500 * time.Millisecond}}, nil)
	status, err := do(t, tr, "GET", orders, nil)
	if status != 200 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %d, %v, want 200 and then a deadline", status, err)
	}
	<-gone
}

// The call's own deadline is for the head of a response of unknown length, which may be a stream. The caller's holds.
func TestAStreamOutlivesTheDeadline(t *testing.T) {
	t.Parallel()
	m := new(discovery.Memory)
	handler := func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(1700 * time.Millisecond):
			_, _ = io.WriteString(w, "late")
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	}
	server(t, m, "order-service", "a", handler)
	local := new(Local)
	local.Add("a", http.HandlerFunc(handler), nil)
	for name, l := range map[string]*Local{"network": nil, "in process": local} {
		tr := over(t, Options{Resolver: m, Local: l, Default: Settings{Timeout: 1500 * time.Millisecond}}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "GET", orders, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		part := make([]byte, 4)
		if _, err := io.ReadFull(resp.Body, part); err != nil || string(part) != "late" {
			t.Errorf("%s: read %q, %v after the deadline", name, part, err)
		}
		cancel()
		if _, err := resp.Body.Read(part); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: after the caller has left: %v", name, err)
		}
		_ = resp.Body.Close()
	}
}

func TestABodyThatBreaksOffIsAFailure(t *testing.T) {
	t.Parallel()
	m := new(discovery.Memory)
	server(t, m, "order-service", "a", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = w.Write([]byte("four"))
	})
	tr := over(t, Options{Resolver: m}, nil)
	for range 5 {
		if _, err := do(t, tr, "GET", orders, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("got %v, want an unexpected EOF", err)
		}
	}
	if got := tr.State("order-service"); got != Open {
		t.Errorf("after five answers that broke off: %s, want open", got)
	}
}

func TestACallIsInFlightUntilItsBodyEnds(t *testing.T) {
	t.Parallel()
	tr := over(t, Options{Resolver: listed("a")}, func(r *http.Request) (*http.Response, error) { return reply(r, 200), nil })
	inFlight := func() int64 { return tr.byName["order-service"].instances()[0].inFlight.Load() }
	for name, end := range map[string]func(io.ReadCloser){
		"read":  func(b io.ReadCloser) { _, _ = io.Copy(io.Discard, b) },
		"close": func(b io.ReadCloser) { _ = b.Close(); _ = b.Close() },
	} {
		req, _ := http.NewRequest("GET", orders, nil)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := inFlight(); got != 1 {
			t.Errorf("%s: %d in flight before, want 1", name, got)
		}
		end(resp.Body)
		if got := inFlight(); got != 0 {
			t.Errorf("%s: %d in flight after, want 0", name, got)
		}
	}
}

func TestNoInstances(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := new(discovery.Memory)
		tr := over(t, Options{Resolver: m}, func(r *http.Request) (*http.Response, error) { return reply(r, 200), nil })
		began := time.Now()
		_, err := do(t, tr, "GET", "http://order-servce/", nil)
		if !errors.Is(err, ErrNoInstances) || !strings.Contains(err.Error(), "order-servce") {
			t.Errorf("got %v, want ErrNoInstances that names order-servce", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v, want at most 1s", took)
		}
		if got := tr.State("order-servce"); got != Closed {
			t.Errorf("breaker of a target without instances: %s, want closed", got)
		}
		time.AfterFunc(500*time.Millisecond, func() {
			_ = m.Register(context.Background(), discovery.Instance{ID: "a", Service: "order-service", HTTP: "a:80"})
		})
		if status, err := do(t, tr, "GET", orders, nil); status != 200 {
			t.Errorf("a service that starts half a second later: %d, %v, want 200", status, err)
		}
		_ = m.Register(context.Background(), discovery.Instance{ID: "g", Service: "grpc-service", GRPC: "g:80"})
		if _, err := do(t, tr, "GET", "http://grpc-service/", nil); !errors.Is(err, ErrNoInstances) || !strings.Contains(err.Error(), "http") {
			t.Errorf("a service without HTTP: %v, want ErrNoInstances that says so", err)
		}
	})
	noRegistry := over(t, Options{}, nil)
	if _, err := do(t, noRegistry, "GET", orders, nil); !errors.Is(err, ErrNoInstances) {
		t.Errorf("without a registry: %v, want ErrNoInstances", err)
	}
}

func TestTheLastGoodListStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &flaky{lists: make(chan []discovery.Instance)}
		tr := over(t, Options{Resolver: r}, func(r *http.Request) (*http.Response, error) { return reply(r, 200), nil })
		go func() { r.lists <- []discovery.Instance{{ID: "a", HTTP: "a:80"}} }()
		for _, what := range []string{"listed", "empty", "failed"} {
			if status, err := do(t, tr, "GET", orders, nil); status != 200 {
				t.Errorf("%s: %d, %v, want 200", what, status, err)
			}
			switch what {
			case "listed":
				r.lists <- nil
			case "empty":
				close(r.lists)
			}
			synctest.Wait()
		}
		time.Sleep(10 * time.Minute) // it goes on asking, slower and slower
		if n := r.watches.Load(); n < 10 || n > 60 {
			t.Errorf("%d watches in 10 minutes, want 10 to 60", n)
		}
	})
}

// flaky is a registry whose every Watch after the first fails.
type flaky struct {
	lists   chan []discovery.Instance
	watches atomic.Int32
}

func (f *flaky) Watch(ctx context.Context, _ string, update func([]discovery.Instance)) error {
	f.watches.Add(1)
	for {
		select {
		case list, ok := <-f.lists:
			if !ok {
				return errors.New("registry down")
			}
			update(list)
		case <-ctx.Done():
			return nil
		}
	}
}

func TestExternalTargets(t *testing.T) {
	t.Parallel()
	var seen atomic.Int32
	m := new(discovery.Memory)
	srv := server(t, m, "ignored", "x", func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		if r.Header.Get("Traceparent") == "" || r.Header.Get(deadline.Header) == "" {
			t.Errorf("an external call came without trace or deadline: %v", r.Header)
		}
		w.WriteHeader(500)
	})
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	for _, host := range []string{srv.Listener.Addr().String(), "localhost:" + port} {
		seen.Store(0)
		tr := over(t, Options{Resolver: m, Telemetry: newTelemetry(t, io.Discard)}, nil)
		for range 5 {
			if status, err := do(t, tr, "POST", "http://"+host+"/charges", nil); status != 500 {
				t.Fatalf("%s: %d, %v, want 500", host, status, err)
			}
		}
		_, err := do(t, tr, "POST", "http://"+host+"/charges", nil)
		if !errors.Is(err, ErrOpen) || !strings.Contains(err.Error(), host) || seen.Load() != 5 {
			t.Errorf("%s: %v after %d calls, want ErrOpen after 5", host, err, seen.Load())
		}
		if got := tr.State(host); got != Open {
			t.Errorf("State(%q) = %s, want open", host, got)
		}
	}
}

func TestAddress(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		host                    string
		tls                     bool
		name, service, external string
	}{
		{"order-service", false, "order-service", "order-service", "order-service:80"},
		{"Order-Service", true, "order-service", "order-service", "order-service:443"},
		{"api.bank.example", false, "api.bank.example:80", "api.bank.example", "api.bank.example:80"},
		{"api.bank.example", true, "api.bank.example:443", "api.bank.example", "api.bank.example:443"},
		{"bank:8090", false, "bank:8090", "bank:8090", "bank:8090"},
		{"127.0.0.1:9999", false, "127.0.0.1:9999", "", "127.0.0.1:9999"},
		{"127.0.0.1", true, "127.0.0.1:443", "", "127.0.0.1:443"},
		{"[::1]:9999", false, "[::1]:9999", "", "[::1]:9999"},
		{"[::1]", false, "[::1]:80", "", "[::1]:80"},
	} {
		name, service, external := address(test.host, test.tls)
		if name != test.name || service != test.service || external != test.external {
			t.Errorf("address(%q, %t) = %q, %q, %q, want %q, %q, %q", test.host, test.tls, name, service, external, test.name, test.service, test.external)
		}
	}
}

func TestARegistryMayKnowADottedName(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := new(discovery.Memory)
		_ = m.Register(t.Context(), discovery.Instance{ID: "a", Service: "api.bank.example", HTTP: "10.0.0.1:80"})
		var host string
		tr := over(t, Options{Resolver: m}, func(r *http.Request) (*http.Response, error) { host = r.URL.Host; return reply(r, 200), nil })
		if status, err := do(t, tr, "GET", "http://api.bank.example/", nil); status != 200 || host != "10.0.0.1:80" {
			t.Errorf("got %d, %v from %s, want the registry's 10.0.0.1:80", status, err, host)
		}
	})
}

func TestSettingsOfTargets(t *testing.T) {
	t.Parallel()
	opts := Options{
		Default: Settings{Breaker: BreakerSettings{FailureThreshold: 7}},
		Targets: map[string]Settings{
			"order-service":    {Breaker: BreakerSettings{RecoveryTimeout: time.Second}},
			"api.bank.example": {Retry: RetrySettings{Max: -1}},
			"bank:8090":        {Timeout: time.Second},
		},
	}
	if got := settingsFor(opts, "order-service"); got.Breaker != (BreakerSettings{7, time.Second}) || got.Retry.Max != 2 || got.Retry.AttemptTimeout != time.Second {
		t.Errorf("order-service: %+v", got)
	}
	if got := settingsFor(opts, "api.bank.example:443"); got.Retry.Max != -1 || got.Breaker.RecoveryTimeout != time.Minute {
		t.Errorf("api.bank.example:443: %+v", got)
	}
	if got := settingsFor(opts, "bank:8090"); got.Timeout != time.Second {
		t.Errorf("bank:8090: %+v", got)
	}
	if got := (Settings{}).over(Settings{}); !reflect.DeepEqual(got, (Settings{Breaker: BreakerSettings{5, time.Minute}, Retry: RetrySettings{2, time.Second, 25 * time.Millisecond, 250 * time.Millisecond, 0.1}, Subset: 20})) {
		t.Errorf("defaults: %+v", got)
	}
}

func TestAnInstanceOfThisProcessIsCalledDirectly(t *testing.T) {
	t.Parallel()
	noNetwork := roundTripper(func(r *http.Request) (*http.Response, error) {
		return nil, errors.New("the network was used")
	})
	local := new(Local)
	local.Add("a", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, ok := r.Context().Deadline()
		w.Header().Set("X-Saw", r.Host+" "+r.URL.Path+" "+strconv.FormatBool(ok)+" "+strconv.FormatBool(r.Header.Get(deadline.Header) != ""))
		_, _ = io.Copy(w, r.Body)
	}), nil)
	tr := over(t, Options{Resolver: listed("a"), Local: local}, noNetwork)
	resp, err := (&http.Client{Transport: tr}).Post(orders, "text/plain", strings.NewReader("tea"))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if string(b) != "tea" || resp.Header.Get("X-Saw") != "order-service /orders/1 true true" {
		t.Errorf("got %q, the handler saw %q", b, resp.Header.Get("X-Saw"))
	}
	local.Remove("a")
	if _, err := do(t, tr, "POST", orders, nil); err == nil || !strings.Contains(err.Error(), "network") {
		t.Errorf("after Remove: %v, want the network", err)
	}
	var none *Local
	none.Add("a", nil, nil)
	none.Remove("a")
}

func TestConcurrentUse(t *testing.T) {
	noLeaks(t)
	m := new(discovery.Memory)
	for _, id := range []string{"a", "b", "c"} {
		server(t, m, "order-service", id, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("fail") != "" {
				w.WriteHeader(503)
			}
			_, _ = io.Copy(w, r.Body)
		})
	}
	tr := over(t, Options{Resolver: m, Telemetry: newTelemetry(t, io.Discard)}, nil)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 50 {
				url := orders
				if (i+j)%7 == 0 {
					url += "?fail=1"
				}
				_, _ = do(t, tr, []string{"GET", "PUT", "POST"}[j%3], url, bytes.NewReader([]byte("x")))
				_ = tr.State("order-service")
			}
		})
	}
	wg.Wait()
	for _, in := range tr.byName["order-service"].instances() {
		if got := in.inFlight.Load(); got != 0 {
			t.Errorf("%s: %d calls still in flight", in.ID, got)
		}
	}
}

func TestAfterClose(t *testing.T) {
	t.Parallel()
	tr := New(&Options{Resolver: listed("a")})
	for range 2 {
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := do(t, tr, "GET", orders, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("a call after Close: %v, want ErrClosed", err)
	}
}
