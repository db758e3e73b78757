package transport_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/transport"
)

// TestSimRecovery: the only instance of a service goes away for a moment, under its old address.
// Callers of the service in front of it can use both soon after.
func TestSimRecovery(t *testing.T) {
	t.Parallel()
	for _, crash := range []struct {
		name string
		away time.Duration
		run  func(*simServer)
	}{
		{"killed", 300 * time.Millisecond, func(s *simServer) {
			s.breaks(dead)
			time.AfterFunc(300*time.Millisecond, func() { s.breaks(nil) })
		}},
		{"paused", 3 * time.Second, func(s *simServer) { s.pause(3 * time.Second) }},
	} {
		t.Run(crash.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := simChain(t, transport.Settings{Timeout: time.Second})
				at := map[time.Duration]func(){5 * time.Second: func() { crash.run(s.servers[1]) }}
				for i := range 100 {
					at[5*time.Second+time.Duration(i)*50*time.Millisecond+1] = func() {
						if state := s.clients[0].State("jobs"); state != transport.Closed {
							t.Errorf("the breaker of the service in front is %s", state)
						}
					}
				}
				s.load(t, http.MethodPost, 50, 15*time.Second, at)
				ready, last, failed := 5*time.Second+crash.away, time.Duration(0), 0
				for _, c := range s.calls {
					if !c.ok {
						failed++
						last = max(last, c.began-ready)
					}
				}
				t.Logf("%d of %d calls failed, the last one began %v after the store was ready", failed, len(s.calls), last)
				if failed == 0 || last > 2*time.Second {
					t.Errorf("the last call that failed began %v after the store was ready, want at most 2s", last)
				}
			})
		})
	}
}

// simChain makes a client, a service that it calls, and a store that the service calls.
func simChain(t *testing.T, set transport.Settings) *simulation {
	t.Helper()
	s := simulate(t, 2, 0, set)
	known := discovery.NewStatic(map[string][]discovery.Instance{"jobs": {{HTTP: "s0:80"}}, "store": {{HTTP: "s1:80"}}})
	s.client(t, known, set) // the service's
	toStore := s.clients[0]
	s.servers[0].serves(t, func(w http.ResponseWriter, r *http.Request) { passOn(toStore, w, r) })
	s.client(t, known, set)
	s.clients = s.clients[1:]
	return s
}

// passOn answers with what the store says, or says that the store is at fault.
func passOn(client http.RoundTripper, w http.ResponseWriter, r *http.Request) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, "http://store/", nil)
	if err != nil {
		server.WriteProblem(w, r, server.Problem{Detail: err.Error()})
		return
	}
	resp, err := client.RoundTrip(req)
	if err != nil {
		server.WriteProblem(w, r, server.Problem{
			Status: http.StatusServiceUnavailable, Detail: err.Error(), Dependency: server.DependencyOf(err),
		})
		return
	}
	_ = resp.Body.Close()
	w.WriteHeader(resp.StatusCode)
}

// TestSimChain: half of what the store is asked fails. Only the service just in front of it asks
// again, within its budget; callers further away do not add theirs.
func TestSimChain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := simChain(t, transport.Settings{Breaker: transport.BreakerSettings{FailureThreshold: 1 << 30}})
		s.servers[1].breaks(flaky(2))
		s.load(t, http.MethodGet, 200, 20*time.Second, nil)
		calls := float64(len(s.calls))
		work, store := float64(s.servers[0].attempts.Load())/calls, float64(s.servers[1].attempts.Load())/calls
		t.Logf("%.3f attempts for a call to the service in front, %.3f to the store", work, store)
		if work > 1 || store > 1.11 { // the budget is 10 % and one a second
			t.Errorf("%.3f attempts for a call to the service in front, %.3f to the store; want 1 and at most 1.11", work, store)
		}
	})
}
