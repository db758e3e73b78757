package transport

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/inproc"
)

const ms = time.Millisecond

// script is a network whose attempts take their times and give their statuses in order, 0 for an
// error; it keeps who was called and which attempts were cancelled.
type script struct {
	takes     []time.Duration
	gives     []int
	mu        sync.Mutex
	hosts     []string
	cancelled []bool
	traces    []string
}

func (s *script) roundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	i := len(s.hosts)
	s.hosts, s.cancelled = append(s.hosts, r.URL.Host), append(s.cancelled, false)
	s.traces = append(s.traces, r.Header.Get("Traceparent"))
	s.mu.Unlock()
	select {
	case <-time.After(s.takes[i]):
	case <-r.Context().Done():
		s.mu.Lock()
		s.cancelled[i] = true
		s.mu.Unlock()
		return nil, r.Context().Err()
	}
	if s.gives[i] == 0 {
		return nil, errors.New("connection reset")
	}
	return reply(r, s.gives[i]), nil
}

func hedging(after time.Duration) Settings {
	return Settings{Hedge: HedgeSettings{Routes: []string{"GET /orders/{id}", "PUT /orders/{id}"}, After: after}}
}

func TestHedge(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		method      string
		instances   []string
		network     *script
		status      int
		took        time.Duration
		attempts    int
		hedges, won float64
	}{
		"the second wins":        {"GET", []string{"a", "b"}, &script{takes: []time.Duration{time.Minute, 10 * ms}, gives: []int{200, 201}}, 201, 60 * ms, 2, 1, 1},
		"the first wins":         {"GET", []string{"a", "b"}, &script{takes: []time.Duration{80 * ms, time.Minute}, gives: []int{200, 201}}, 200, 80 * ms, 2, 1, 0},
		"the first is in time":   {"GET", []string{"a", "b"}, &script{takes: []time.Duration{40 * ms}, gives: []int{200}}, 200, 40 * ms, 1, 0, 0},
		"the second fails":       {"GET", []string{"a", "b"}, &script{takes: []time.Duration{90 * ms, 10 * ms}, gives: []int{200, 503}}, 200, 90 * ms, 2, 1, 0},
		"the first fails late":   {"GET", []string{"a", "b"}, &script{takes: []time.Duration{70 * ms, 90 * ms}, gives: []int{503, 201}}, 201, 140 * ms, 2, 1, 1},
		"a body is sent twice":   {"PUT", []string{"a", "b"}, &script{takes: []time.Duration{time.Minute, 10 * ms}, gives: []int{200, 201}}, 201, 60 * ms, 2, 1, 1},
		"there is one instance":  {"GET", []string{"a"}, &script{takes: []time.Duration{80 * ms}, gives: []int{200}}, 200, 80 * ms, 1, 0, 0},
		"it may not be repeated": {"POST", []string{"a", "b"}, &script{takes: []time.Duration{80 * ms}, gives: []int{200}}, 200, 80 * ms, 1, 0, 0},
		"another route":          {"DELETE", []string{"a", "b"}, &script{takes: []time.Duration{80 * ms}, gives: []int{200}}, 200, 80 * ms, 1, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			tel := newTelemetry(t, io.Discard)
			tr := over(t, Options{Resolver: listed(test.instances...), Telemetry: tel, Default: hedging(50 * ms)}, test.network.roundTrip)
			began := time.Now()
			got, err := do(t, tr, test.method, orders, strings.NewReader("two teas"))
			if got != test.status || err != nil || time.Since(began) != test.took {
				t.Errorf("%s: %d, %v after %v, want %d after %v", name, got, err, time.Since(began), test.status, test.took)
			}
			synctest.Wait() // for the loser
			if n := len(test.network.hosts); n != test.attempts || n == 2 && test.network.hosts[0] == test.network.hosts[1] {
				t.Errorf("%s: attempts went to %v, want %d different instances", name, test.network.hosts, test.attempts)
			}
			if traces := test.network.traces; traces[0] == "" || traces[0] != traces[len(traces)-1] {
				t.Errorf("%s: the attempts are of the traces %q, want one", name, traces)
			}
			requests, _ := metric(t, tel, "client_requests_total")
			hedges, _ := metric(t, tel, "client_hedges_total")
			won, _ := metric(t, tel, "client_hedges_won_total")
			if requests != 1 || hedges != test.hedges || won != test.won {
				t.Errorf("%s: %v calls, %v hedges, %v won, want 1, %v, %v", name, requests, hedges, won, test.hedges, test.won)
			}
			tg, _ := tr.target("order-service", false)
			for _, in := range tg.instances() {
				if in.inFlight.Load() != 0 {
					t.Errorf("%s: %d calls in flight at %s, want none", name, in.inFlight.Load(), in.ID)
				}
			}
		})
	}
}

// TestALosingAttemptSaysNothing: neither breaker nor balancer hold it against an instance that it was
// cancelled.
func TestALosingAttemptSaysNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		set := hedging(50 * ms)
		set.Breaker.FailureThreshold = 1
		network := script{takes: []time.Duration{time.Minute, 10 * ms, 70 * ms, time.Minute}, gives: []int{200, 200, 200, 200}}
		tr := over(t, Options{Resolver: listed("a", "b"), Default: set}, network.roundTrip)
		for range 2 {
			if got, err := do(t, tr, "GET", orders, nil); got != 200 {
				t.Fatalf("%d, %v, want 200", got, err)
			}
			synctest.Wait()
		}
		if want := []bool{true, false, false, true}; len(network.cancelled) != 4 || network.cancelled[0] != want[0] || network.cancelled[3] != want[3] {
			t.Errorf("cancelled: %v, want %v", network.cancelled, want)
		}
		if got := tr.State("order-service"); got != Closed {
			t.Errorf("the breaker is %s, want closed", got)
		}
		tg, _ := tr.target("order-service", false)
		for _, in := range tg.instances() {
			if in.failures.Load() != 0 {
				t.Errorf("%s has %d failures, want none", in.ID, in.failures.Load())
			}
		}
	})
}

// TestTheWinnersBodyIsWhole: whoever wins is not cancelled with the loser.
func TestTheWinnersBodyIsWhole(t *testing.T) {
	t.Parallel()
	for _, slow := range []time.Duration{80 * ms, time.Minute} { // of the first attempt: it wins, or the second
		synctest.Test(t, func(t *testing.T) {
			network := script{takes: []time.Duration{slow, 40 * ms}, gives: []int{200, 200}}
			tr := over(t, Options{Resolver: listed("a", "b"), Default: hedging(50 * ms)}, func(r *http.Request) (*http.Response, error) {
				resp, err := network.roundTrip(r)
				if err == nil {
					resp.ContentLength, resp.Body = 1, io.NopCloser(readerFunc(func(p []byte) (int, error) {
						select {
						case <-r.Context().Done():
							return 0, r.Context().Err()
						case <-time.After(time.Second):
							return 1, io.EOF
						}
					}))
				}
				return resp, err
			})
			if got, err := do(t, tr, "GET", orders, nil); got != 200 || err != nil {
				t.Errorf("the first takes %v: %d, %v, want a whole answer", slow, got, err)
			}
		})
	}
}

func TestHedgesComeFromTheRetryBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen atomic.Int32
		set := hedging(ms)
		set.Retry.Budget = 1e-9
		tr := over(t, Options{Resolver: listed("a", "b", "c"), Default: set}, func(r *http.Request) (*http.Response, error) {
			seen.Add(1)
			time.Sleep(20 * ms)
			return reply(r, 200), nil
		})
		for range 100 {
			_, _ = do(t, tr, "GET", orders, nil)
		}
		if got := seen.Load(); got != 110 {
			t.Errorf("%d attempts for 100 calls within 10 s, want 10 hedges", got)
		}
	})
}

// TestBothAttemptsFail: the call is then repeated as any other, and hedges count as attempts.
func TestBothAttemptsFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := script{takes: []time.Duration{70 * ms, 40 * ms, 0, 0}, gives: []int{0, 503, 502, 200}}
		tr := over(t, Options{Resolver: listed("a", "b"), Default: hedging(50 * ms)}, network.roundTrip)
		if got, err := do(t, tr, "GET", orders, nil); got != 502 || len(network.hosts) != 3 {
			t.Errorf("%d, %v after %d attempts, want the third and last one's 502", got, err, len(network.hosts))
		}
	})
	synctest.Test(t, func(t *testing.T) { // at once: no hedge
		network := script{takes: []time.Duration{0, 0}, gives: []int{503, 200}}
		tr := over(t, Options{Resolver: listed("a", "b"), Default: hedging(50 * ms)}, network.roundTrip)
		if got, err := do(t, tr, "GET", orders, nil); got != 200 || len(network.hosts) != 2 {
			t.Errorf("%d, %v after %d attempts, want 200 after a retry", got, err, len(network.hosts))
		}
	})
	synctest.Test(t, func(t *testing.T) { // the caller goes
		network := script{takes: []time.Duration{time.Minute, time.Minute}, gives: []int{200, 200}}
		tr := over(t, Options{Resolver: listed("a", "b"), Default: hedging(50 * ms)}, network.roundTrip)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*ms, cancel)
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, orders, nil)
		if _, err := send(t, tr, req); !errors.Is(err, context.Canceled) || tr.State("order-service") != Closed {
			t.Errorf("%v, want Canceled", err)
		}
		synctest.Wait()
		if len(network.cancelled) != 2 || !network.cancelled[0] || !network.cancelled[1] {
			t.Errorf("cancelled: %v, want both", network.cancelled)
		}
	})
}

func TestHedgesFollowTheRoutesPercentile(t *testing.T) {
	t.Parallel()
	h := newHedges(HedgeSettings{Routes: []string{"/x"}})[0]
	for i := range 100 {
		if i < 20 && h.after() != 0 {
			t.Fatalf("a hedge after %v with %d calls known, want none before 20", h.after(), i)
		}
		h.took(time.Duration(i+1) * ms)
	}
	if got := h.after(); got != 96*ms {
		t.Errorf("the 95th percentile of 1 to 100 ms is %v, want 96ms", got)
	}
	for range 100 {
		h.took(ms)
	}
	if got := h.after(); got != ms {
		t.Errorf("after 100 calls of 1 ms: %v", got)
	}
}

func TestHedgeOverGRPC(t *testing.T) {
	t.Parallel()
	set := Settings{Hedge: HedgeSettings{Routes: []string{"/grpc.health.v1.Health/Check"}, After: 50 * ms}}
	for name, test := range map[string]struct {
		idempotent bool
		opts       []grpc.CallOption
		want       time.Duration
		seen       int32
		hedges     float64
	}{
		"hedged":                 {true, nil, 50 * ms, 2, 1},
		"it may not be repeated": {false, nil, 200 * ms, 1, 0},
		"an option is written":   {true, []grpc.CallOption{grpc.Header(new(metadata.MD))}, 200 * ms, 1, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := &health{}
			h.check = func(ctx context.Context, _ string) error {
				if h.seen.Load() > 1 {
					return nil
				}
				select {
				case <-time.After(200 * ms):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			channel := inproc.NewChannel(nil, nil)
			grpc_health_v1.RegisterHealthServer(channel, h)
			local := new(Local)
			local.Add("a", nil, channel)
			local.Add("b", nil, channel)
			tel := newTelemetry(t, io.Discard)
			tr := over(t, Options{Resolver: listed("a", "b"), Local: local, Default: set, Telemetry: tel}, nil)
			ctx := t.Context()
			if test.idempotent {
				ctx = WithIdempotent(ctx)
			}
			began := time.Now()
			resp, err := grpc_health_v1.NewHealthClient(tr.Conn("order-service")).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, test.opts...)
			if err != nil || resp.Status != grpc_health_v1.HealthCheckResponse_SERVING || time.Since(began) != test.want || h.seen.Load() != test.seen {
				t.Errorf("%s: %v, %v after %v and %d attempts, want SERVING after %v and %d", name, resp, err, time.Since(began), h.seen.Load(), test.want, test.seen)
			}
			synctest.Wait()
			hedges, _ := metric(t, tel, "client_hedges_won_total")
			calls, _ := metric(t, tel, "client_requests_total", "code=OK")
			if tr.State("order-service") != Closed || hedges != test.hedges || calls != 1 {
				t.Errorf("%s: breaker %s, %v hedges won, %v calls, want closed, %v, 1", name, tr.State("order-service"), hedges, calls, test.hedges)
			}
			h.check = func(context.Context, string) error { return status.Error(codes.NotFound, "no such order") }
			if err := check(ctx, tr, ""); status.Code(err) != codes.NotFound {
				t.Errorf("%s: an error of the server comes as %v", name, err)
			}
		})
	}
}

func TestHedgesConcurrently(t *testing.T) {
	noLeaks(t)
	set := hedging(ms)
	set.Retry.Budget = 1
	tr := over(t, Options{Resolver: listed("a", "b", "c"), Default: set}, func(r *http.Request) (*http.Response, error) {
		select {
		case <-time.After(rand.N(3 * ms)):
			return reply(r, 200), nil
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				if got, err := do(t, tr, "PUT", orders, strings.NewReader("two teas")); got != 200 {
					t.Errorf("%d, %v", got, err)
				}
			}
		})
	}
	all.Wait()
}

// TestHedgeOverLoopback: the loser's server is told that nobody waits for it any more.
func TestHedgeOverLoopback(t *testing.T) {
	noLeaks(t)
	var seen atomic.Int32
	told := make(chan struct{})
	handler := func(w http.ResponseWriter, r *http.Request) {
		if seen.Add(1) == 1 {
			<-r.Context().Done()
			close(told)
			return
		}
		_, _ = io.WriteString(w, "tea")
	}
	m := new(discovery.Memory)
	server(t, m, "order-service", "a", handler)
	server(t, m, "order-service", "b", handler)
	tr := over(t, Options{Resolver: m, Default: hedging(20 * ms)}, nil)
	resp, err := tr.RoundTrip(httptest.NewRequest(http.MethodGet, orders, nil))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); string(b) != "tea" || err != nil {
		t.Errorf("got %q, %v, want the second's answer", b, err)
	}
	_ = resp.Body.Close()
	<-told
}

func TestHedgeSettingsAreChecked(t *testing.T) {
	t.Parallel()
	for _, bad := range []HedgeSettings{{Routes: []string{"orders"}}, {Routes: []string{"/orders"}, After: -1}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
	if err := hedging(0).Hedge.Validate(); err != nil {
		t.Error(err)
	}
}
