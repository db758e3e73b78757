package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/dependency"
	"github.com/kaptar/kaptar/internal/test/servers"
)

// machine is where instances run. Its calls and probes are counted by address.
type machine struct {
	mu     sync.Mutex
	state  map[string]string // by address; "": all is well, "down", "paused", "failing" with a good health
	calls  map[string]int
	probes map[string]int
}

func newMachine() *machine {
	return &machine{state: map[string]string{}, calls: map[string]int{}, probes: map[string]int{}}
}

func (m *machine) set(address, state string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state[address] = state
}

func (m *machine) count(counts map[string]int, address string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return counts[address]
}

func (m *machine) RoundTrip(r *http.Request) (*http.Response, error) {
	m.mu.Lock()
	probe, state := r.URL.Path == "/readyz", m.state[r.URL.Host]
	if probe {
		m.probes[r.URL.Host]++
	} else {
		m.calls[r.URL.Host]++
	}
	m.mu.Unlock()
	switch {
	case state == "down":
		return nil, errors.New("connection refused")
	case state == "paused":
		<-r.Context().Done()
		return nil, r.Context().Err()
	case state == "failing" && !probe:
		return reply(r, 500), nil
	}
	return reply(r, 200), nil
}

// TestAnOpenBreakerHealsWithItsTarget: calls come every 100 ms, and succeed at most 2 s after the only
// instance is back, killed or paused; nobody probes any more then.
func TestAnOpenBreakerHealsWithItsTarget(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"down", "paused"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMachine()
				tel := newTelemetry(t, io.Discard)
				tr := over(t, Options{Resolver: listed("a"), Base: m, Telemetry: tel, Default: Settings{Timeout: time.Second}}, nil)
				m.set("a:80", state)
				for range 5 {
					_, _ = do(t, tr, http.MethodPost, orders, nil)
				}
				for range 100 {
					if _, err := do(t, tr, http.MethodPost, orders, nil); !errors.Is(err, ErrOpen) {
						t.Fatalf("got %v, want a refused call", err)
					}
					time.Sleep(100 * time.Millisecond)
				}
				if calls, probes := m.count(m.calls, "a:80"), m.count(m.probes, "a:80"); calls != 5 || probes < 9 || probes > 10 {
					t.Errorf("10 s without it made %d calls and %d probes, want 5, and one a second", calls, probes)
				}
				m.set("a:80", "")
				back := time.Now()
				for status := 0; status != 200; time.Sleep(100 * time.Millisecond) {
					status, _ = do(t, tr, http.MethodPost, orders, nil)
					if time.Since(back) > 2*time.Second {
						t.Fatal("no call succeeds 2 s after it is back")
					}
				}
				if got := tr.State("order-service"); got != Closed {
					t.Errorf("after a good call: %s, want closed", got)
				}
				time.Sleep(2 * time.Second)
				probes := m.count(m.probes, "a:80")
				time.Sleep(time.Minute)
				if got := m.count(m.probes, "a:80"); got != probes {
					t.Errorf("%d probes of a healthy service, want none", got-probes)
				}
				if n, _ := metric(t, tel, "client_request_duration_seconds", "target=order-service", "protocol=http"); int(n) < 106 || int(n) > 130 {
					t.Errorf("%v calls were measured, want those made and no probes", n)
				}
			})
		})
	}
}

// TestHealthIsBelievedLater: an instance that says that it is ready and fails all the same gets one call
// after 1 s, 1 s, 2 s, 4 s and so on, up to the recovery timeout.
func TestHealthIsBelievedLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		m.set("a:80", "failing")
		tr := over(t, Options{Resolver: listed("a"), Base: m}, nil)
		began := time.Now()
		var at []int
		for time.Since(began) < 4*time.Minute {
			before := m.count(m.calls, "a:80")
			_, err := do(t, tr, http.MethodPost, orders, nil)
			if m.count(m.calls, "a:80") > before {
				at = append(at, int(time.Since(began).Round(time.Second).Seconds()))
			}
			if open, ok := errors.AsType[*OpenError](err); ok && open.RetryAfter > time.Minute {
				t.Fatalf("next probe in %v, want at most the recovery timeout", open.RetryAfter)
			}
			time.Sleep(50 * time.Millisecond)
		}
		if len(at) < 12 || len(at) > 15 {
			t.Errorf("%d calls after %v s, want five, and then one after 1, 1, 2, 4, 8, 16, 32, 60, 60 s", len(at), at)
		}
	})
}

// TestAnExternalHostIsNotAsked: nobody knows what it would say at /readyz.
func TestAnExternalHostIsNotAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := false
		tr := over(t, Options{}, func(r *http.Request) (*http.Response, error) {
			asked = asked || r.URL.Path == "/readyz"
			return reply(r, 500), nil
		})
		for range 5 {
			_, _ = do(t, tr, http.MethodPost, "http://bank.example/charges", nil)
		}
		time.Sleep(10 * time.Second)
		_, err := do(t, tr, http.MethodPost, "http://bank.example/charges", nil)
		if open, ok := errors.AsType[*OpenError](err); !ok || open.RetryAfter != 50*time.Second || asked {
			t.Errorf("after 10 s: %v, want the rest of the recovery timeout, 50s, and no question for its health (%t)", err, asked)
		}
	})
}

// TestAnEjectedInstanceComesBackWhenItIsReady, and not before.
func TestAnEjectedInstanceComesBackWhenItIsReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		tr := over(t, Options{Resolver: listed("a", "b", "c"), Base: m}, nil)
		m.set("a:80", "down")
		call := func(d time.Duration) (toA int) {
			before := m.count(m.calls, "a:80")
			for range d / (10 * time.Millisecond) {
				_, _ = do(t, tr, http.MethodPost, orders, nil)
				time.Sleep(10 * time.Millisecond)
			}
			return m.count(m.calls, "a:80") - before
		}
		call(20 * time.Second)
		if got := call(5 * time.Second); got != 0 {
			t.Errorf("%d calls went to an instance that is down, want none: it is ejected", got)
		}
		m.set("a:80", "")
		call(2 * time.Second)
		if got := call(20 * time.Second); got < 100 {
			t.Errorf("%d of 2000 calls went to the instance since it is ready again, want its share", got)
		}
	})
}

// TestTheTryGoesToAReadyInstance: with an open breaker one call is let through, which should not go to
// one of those that are still away.
func TestTheTryGoesToAReadyInstance(t *testing.T) {
	t.Parallel()
	for range 10 { // the balancer draws
		synctest.Test(t, func(t *testing.T) {
			m := newMachine()
			for _, id := range []string{"a", "b", "c", "d"} {
				m.set(id+":80", "down")
			}
			tr := over(t, Options{Resolver: listed("a", "b", "c", "d"), Base: m}, nil)
			for range 5 {
				_, _ = do(t, tr, http.MethodPost, orders, nil)
			}
			time.Sleep(5500 * time.Millisecond)
			m.set("c:80", "")
			time.Sleep(time.Second)
			if status, err := do(t, tr, http.MethodPost, orders, nil); status != 200 {
				t.Errorf("call after one of four is ready: %d, %v, want 200", status, err)
			}
		})
	}
}

// TestProbesAreBounded: of many instances a few are asked in a second, and all in the end.
func TestProbesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, registry := newMachine(), new(discovery.Memory)
		const n = 100
		for i := range n {
			in := newInstance(fmt.Sprint("a", i))
			m.set(in.HTTP, "down")
			_ = registry.Register(t.Context(), in)
		}
		tr := over(t, Options{Resolver: registry, Base: m}, nil)
		for range 5 {
			_, _ = do(t, tr, http.MethodPost, orders, nil)
		}
		time.Sleep(20*time.Second + time.Millisecond)
		total, missing := 0, 0
		for i := range n {
			probes := m.count(m.probes, newInstance(fmt.Sprint("a", i)).HTTP)
			total += probes
			if probes == 0 {
				missing++
			}
		}
		if total > 20*probeMost || missing > 0 {
			t.Errorf("20 s made %d probes and left %d instances out, want at most %d and all of them asked", total, missing, 20*probeMost)
		}
	})
}

// TestTwoLayersHeal: the gateway calls the order service, which calls the user service. While that is
// away the order service says so, and its own callers hold nothing against it.
func TestTwoLayersHeal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		users := new(discovery.Memory)
		_ = users.Register(t.Context(), discovery.Instance{ID: "u", Service: "user-service", HTTP: "u:80"})
		order := over(t, Options{Resolver: users, Base: m}, nil)
		local := new(Local)
		local.Add("a", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			req, _ := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://user-service/users/1", nil)
			if _, err := send(t, order, req); err != nil {
				w.Header().Set(dependency.Header, dependency.Of(err))
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}), nil)
		gateway := over(t, Options{Resolver: listed("a"), Local: local}, nil)
		for round, state := range []string{"down", "paused", "down"} {
			m.set("u:80", state)
			for range 100 {
				_, _ = do(t, gateway, http.MethodPost, orders, nil)
				if got := gateway.State("order-service"); got != Closed {
					t.Fatalf("round %d: the breaker of the order service is %s because of the user service's", round, got)
				}
				time.Sleep(100 * time.Millisecond)
			}
			m.set("u:80", "")
			back := time.Now()
			for status := 0; status != 200; time.Sleep(100 * time.Millisecond) {
				status, _ = do(t, gateway, http.MethodPost, orders, nil)
				if time.Since(back) > 2*time.Second {
					t.Fatalf("round %d: no order succeeds 2 s after the user service is back", round)
				}
			}
		}
	})
}

// TestARealServiceOverGRPCHeals: killed and started again at the same address. grpc-go's own wait
// before it connects again must not come on top.
func TestARealServiceOverGRPCHeals(t *testing.T) {
	noLeaks(t)
	ports, release, err := servers.FreePorts(1) // that nobody is given while the server is away
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	address := fmt.Sprint("127.0.0.1:", ports[0])
	start := func() *grpc.Server {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		srv := grpc.NewServer()
		grpc_health_v1.RegisterHealthServer(srv, &health{})
		go func() { _ = srv.Serve(l) }()
		t.Cleanup(srv.Stop)
		return srv
	}
	first := start()
	m := new(discovery.Memory)
	if err := m.Register(t.Context(), discovery.Instance{ID: "a", Service: "order-service", GRPC: address}); err != nil {
		t.Fatal(err)
	}
	tr := over(t, Options{Resolver: m}, nil)
	if err := check(t.Context(), tr, ""); err != nil {
		t.Fatal(err)
	}
	first.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); tr.State("order-service") != Open || time.Since(began) < 2*time.Second; <-tick.C {
		if err := check(t.Context(), tr, ""); err == nil {
			t.Fatal("a call to a server that has stopped succeeds")
		}
	}
	start()
	ticks := 0 // of 20 ms, but for those in which the machine stands still
	for err = check(t.Context(), tr, ""); err != nil; err = check(t.Context(), tr, "") {
		<-tick.C
		if !errors.Is(err, ErrOpen) {
			t.Errorf("a call went out and failed: %v", err)
		}
		if ticks++; ticks > 100 {
			t.Fatalf("no call succeeds 2 s after it is back: %v", err)
		}
	}
}

// TestGRPCHealthIsAsked of an instance that serves no HTTP, and NOT_SERVING is believed.
func TestGRPCHealthIsAsked(t *testing.T) {
	t.Parallel()
	var ready atomic.Bool
	h := &health{check: func(_ context.Context, service string) error {
		if !ready.Load() || service == "call" {
			return status.Error(codes.Unavailable, "no")
		}
		return nil
	}}
	address, _ := serve(t, h)
	tr := over(t, Options{Resolver: new(discovery.Memory)}, nil)
	tr.once.Do(tr.start)
	tg, err := tr.target("order-service", false)
	if err != nil {
		t.Fatal(err)
	}
	in := &instance{ID: "a", GRPC: address}
	t.Cleanup(in.leave)
	for _, want := range []bool{false, true} {
		ready.Store(want)
		if got := tr.isReady(tg, in); got != want {
			t.Errorf("health %t: got ready %t", want, got)
		}
	}
}

// TestObservingChangesNothing: states and metrics are read while calls fail and succeed.
func TestObservingChangesNothing(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, watch bool) (calls, probes int) {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine()
			tel := newTelemetry(t, io.Discard)
			tr := over(t, Options{Resolver: listed("a"), Base: m, Telemetry: tel}, nil)
			ctx, cancel := context.WithCancel(t.Context())
			var watchers sync.WaitGroup
			if watch {
				for range 4 {
					watchers.Go(func() {
						for ctx.Err() == nil {
							_ = tr.State("order-service")
							_, _ = tel.Registry().Gather()
							time.Sleep(7 * time.Millisecond)
						}
					})
				}
			}
			for i := range 600 {
				switch i {
				case 100:
					m.set("a:80", "down")
				case 400:
					m.set("a:80", "")
				}
				_, _ = do(t, tr, http.MethodPost, orders, nil)
				time.Sleep(20300 * time.Microsecond) // so that no call meets a probe
			}
			cancel()
			watchers.Wait()
			calls, probes = m.count(m.calls, "a:80"), m.count(m.probes, "a:80")
		})
		return calls, probes
	}
	calls, probes := run(t, false)
	if gotCalls, gotProbes := run(t, true); gotCalls != calls || gotProbes != probes {
		t.Errorf("watched: %d calls and %d probes, unwatched %d and %d", gotCalls, gotProbes, calls, probes)
	}
}
