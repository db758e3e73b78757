package transport_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/transport"
)

// TestSimRetryStorm: all servers stop for 2 s under 70 % load. What callers ask for again
// must not keep the servers from getting back to work.
func TestSimRetryStorm(t *testing.T) {
	t.Parallel()
	for name, failures := range map[string]int{"breaker": 0, "budget alone": 1 << 30} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := simulate(t, 5, 8, transport.Settings{
					Timeout: 400 * time.Millisecond,
					Breaker: transport.BreakerSettings{FailureThreshold: failures},
					Retry:   transport.RetrySettings{Max: 3, AttemptTimeout: 100 * time.Millisecond},
				})
				for _, srv := range s.servers {
					if failures > 0 {
						srv.limit = -1 // none
					}
					srv.limited(t, s.draw)
				}
				s.load(t, http.MethodGet, 1400, 12*time.Second, map[time.Duration]func(){
					4 * time.Second: func() {
						for _, srv := range s.servers {
							srv.pause(2 * time.Second)
						}
					},
				})
				good, made := s.goodput(8*time.Second, 9*time.Second)
				t.Logf("2 s after the pause %.0f of %.0f calls are answered; amplification %.3f", good, made, s.amplification())
				if good < 0.95*made {
					t.Errorf("2 s after the pause %.0f of %.0f calls a second are answered, want 95 %%", good, made)
				}
				if a := s.amplification(); a > 1.1 {
					t.Errorf("%.3f attempts for a call, want at most 1.1", a)
				}
			})
		})
	}
}

// TestSimOverload: callers ask for three times what the servers can do. The servers refuse what they
// cannot do, and do all the more of the rest.
func TestSimOverload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := simulate(t, 3, 8, transport.Settings{Timeout: time.Second})
		for _, srv := range s.servers {
			srv.limited(t, s.draw)
		}
		const capacity = 3 * 4 * 100
		s.load(t, http.MethodGet, 3*capacity, 6*time.Second, nil)
		good, made := s.goodput(2*time.Second, 6*time.Second)
		t.Logf("%.0f of %.0f calls a second are answered; capacity %d; p99 %v; %.3f attempts for a call", good, made, capacity, s.p99(2*time.Second), s.amplification())
		if good < 0.9*capacity {
			t.Errorf("%.0f of %.0f calls a second are answered, want 90 %% of %d", good, made, capacity)
		}
	})
}
