package server

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// checkTime is how long a readiness check may take.
const checkTime = time.Second

// readiness is what /readyz says.
type readiness string

const (
	starting readiness = "starting"
	ready    readiness = "ready"
	notReady readiness = "not ready"
	draining readiness = "draining"
)

// checks are the readiness checks of a server. However many probes come, each check runs at most
// once at a time, so that a check that hangs holds one goroutine and not one for each probe.
type checks struct {
	mu     sync.Mutex
	state  readiness
	byName map[string]func(context.Context) error
	runs   singleflight.Group
}

type checkResult struct {
	Status string `json:"status"` // "ok" or "failing"
	Error  string `json:"error,omitempty"`
}

type readyAnswer struct {
	Status readiness              `json:"status"`
	Checks map[string]checkResult `json:"checks"`
}

// AddReadiness makes /readyz call look, which must return nil within 1 s. It should check what this
// service needs itself, not another service: if readiness follows a dependency, one outage takes
// all its callers out of service. A second check of a name replaces the first.
func (s *Server) AddReadiness(name string, look func(context.Context) error) {
	c := &s.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byName[name] = look
}

// SetReady tells whether the service wants requests. Until the first SetReady(true), /readyz
// answers 503 "starting"; after a later SetReady(false) it answers 503 "draining". The gRPC health
// service follows. Once Shutdown has begun, SetReady(true) does nothing.
func (s *Server) SetReady(is bool) {
	c := &s.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case is && !s.isDraining():
		c.state = ready
		s.health.Resume()
	case c.state == ready:
		c.state = draining
		s.health.Shutdown()
	}
}

// livez only shows that the process answers. It checks no dependency: an orchestrator kills a
// process that is not alive, and that would not repair the dependency.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	s.checks.mu.Lock()
	state := s.checks.state
	all := maps.Clone(s.checks.byName)
	s.checks.mu.Unlock()

	ctx, cancel := context.WithTimeout(r.Context(), checkTime)
	defer cancel()
	answer := readyAnswer{Status: state, Checks: make(map[string]checkResult, len(all))}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, look := range all {
		wg.Go(func() {
			result := checkResult{Status: "ok"}
			if err := s.checks.ask(ctx, name, look); err != nil {
				result = checkResult{Status: "failing", Error: err.Error()}
			}
			mu.Lock()
			defer mu.Unlock()
			answer.Checks[name] = result
			if result.Error != "" && state == ready {
				answer.Status = notReady
			}
		})
	}
	wg.Wait()
	status := http.StatusOK
	if answer.Status != ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, answer)
}

// ask returns the result of the check in progress, or of a new run.
func (c *checks) ask(ctx context.Context, name string, look func(context.Context) error) error {
	run := c.runs.DoChan(name, func() (_ any, err error) {
		// The probe that started the check may be cancelled while others wait for its result.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTime)
		defer cancel()
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		return nil, look(ctx)
	})
	select {
	case result := <-run:
		return result.Err
	case <-ctx.Done():
		return fmt.Errorf("no answer within %v", checkTime)
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // fails only if the client has gone
}
