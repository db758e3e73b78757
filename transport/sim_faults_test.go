package transport_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/transport"
)

// The bounds are those of the design; what was seen in 20 runs stands beside them.

// TestSimSlowServer: ten servers, one of them 3 times slower, at 85 % of what they can do.
func TestSimSlowServer(t *testing.T) {
	t.Parallel()
	p99 := func(slower time.Duration) (p time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			s := simulate(t, 10, 8, transport.Settings{})
			s.servers[3].mean *= slower
			s.load(t, http.MethodPost, 340*(9+1/float64(slower)), 12*time.Second, nil)
			p = s.p99(2 * time.Second)
			if n, err := s.failed(); n > 0 {
				t.Errorf("%d of %d calls failed, the last with %v", n, len(s.calls), err)
			}
		})
		return p
	}
	const runs = 3 // of which chance may spoil one
	healthy, within := p99(1), 0
	for range runs {
		slow := p99(3)
		t.Logf("p99 %v, with a slow server %v: %.2f", healthy, slow, float64(slow)/float64(healthy))
		if float64(slow) <= 1.25*float64(healthy) {
			within++
		}
		if 2*within > runs {
			return
		}
	}
	t.Errorf("p99 with a slow server is at most 1.25 times what it is without in %d of %d runs, want most of them", within, runs)
}

// simErrors fails the test when more than one of so many calls has failed.
func simErrors(t testing.TB, s *simulation, one int) {
	t.Helper()
	n, last := s.failed()
	t.Logf("%d of %d calls failed, %.3f %%; p99 %v; %.3f attempts for a call",
		n, len(s.calls), 100*float64(n)/float64(len(s.calls)), s.p99(0), s.amplification())
	if n*one > len(s.calls) {
		t.Errorf("%d of %d calls failed, the last with %v; want at most one of %d", n, len(s.calls), last, one)
	}
}

// TestSimBadServer: of ten servers one is bad; callers hardly notice.
func TestSimBadServer(t *testing.T) {
	t.Parallel()
	for _, bad := range []struct {
		name, method string
		fault        func(*http.Request) (*http.Response, error)
		one          int // of how many calls may fail
	}{
		{"dead", http.MethodPost, dead, 1000}, // nothing is tried again
		{"black hole", http.MethodPost, blackHole, 1000},
		{"black hole, retries", http.MethodGet, blackHole, 1000},
		{"one of four requests refused", http.MethodPost, flaky(4), 500},
	} {
		t.Run(bad.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := simulate(t, 10, 2, transport.Settings{})
				s.load(t, bad.method, 1000, 14*time.Second, map[time.Duration]func(){
					time.Second: func() { s.servers[3].breaks(bad.fault) },
				})
				simErrors(t, s, bad.one)
			})
		})
	}
}

// TestSimEjection: a server that is gone for good is left alone after 5 failures of each client.
func TestSimEjection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := simulate(t, 10, 4, transport.Settings{})
		s.servers[3].breaks(dead)
		s.load(t, http.MethodPost, 400, 40*time.Second, nil)
		got := s.servers[3].attempts.Load()
		t.Logf("the dead server got %d attempts", got)
		if got > 32 { // some are under way when the fifth fails
			t.Errorf("the dead server got %d attempts of 4 clients, want at most 32", got)
		}
	})
}

// TestSimFlapping: a server that comes and goes does not keep callers from the others.
func TestSimFlapping(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := simulate(t, 10, 2, transport.Settings{})
		at := map[time.Duration]func(){}
		for i := range 7 {
			at[time.Duration(2*i+1)*time.Second] = func() { s.servers[3].breaks(dead) }
			at[time.Duration(2*i+2)*time.Second] = func() { s.servers[3].breaks(nil) }
		}
		for i := range 140 {
			at[time.Duration(i)*100*time.Millisecond+1] = func() {
				for _, c := range s.clients {
					if state := c.State("jobs"); state != transport.Closed {
						t.Errorf("the breaker of the whole service is %s", state)
					}
				}
			}
		}
		s.load(t, http.MethodPost, 1000, 14*time.Second, at)
		simErrors(t, s, 500) // each client has to see each of 7 falls: 0.1 %
	})
}

// TestSimManyInstances: 10,000 instances, 1,000 of them dead.
func TestSimManyInstances(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := simulate(t, 10_000, 8, transport.Settings{})
		for i, srv := range s.servers {
			if i%10 == 3 {
				srv.breaks(dead)
			}
		}
		s.load(t, http.MethodGet, 2000, 10*time.Second, nil)
		simErrors(t, s, 1000)
	})
}

// TestSimIdleInstances: calls one after another go to all of three.
func TestSimIdleInstances(t *testing.T) {
	t.Parallel()
	for range 5 {
		synctest.Test(t, func(t *testing.T) {
			s := simulate(t, 3, 1, transport.Settings{})
			origin := time.Now()
			for range 300 {
				s.call(t, s.clients[0], http.MethodGet, origin, time.Since(origin))
			}
			for i, srv := range s.servers {
				if got := srv.attempts.Load(); got < 60 || got > 141 {
					t.Errorf("server %d got %d of 300 calls, want 20 to 47 %%", i, got)
				}
			}
		})
	}
}
