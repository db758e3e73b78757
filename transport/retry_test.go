package transport

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// unready gives 503 to the first n attempts, and counts them.
func unready(n int32, seen *atomic.Int32, headers ...string) roundTripper {
	return func(r *http.Request) (*http.Response, error) {
		if seen.Add(1) <= n {
			return reply(r, 503, headers...), nil
		}
		return reply(r, 200), nil
	}
}

func TestOnlyIdempotentRequestsAreRepeated(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		method, key string
		body        io.Reader
		want        int32 // attempts
	}{
		{"GET", "", nil, 3},
		{"HEAD", "", nil, 3},
		{"OPTIONS", "", nil, 3},
		{"PUT", "", strings.NewReader("x"), 3},
		{"DELETE", "", nil, 3},
		{"POST", "", strings.NewReader("x"), 1},
		{"POST", "k", strings.NewReader("x"), 3},
		{"PATCH", "", nil, 1},
		{"PUT", "", io.NopCloser(strings.NewReader("x")), 1}, // cannot be sent again
	} {
		synctest.Test(t, func(t *testing.T) {
			var seen atomic.Int32
			tr := over(t, Options{Resolver: listed("a")}, unready(2, &seen))
			req, _ := http.NewRequest(test.method, orders, test.body)
			if test.key != "" {
				req.Header.Set("Idempotency-Key", test.key)
			}
			status, err := send(t, tr, req)
			if seen.Load() != test.want {
				t.Errorf("%s with key %q: %d attempts (%d, %v), want %d", test.method, test.key, seen.Load(), status, err, test.want)
			}
		})
	}
}

func TestAtMostTwoRepeatsAndTheLastAnswerIsGiven(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen atomic.Int32
		tel := newTelemetry(t, io.Discard)
		tr := over(t, Options{Resolver: listed("a", "b"), Telemetry: tel}, unready(99, &seen))
		began := time.Now()
		if status, err := do(t, tr, "GET", orders, nil); status != 503 || err != nil {
			t.Errorf("got %d, %v, want the last 503", status, err)
		}
		if seen.Load() != 3 {
			t.Errorf("%d attempts, want 3", seen.Load())
		}
		if took := time.Since(began); took > 75*time.Millisecond {
			t.Errorf("the pauses took %v, want at most 25 + 50 ms", took)
		}
		if v, _ := metric(t, tel, "client_retries_total", "target=order-service"); v != 2 {
			t.Errorf("client_retries_total = %v, want 2", v)
		}
		if v, _ := metric(t, tel, "client_requests_total", "target=order-service", "code=503", "protocol=http", "service=shop"); v != 1 {
			t.Errorf("client_requests_total = %v, want 1: calls, not attempts", v)
		}
	})
}

func TestRepeatsGoElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var hosts []string
		tr := over(t, Options{Resolver: listed("a", "b")}, func(r *http.Request) (*http.Response, error) {
			hosts = append(hosts, r.URL.Host)
			return nil, errors.New("connection refused")
		})
		_, err := do(t, tr, "GET", orders, nil)
		if len(hosts) < 2 || hosts[0] == hosts[1] {
			t.Fatalf("attempts went to %v (%v), want different instances", hosts, err)
		}
	})
}

func TestRetryAfterIsObeyed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen atomic.Int32
		tr := over(t, Options{Resolver: listed("a")}, unready(1, &seen, "Retry-After", "2"))
		began := time.Now()
		if status, _ := do(t, tr, "GET", orders, nil); status != 200 || time.Since(began) != 2*time.Second {
			t.Errorf("got %d after %v, want 200 after 2s", status, time.Since(began))
		}
	})
	synctest.Test(t, func(t *testing.T) { // a date, in whole seconds as the bubble's clock is
		var seen atomic.Int32
		tr := over(t, Options{Resolver: listed("a")}, unready(1, &seen, "Retry-After", time.Now().Add(3*time.Second).UTC().Format(http.TimeFormat)))
		began := time.Now()
		if status, _ := do(t, tr, "GET", orders, nil); status != 200 || time.Since(began) != 3*time.Second {
			t.Errorf("asked for a date: got %d after %v, want 200 after 3s", status, time.Since(began))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var seen atomic.Int32
		tr := over(t, Options{Resolver: listed("a")}, unready(1, &seen, "Retry-After", "60"))
		began := time.Now()
		if status, _ := do(t, tr, "GET", orders, nil); status != 503 || time.Since(began) != 0 || seen.Load() != 1 {
			t.Errorf("got %d after %v and %d attempts, want 503 at once: it asks for more than the deadline", status, time.Since(began), seen.Load())
		}
	})
}

func TestTheBudgetEndsAStorm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen atomic.Int32
		tr := over(t, Options{Resolver: listed("a"), Default: Settings{Breaker: BreakerSettings{FailureThreshold: 1 << 30}}}, unready(1<<30, &seen))
		const calls = 1000
		for range calls {
			_, _ = do(t, tr, "GET", orders, nil)
		}
		// All within a window: 10 % of 1000, and 1/s over 10 s.
		if extra := seen.Load() - calls; extra < 50 || extra > 120 {
			t.Errorf("%d repeats for %d calls, want about 110", extra, calls)
		}
	})
}

func TestBudgetWindow(t *testing.T) {
	t.Parallel()
	b := budget{ratio: 0.1}
	spend := func(now time.Duration) (n int) {
		for b.affords(now) {
			if !b.withdraw(now) {
				t.Fatal("withdraw refuses what affords grants")
			}
			n++
		}
		if b.withdraw(now) {
			t.Fatal("withdraw grants what affords refuses")
		}
		return n
	}
	if got := spend(0); got != 10 {
		t.Errorf("without calls: %d retries, want the floor of 10", got)
	}
	for range 100 {
		b.deposit(time.Second)
	}
	if got := spend(time.Second); got != 10 {
		t.Errorf("after 100 calls: %d more, want 10", got)
	}
	if got := spend(9 * time.Second); got != 0 {
		t.Errorf("in the same window: %d more, want 0", got)
	}
	if got := spend(10 * time.Second); got != 10 {
		t.Errorf("when the first second has left the window: %d, want 10", got)
	}
	if got := spend(time.Hour); got != 10 {
		t.Errorf("an hour later: %d, want 10", got)
	}
}

func TestBudgetConcurrently(t *testing.T) {
	t.Parallel()
	b := budget{ratio: 0.1}
	var all sync.WaitGroup
	var got atomic.Int32
	for second := range time.Duration(2) {
		for range 50 {
			all.Go(func() {
				for range 20 {
					b.deposit(second * time.Second)
				}
			})
		}
	}
	all.Wait()
	for range 300 {
		all.Go(func() {
			if b.withdraw(2 * time.Second) {
				got.Add(1)
			}
		})
	}
	all.Wait()
	if got.Load() != 210 {
		t.Errorf("%d retries after 2000 calls at once, want 210", got.Load())
	}
}

func TestNothingIsRepeatedOnceAnAnswerHasBegun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen atomic.Int32
		tr := over(t, Options{Resolver: listed("a", "b")}, func(r *http.Request) (*http.Response, error) {
			seen.Add(1)
			resp := reply(r, 200)
			resp.Body = io.NopCloser(io.MultiReader(strings.NewReader("b"), readerFunc(func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF })))
			return resp, nil
		})
		if _, err := do(t, tr, "GET", orders, nil); !errors.Is(err, io.ErrUnexpectedEOF) || seen.Load() != 1 {
			t.Errorf("got %v after %d attempts, want the broken body of one", err, seen.Load())
		}
	})
	h := &health{}
	address, _ := serve(t, h)
	tr := over(t, Options{Resolver: grpcListed(t, address)}, nil)
	ctx, cancel := context.WithTimeout(WithIdempotent(t.Context()), 10*time.Second)
	defer cancel()
	s, err := grpc_health_v1.NewHealthClient(tr.Conn("order-service")).Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: "fail"})
	for err == nil {
		_, err = s.Recv()
	}
	if status.Code(err) != codes.Unavailable || h.seen.Load() != 1 {
		t.Errorf("a stream that its server ended: %v after %d, want Unavailable after one", err, h.seen.Load())
	}
}

func TestTheBodyIsSentAgainWhole(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var bodies []string
		tr := over(t, Options{Resolver: listed("a")}, func(r *http.Request) (*http.Response, error) {
			b, _ := io.ReadAll(r.Body)
			_ = r.Body.Close()
			bodies = append(bodies, string(b))
			if len(bodies) < 3 {
				return nil, errors.New("connection reset")
			}
			return reply(r, 201), nil
		})
		if status, err := do(t, tr, "PUT", orders, strings.NewReader("two teas")); status != 201 {
			t.Fatalf("got %d, %v, want 201", status, err)
		}
		if want := []string{"two teas", "two teas", "two teas"}; !slices.Equal(bodies, want) {
			t.Errorf("the target got %q, want %q", bodies, want)
		}
	})
}

func TestAHangingAttemptIsRepeatedAndTheLastHasAllTheTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var began []time.Duration
		start := time.Now()
		tr := over(t, Options{Resolver: listed("a", "b")}, func(r *http.Request) (*http.Response, error) {
			began = append(began, time.Since(start).Truncate(time.Second))
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		})
		_, err := do(t, tr, "GET", orders, nil)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "order-service") {
			t.Errorf("got %v, want a deadline that names order-service", err)
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("the call took %v, want the default deadline of 5s", took)
		}
		if want := []time.Duration{0, time.Second, 2 * time.Second}; !slices.Equal(began, want) {
			t.Errorf("attempts began at %v, want %v", began, want)
		}
	})
}

func TestASingleAttemptKeepsTheWholeDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := over(t, Options{Resolver: listed("a")}, func(r *http.Request) (*http.Response, error) {
			select {
			case <-r.Context().Done():
				return nil, r.Context().Err()
			case <-time.After(4 * time.Second):
				return reply(r, 200), nil
			}
		})
		if status, err := do(t, tr, "POST", orders, nil); status != 200 {
			t.Errorf("a POST of 4 s: %d, %v, want 200", status, err)
		}
	})
}

func TestTheAttemptsLimitEndsWithTheHead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := over(t, Options{Resolver: listed("a")}, func(r *http.Request) (*http.Response, error) {
			resp := reply(r, 200)
			resp.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
				select {
				case <-r.Context().Done():
					return 0, context.Cause(r.Context())
				case <-time.After(3 * time.Second):
					return 0, io.EOF
				}
			}))
			return resp, nil
		})
		if status, err := do(t, tr, "GET", orders, nil); status != 200 || err != nil {
			t.Errorf("a body of 3 s: %d, %v, want 200", status, err)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
