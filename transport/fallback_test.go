package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/principal"
	"github.com/kaptar/kaptar/telemetry"
)

// static answers with 203 and the reason.
func static(req *http.Request, err error) (*http.Response, error) {
	return textResponse(req, http.StatusNonAuthoritativeInfo, err.Error()), nil
}

// TestFallback: a target that is away, late or broken is answered for; whatever the caller does is not.
func TestFallback(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer  func(r *http.Request) (*http.Response, error)
		timeout time.Duration // of the caller; negative: it cancels then
		want    int           // 0: an error
		reason  string
		counted string // code of client_requests_total
	}{
		"an error status":  {func(r *http.Request) (*http.Response, error) { return reply(r, 503), nil }, 0, 203, "answered 503", "503"},
		"an internal one":  {func(r *http.Request) (*http.Response, error) { return reply(r, 500), nil }, 0, 203, "answered 500", "500"},
		"no connection":    {func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }, 0, 203, "connection refused", "error"},
		"no answer":        {hang, 0, 203, "no answer after", "timeout"},
		"no time for one":  {hang, time.Second, 203, "no answer after", "timeout"},
		"a client's error": {func(r *http.Request) (*http.Response, error) { return reply(r, 404), nil }, 0, 404, "body", "404"},
		"the caller goes":  {hang, -time.Second, 0, "context canceled", "canceled"},
	} {
		synctest.Test(t, func(t *testing.T) {
			tel := newTelemetry(t, io.Discard)
			tr := over(t, Options{Resolver: listed("a"), Telemetry: tel, Default: Settings{Retry: RetrySettings{Max: -1}}}, test.answer)
			ctx := WithFallback(t.Context(), Fallback{HTTP: static})
			if test.timeout > 0 {
				var cancel func()
				ctx, cancel = context.WithTimeout(ctx, test.timeout)
				defer cancel()
			} else if test.timeout < 0 {
				var cancel func()
				ctx, cancel = context.WithCancel(ctx)
				time.AfterFunc(-test.timeout, cancel)
			}
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, orders, nil)
			resp, err := tr.RoundTrip(req)
			got, text, mark := 0, fmt.Sprint(err), ""
			if err == nil {
				b, _ := io.ReadAll(resp.Body)
				got, text, mark = resp.StatusCode, string(b), resp.Header.Get("Kaptar-Fallback")
			}
			if got != test.want || !strings.Contains(text, test.reason) || (mark == "true") != (test.want == 203) {
				t.Errorf("%s: %d %q, marked %q, want %d with %q", name, got, text, mark, test.want, test.reason)
			}
			fallbacks, _ := metric(t, tel, "client_fallbacks_total", "target=order-service")
			if calls, _ := metric(t, tel, "client_requests_total", "code="+test.counted); calls != 1 || (fallbacks == 1) != (test.want == 203) {
				t.Errorf("%s: %v calls with %s, %v fallbacks", name, calls, test.counted, fallbacks)
			}
			tg, _ := tr.target("order-service", false)
			if n := tg.instances()[0].inFlight.Load(); test.want != 404 && n != 0 {
				t.Errorf("%s: %d calls in flight, want none", name, n)
			}
		})
	}
}

func hang(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestFallbackOfATargetThatIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen atomic.Int32
		tr := over(t, Options{Resolver: listed("a"), Default: Settings{Breaker: BreakerSettings{FailureThreshold: 1}}}, unready(99, &seen))
		for _, service := range []string{"order-service", "order-service", "nobody"} {
			req, _ := http.NewRequestWithContext(WithFallback(t.Context(), Fallback{HTTP: static}), http.MethodGet, "http://"+service+"/", nil)
			if got, err := send(t, tr, req); got != 203 {
				t.Errorf("%s: %d, %v, want the fallback", service, got, err)
			}
		}
		var open *OpenError
		refuse := func(_ *http.Request, err error) (*http.Response, error) { errors.As(err, &open); return nil, err }
		req, _ := http.NewRequestWithContext(WithFallback(t.Context(), Fallback{HTTP: refuse}), http.MethodGet, orders, nil)
		if _, err := send(t, tr, req); !errors.Is(err, ErrOpen) || open == nil {
			t.Errorf("a fallback that has no answer: %v, want the call's own error, of which it was told", err)
		}
	})
}

func TestFallbackOverGRPC(t *testing.T) {
	t.Parallel()
	h := &health{check: func(_ context.Context, service string) error {
		if service == "missing" {
			return status.Error(codes.NotFound, "no such service")
		}
		return status.Error(codes.Unavailable, "down")
	}}
	address, _ := serve(t, h)
	tr := over(t, Options{Resolver: grpcListed(t, address)}, nil)
	ctx := WithFallback(t.Context(), Fallback{Unary: func(_ context.Context, method string, req, reply any, err error) error {
		if method != "/grpc.health.v1.Health/Check" || req.(*grpc_health_v1.HealthCheckRequest).GetService() != "x" || status.Code(err) != codes.Unavailable {
			t.Errorf("the fallback is asked for %s %v because of %v", method, req, err)
		}
		reply.(*grpc_health_v1.HealthCheckResponse).Status = grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
		return nil
	}})
	client := grpc_health_v1.NewHealthClient(tr.Conn("order-service"))
	var header metadata.MD
	resp, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "x"}, grpc.Header(&header))
	if err != nil || resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN || len(header.Get("kaptar-fallback")) != 1 {
		t.Errorf("got %v, %v, header %v, want the fallback's answer, marked", resp, err, header)
	}
	if _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "missing"}); status.Code(err) != codes.NotFound {
		t.Errorf("got %v, want the server's NotFound", err)
	}
}

// TestLastGood: an answer is kept for the same request with the same headers, and given with its age
// while the target fails.
func TestLastGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := false
		good := &LastGood{MaxAge: time.Hour}
		opts := Options{Resolver: listed("a"), Client: []func(http.RoundTripper) http.RoundTripper{good.Client}}
		tr := over(t, opts, func(r *http.Request) (*http.Response, error) {
			if down {
				return reply(r, 503), nil
			}
			resp := reply(r, 200, "Etag", "1")
			switch r.Header.Get("Want") {
			case "no-store":
				resp.Header.Set("Cache-Control", "private, no-store")
			case "a stream":
				resp.ContentLength = -1
			case "much":
				resp.ContentLength = 1 << 20
			case "404":
				resp.StatusCode = 404
			}
			return resp, nil
		})
		ask := func(method, path string, headers ...string) (int, *http.Response) {
			req, _ := http.NewRequestWithContext(t.Context(), method, "http://order-service"+path, nil)
			for i := 0; i < len(headers); i += 2 {
				req.Header.Set(headers[i], headers[i+1])
			}
			resp, err := tr.RoundTrip(req)
			if err != nil {
				return 0, nil
			}
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == 200 && string(b) != "body" {
				t.Errorf("the body is %q", b)
			}
			return resp.StatusCode, resp
		}
		calls := [][]string{
			{"GET", "/orders/1", "Authorization", "ada"},
			{"PUT", "/orders/1"},
			{"GET", "/orders/1", "Want", "no-store"}, {"GET", "/orders/1", "Want", "a stream"}, {"GET", "/orders/1", "Want", "much"},
			{"GET", "/orders/1", "Want", "404"},
		}
		for _, c := range calls {
			ask(c[0], c[1], c[2:]...)
		}
		down = true
		time.Sleep(10 * time.Second)
		got, resp := ask("GET", "/orders/1", "Authorization", "ada", "Traceparent", "another")
		if got != 200 || resp.Header.Get("Age") != "10" || resp.Header.Get("Etag") != "1" || resp.Header.Get("Kaptar-Fallback") != "true" {
			t.Errorf("%d, %v, want the good answer, 10 s old", got, resp)
		}
		for _, c := range append(calls[1:], []string{"GET", "/orders/1"}, []string{"GET", "/orders/1", "Authorization", "eve"}, []string{"GET", "/orders/1?all", "Authorization", "ada"}) {
			if got, _ := ask(c[0], c[1], c[2:]...); got != 503 && got != 0 {
				t.Errorf("%v: %d, want no answer of the past", c, got)
			}
		}
		time.Sleep(time.Hour)
		if got, _ := ask("GET", "/orders/1", "Authorization", "ada"); got == 200 {
			t.Error("an answer of more than an hour ago was given")
		}
	})
}

// TestLastGoodIsForOne: what was answered to one is given to nobody else.
func TestLastGoodIsForOne(t *testing.T) {
	t.Parallel()
	type who struct {
		Subject string
		Scopes  []string
	}
	synctest.Test(t, func(t *testing.T) {
		down := false
		good := new(LastGood)
		opts := Options{Resolver: listed("a"), Client: []func(http.RoundTripper) http.RoundTripper{good.Client}}
		tr := over(t, opts, func(r *http.Request) (*http.Response, error) {
			if down {
				return reply(r, 503), nil
			}
			return reply(r, 200), nil
		})
		next := func(ctx context.Context, method string, in, out any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
			if f, _ := ctx.Value(fallbackKey{}).(Fallback); down {
				return f.Unary(ctx, method, in, out, errors.New("down"))
			}
			return nil
		}
		ask := func(as any) (code int, rpc error) {
			ctx := context.WithValue(t.Context(), principal.Key{}, as)
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, orders, http.NoBody)
			if resp, err := tr.RoundTrip(req); err == nil {
				code = resp.StatusCode
				_ = resp.Body.Close()
			}
			return code, good.Unary(ctx, "/a/b", new(grpc_health_v1.HealthCheckRequest), new(grpc_health_v1.HealthCheckResponse), nil, next)
		}
		ada := &who{"ada", []string{"a", "b"}}
		_, _ = ask(ada)
		down = true
		for _, other := range []any{nil, &who{}, &who{"eve", ada.Scopes}, &who{"ada", nil}, &who{"ada", []string{`a" "b`}}} {
			if status, err := ask(other); status == 200 || err == nil {
				t.Errorf("%+v: %d and %v, want no answer that was given to another", other, status, err)
			}
		}
		if status, err := ask(&who{"ada", []string{"a", "b"}}); status != 200 || err != nil {
			t.Errorf("the same one: %d and %v, want the last good answer", status, err)
		}
	})
}

func TestLastGoodOverGRPC(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	h := &health{check: func(context.Context, string) error {
		if down.Load() {
			return status.Error(codes.Unavailable, "down")
		}
		return nil
	}}
	address, _ := serve(t, h)
	good := new(LastGood)
	tr := over(t, Options{Resolver: grpcListed(t, address), Unary: []grpc.UnaryClientInterceptor{good.Unary}}, nil)
	client := grpc_health_v1.NewHealthClient(tr.Conn("order-service"))
	ask := func(service string) (*grpc_health_v1.HealthCheckResponse, error) {
		return client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
	}
	for range 2 {
		if resp, err := ask("known"); err != nil || resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("down is %t: %v, %v, want SERVING", down.Load(), resp, err)
		}
		down.Store(true)
	}
	if resp, err := ask("unknown"); status.Code(err) != codes.Unavailable {
		t.Errorf("another request: %v, %v, want Unavailable", resp, err)
	}
}

func TestLastGoodIsBounded(t *testing.T) {
	t.Parallel()
	l := new(LastGood)
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 200 {
				l.keep(fmt.Sprint(g, i%100), kept{body: make([]byte, keptAnswer)})
				l.get(fmt.Sprint(g, i))
			}
		})
	}
	all.Wait()
	sum := 0
	for _, k := range l.kept {
		sum += k.size
	}
	if sum != l.size || sum > keptInAll || sum < keptInAll-2*keptAnswer {
		t.Errorf("%d bytes are kept and %d counted, want a little less than %d", sum, l.size, keptInAll)
	}
}

// TestSpansTellOfFaultsHedgesAndFallbacks: what did not go as usual can be found in traces.
func TestSpansTellOfFaultsHedgesAndFallbacks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := &script{takes: []time.Duration{time.Minute, 0}, gives: []int{200, 200}}
		tr := over(t, Options{Resolver: listed("a", "b"), Default: hedging(50 * ms)}, network.roundTrip)
		rec := recorded(tr)
		_, _ = do(t, tr, "GET", orders, nil)
		setFaults(tr, `[{"status":500}]`)
		req, _ := http.NewRequestWithContext(WithFallback(t.Context(), Fallback{HTTP: static}), http.MethodGet, orders, nil)
		_, _ = send(t, tr, req)
		spans := rec.Ended()
		if len(spans) != 2 {
			t.Fatalf("%d spans, want one for each call", len(spans))
		}
		for i, want := range []map[attribute.Key]string{
			{hedgedAttr: "true", faultAttr: "", fallbackAttr: ""},
			{hedgedAttr: "", faultAttr: "status", fallbackAttr: "true", telemetry.HTTPStatus: "500"},
		} {
			for key, value := range want {
				if got := attributes(spans[i])[key]; got != value {
					t.Errorf("span %d has %s=%q, want %q", i, key, got, value)
				}
			}
		}
	})
}

func ExampleWithFallback() {
	stock := func(req *http.Request, _ error) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(`{"available":0}`)), Request: req}, nil
	}
	tr := New(&Options{Resolver: new(discovery.Memory)}) // nobody serves anything
	ctx := WithFallback(context.Background(), Fallback{HTTP: stock})
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://inventory-service/stock/tea", nil)
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, string(body), resp.Header.Get("Kaptar-Fallback"))
	// Output: 200 {"available":0} true
}
