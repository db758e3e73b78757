package server

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// checkTime is how long a readiness check may take.
const checkTime = time.Second

type readiness int

const (
	starting readiness = iota
	ready
	draining
)

// checks are the readiness of a server.
type checks struct {
	mu     sync.Mutex
	state  readiness
	byName map[string]*check
}

// check is a readiness check. However many probes come, it runs once at a
// time: a check that hangs holds one goroutine, not one for each probe.
type check struct {
	run func(context.Context) error
	mu  sync.Mutex
	now *checkRun // under way, or nil
}

type checkRun struct {
	done chan struct{}
	err  error
}

type checkResult struct {
	Status string `json:"status"` // "ok" or "failing"
	Error  string `json:"error,omitempty"`
}

type readyAnswer struct {
	Status string                 `json:"status"` // "ready", "not ready", "starting" or "draining"
	Checks map[string]checkResult `json:"checks"`
}

// AddReadiness makes /readyz call look, which has 1 s to return nil. It
// should ask for what this service cannot work without, and at no other
// service: readiness that follows a dependency takes down everyone at once.
// A second check of the same name replaces the first.
func (s *Server) AddReadiness(name string, look func(context.Context) error) {
	c := &s.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byName == nil {
		c.byName = map[string]*check{}
	}
	c.byName[name] = &check{run: look}
}

// SetReady says whether the service wants work. Until the first true, /readyz
// answers 503 "starting", after a later false 503 "draining"; the gRPC health
// service follows. Once Shutdown has begun, true is ignored.
func (s *Server) SetReady(is bool) {
	c := &s.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-s.draining:
		is = false
	default:
	}
	switch {
	case is:
		c.state = ready
	case c.state == ready:
		c.state = draining
	}
	s.setHealth(c.state == ready)
}

func (s *Server) setHealth(ok bool) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if ok {
		status = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", status)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.services {
		s.health.SetServingStatus(r.desc.ServiceName, status)
	}
}

// livez says that the process answers, and nothing about anything else: an
// orchestrator kills what is not alive, and that mends no dependency.
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
	answer := readyAnswer{Status: "ready", Checks: make(map[string]checkResult, len(all))}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, c := range all {
		wg.Go(func() {
			result := checkResult{Status: "ok"}
			if err := c.ask(ctx); err != nil {
				result = checkResult{Status: "failing", Error: err.Error()}
			}
			mu.Lock()
			defer mu.Unlock()
			answer.Checks[name] = result
			if result.Error != "" {
				answer.Status = "not ready"
			}
		})
	}
	wg.Wait()
	switch state {
	case starting:
		answer.Status = "starting"
	case draining:
		answer.Status = "draining"
	}
	status := http.StatusOK
	if answer.Status != "ready" {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, answer)
}

// ask returns the result of the run under way, or of a new one.
func (c *check) ask(ctx context.Context) error {
	c.mu.Lock()
	run := c.now
	if run == nil {
		run = &checkRun{done: make(chan struct{})}
		c.now = run
		// Without the cancellation of the probe that happens to be first:
		// others wait for the same run.
		go c.do(context.WithoutCancel(ctx), run)
	}
	c.mu.Unlock()
	select {
	case <-run.done:
		return run.err
	case <-ctx.Done():
		return fmt.Errorf("no answer within %v", checkTime)
	}
}

func (c *check) do(ctx context.Context, run *checkRun) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			run.err = fmt.Errorf("panic: %v", p)
		}
		c.mu.Lock()
		c.now = nil
		c.mu.Unlock()
		close(run.done)
	}()
	run.err = c.run(ctx)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a probe that has gone needs no answer
}
