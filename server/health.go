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

// checks are the readiness of a server. However many probes come, a check runs once at a time: one
// that hangs holds one goroutine, not one for each probe.
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

// AddReadiness makes /readyz call look, which has 1 s to return nil. It should ask for what this
// service cannot work without, and at no other service: readiness that follows a dependency takes
// down everyone at once. A second check of the same name replaces the first.
func (s *Server) AddReadiness(name string, look func(context.Context) error) {
	c := &s.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byName[name] = look
}

// SetReady says whether the service wants work. Until the first true, /readyz answers 503
// "starting", after a later false 503 "draining"; the gRPC health service follows. Once Shutdown
// has begun, true is ignored.
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

// livez says that the process answers, and nothing about anything else: an orchestrator kills what
// is not alive, and that mends no dependency.
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

// ask returns the result of the run under way, or of a new one.
func (c *checks) ask(ctx context.Context, name string, look func(context.Context) error) error {
	run := c.runs.DoChan(name, func() (_ any, err error) {
		// Without the cancellation of the probe that happens to be first: others wait for the same.
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
	_ = json.NewEncoder(w).Encode(v) // a probe that has gone needs no answer
}
