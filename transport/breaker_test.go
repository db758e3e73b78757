package transport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/discovery"
)

const orders = "http://order-service/orders/1"

func TestFifthFailureOpensTheBreaker(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var seen atomic.Int32
				tr := over(t, Options{Resolver: listed("a")}, func(r *http.Request) (*http.Response, error) {
					seen.Add(1)
					return reply(r, 500), nil
				})
				for i := range 4 {
					if status, err := do(t, tr, method, orders, nil); status != 500 || err != nil {
						t.Fatalf("call %d: %d, %v, want 500", i+1, status, err)
					}
				}
				if got := tr.State("order-service"); got != Closed {
					t.Fatalf("after four failures: %s, want closed", got)
				}
				if status, _ := do(t, tr, method, orders, nil); status != 500 {
					t.Fatalf("fifth call: %d, want 500: the target has still answered it", status)
				}
				if got := tr.State("order-service"); got != Open {
					t.Fatalf("after the fifth failure: %s, want open", got)
				}
				time.Sleep(10*time.Second + time.Millisecond)
				_, err := do(t, tr, method, orders, nil)
				open, ok := errors.AsType[*OpenError](err)
				if !ok || !errors.Is(err, ErrOpen) || open.Target != "order-service" || open.RetryAfter <= 0 || open.RetryAfter > time.Second {
					t.Errorf("sixth call: %#v, want an OpenError for order-service and at most 1s, when its health is asked next", err)
				}
				if !strings.Contains(err.Error(), "order-service") || !strings.Contains(err.Error(), "s") {
					t.Errorf("error %q names neither target nor time", err)
				}
				if got := seen.Load(); got != 5 {
					t.Errorf("the target has seen %d calls, want 5", got)
				}
			})
		})
	}
}

func TestHalfOpenLetsOneProbeThrough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen atomic.Int32
		var healthy atomic.Bool
		log := new(lockedBuffer)
		tel := newTelemetry(t, log)
		gauge := func() float64 {
			v, ok := metric(t, tel, "breaker_state", "service=shop", "target=order-service")
			if !ok {
				return -1
			}
			return v
		}
		tr := over(t, Options{Resolver: listed("a"), Telemetry: tel}, func(r *http.Request) (*http.Response, error) {
			seen.Add(1)
			time.Sleep(time.Second)
			if healthy.Load() {
				return reply(r, 200), nil
			}
			return reply(r, 500), nil
		})
		for range 5 {
			_, _ = do(t, tr, "POST", orders, nil)
		}
		if got := gauge(); got != 2 {
			t.Errorf("gauge when open: %v, want 2", got)
		}
		time.Sleep(59 * time.Second)
		if got := tr.State("order-service"); got != Open {
			t.Errorf("after 59 s: %s, want open", got)
		}
		time.Sleep(time.Second)
		if got := tr.State("order-service"); got != HalfOpen || gauge() != 1 {
			t.Errorf("after 60 s: %s and gauge %v, want half-open and 1", got, gauge())
		}
		burst := func() (refused int) {
			var wg sync.WaitGroup
			var mu sync.Mutex
			for range 10 {
				wg.Go(func() {
					if _, err := do(t, tr, "POST", orders, nil); errors.Is(err, ErrOpen) {
						mu.Lock()
						refused++
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			return refused
		}
		if got := burst(); got != 9 || seen.Load() != 6 {
			t.Errorf("probe: %d refused and %d seen, want 9 and 6", got, seen.Load())
		}
		if got := tr.State("order-service"); got != Open {
			t.Errorf("after the failed probe: %s, want open", got)
		}
		time.Sleep(60 * time.Second)
		healthy.Store(true)
		if got := burst(); got != 9 || seen.Load() != 7 {
			t.Errorf("second probe: %d refused and %d seen, want 9 and 7", got, seen.Load())
		}
		if got := tr.State("order-service"); got != Closed || gauge() != 0 {
			t.Errorf("after the good probe: %s and gauge %v, want closed and 0", got, gauge())
		}
		for _, want := range []string{`"msg":"breaker opened"`, `"msg":"breaker closed"`} {
			if got := strings.Count(log.String(), want); got != 1 {
				t.Errorf("%s is %d times in the log, want once:\n%s", want, got, log)
			}
		}
		if !strings.Contains(log.String(), `"level":"WARN"`) || !strings.Contains(log.String(), `"target":"order-service"`) {
			t.Errorf("the log has no warning that names the target:\n%s", log)
		}
	})
}

// TestANewInstanceIsProbedAtOnce: a service that was started again is not kept away for the recovery timeout; a list in which
// nothing is new changes nothing.
func TestANewInstanceIsProbedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := listed("a")
		var seen []string
		tr := over(t, Options{Resolver: m}, func(r *http.Request) (*http.Response, error) {
			seen = append(seen, r.URL.Host)
			if r.URL.Host == "b:80" {
				return reply(r, 200), nil
			}
			return reply(r, 500), nil
		})
		for range 5 {
			_, _ = do(t, tr, http.MethodPost, orders, nil)
		}
		change := func(act func(context.Context, discovery.Instance) error, in discovery.Instance) {
			if err := act(t.Context(), in); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		tagged := newInstance("a")
		tagged.Tags = []string{"canary"}
		change(m.Register, tagged)
		if got := tr.State("order-service"); got != Open {
			t.Fatalf("after five failures and a new tag: %s, want open", got)
		}
		change(m.Register, newInstance("b"))
		if got := tr.State("order-service"); got != HalfOpen {
			t.Fatalf("with a new instance: %s, want half-open", got)
		}
		change(m.Deregister, newInstance("a"))
		if status, err := do(t, tr, http.MethodPost, orders, nil); status != 200 || err != nil || tr.State("order-service") != Closed {
			t.Errorf("call after the new instance: %d, %v, breaker %s, want 200 and closed; calls went to %v", status, err, tr.State("order-service"), seen)
		}
	})
}

func TestWhatIsNoFailure(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 301, 400, 404, 409, 429, 499} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tr := over(t, Options{Resolver: listed("a")}, func(r *http.Request) (*http.Response, error) { return reply(r, status), nil })
				for range 20 {
					if got, err := do(t, tr, "POST", orders, nil); got != status || err != nil {
						t.Fatalf("got %d, %v, want %d", got, err, status)
					}
				}
				if got := tr.State("order-service"); got != Closed {
					t.Errorf("after 20 answers of %d: %s, want closed", status, got)
				}
			})
		})
	}
}

func TestAnswersEndARowOfFailuresAndCancelledCallsDoNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		status := 500
		tr := over(t, Options{Resolver: listed("a")}, func(r *http.Request) (*http.Response, error) {
			if status == 0 {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return reply(r, status), nil
		})
		fail := func(n int) {
			status = 500
			for range n {
				_, _ = do(t, tr, "POST", orders, nil)
			}
		}
		fail(4)
		status = 404
		_, _ = do(t, tr, "POST", orders, nil)
		fail(4)
		if got := tr.State("order-service"); got != Closed {
			t.Fatalf("4 failures, an answer, 4 failures: %s, want closed", got)
		}
		status = 0
		for range 10 { // the caller gives up: neither a failure nor a success
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Millisecond, cancel)
			req, _ := http.NewRequestWithContext(ctx, "POST", orders, nil)
			if _, err := send(t, tr, req); !errors.Is(err, context.Canceled) {
				t.Fatalf("cancelled call: %v, want context.Canceled", err)
			}
		}
		if got := tr.State("order-service"); got != Closed {
			t.Fatalf("after cancelled calls: %s, want closed", got)
		}
		fail(1)
		if got := tr.State("order-service"); got != Open {
			t.Errorf("4 failures, cancelled calls, 1 failure: %s, want open", got)
		}
	})
}

func TestACancelledProbeMakesRoomForTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		healthy := false
		tr := over(t, Options{Resolver: listed("a")}, func(r *http.Request) (*http.Response, error) {
			if r.Header.Get("Hang") != "" {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			if healthy {
				return reply(r, 200), nil
			}
			return reply(r, 500), nil
		})
		for range 5 {
			_, _ = do(t, tr, "POST", orders, nil)
		}
		time.Sleep(time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		req, _ := http.NewRequestWithContext(ctx, "POST", orders, nil)
		req.Header.Set("Hang", "1")
		if _, err := send(t, tr, req); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled probe: %v, want context.Canceled", err)
		}
		if got := tr.State("order-service"); got != HalfOpen {
			t.Fatalf("after a cancelled probe: %s, want half-open", got)
		}
		healthy = true
		if status, err := do(t, tr, "POST", orders, nil); status != 200 {
			t.Errorf("next probe: %d, %v, want 200", status, err)
		}
	})
}

func TestBreakerIgnoresWhatBeganBeforeItOpened(t *testing.T) {
	t.Parallel()
	b := breaker{threshold: 1, recovery: time.Minute}
	old, _, _ := b.acquire(0)
	bad, _, _ := b.acquire(0)
	if got := b.record(bad, failure, time.Second); got != opened {
		t.Fatalf("first failure: %d, want opened", got)
	}
	if got := b.record(old, success, 2*time.Second); got != unchanged || b.state(2*time.Second) != Open {
		t.Errorf("late success: %d and %s, want unchanged and open", got, b.state(2*time.Second))
	}
	probe, _, ok := b.acquire(61 * time.Second)
	if !ok || !probe.probe {
		t.Fatalf("after the recovery timeout: %+v, %t, want a probe", probe, ok)
	}
	if _, wait, ok := b.acquire(62 * time.Second); ok || wait != 0 {
		t.Errorf("beside a probe: wait %v, %t, want 0, false", wait, ok)
	}
	// The probe hangs for a whole recovery timeout: another may go, and the first no longer counts.
	second, _, ok := b.acquire(121 * time.Second)
	if !ok {
		t.Fatal("a probe that hangs blocks the breaker for ever")
	}
	if b.record(probe, failure, 122*time.Second); b.state(122*time.Second) != HalfOpen {
		t.Errorf("the probe that was given up still counts: %s", b.state(122*time.Second))
	}
	if got := b.record(second, success, 123*time.Second); got != closed {
		t.Errorf("second probe: %d, want closed", got)
	}
}

func TestAnOpenBreakerIsFast(t *testing.T) {
	tr := over(t, Options{Resolver: listed("a")}, func(r *http.Request) (*http.Response, error) { return reply(r, 500), nil })
	for range 5 {
		_, _ = do(t, tr, "POST", orders, nil)
	}
	req, _ := http.NewRequest("GET", orders, nil)
	per := testing.AllocsPerRun(100, func() {
		if _, err := tr.RoundTrip(req); !errors.Is(err, ErrOpen) {
			t.Fatalf("got %v, want ErrOpen", err)
		}
	})
	if per > 10 {
		t.Errorf("%v allocations for a refused call, want at most 10", per)
	}
	best := time.Hour // the machine may be busy: one undisturbed call is proof enough
	for range 1000 {
		began := time.Now()
		_, _ = tr.RoundTrip(req)
		best = min(best, time.Since(began))
	}
	if best > 100*time.Microsecond {
		t.Errorf("a refused call takes %v, want microseconds", best)
	}
}
