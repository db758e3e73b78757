//go:build unix

package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kaptar/kaptar"
)

// settleTime is how long a start that has failed goes on, so that the error tells
// of all services that fail, as it does in one process.
const settleTime = time.Second

// lateStop is when a stop is long enough to say what it waits for.
const lateStop = time.Second

// errKilled tells of processes that did not stop in time.
var errKilled = errors.New("local: killed because the time for stopping was over")

// A supervisor keeps a process for each service.
type supervisor struct {
	names    []string
	command  func(service string) *exec.Cmd
	patience time.Duration // from SIGTERM to SIGKILL
	log      *slog.Logger
	logs     *joint // where the processes' logs and their standard error go
	stdout   *joint
	ready    func(all []kaptar.Endpoint, pids map[string]int) // called once, when all are

	mu        sync.Mutex
	processes map[string]*process // those that run
	endpoints map[string]kaptar.Endpoint
	pids      map[string]int // of those that became ready first
	pending   int            // services that have neither become ready nor failed
	failed    bool           // whether one failed before it was ever ready
	aborted   bool           // whether nothing may start any more
}

// run starts all services and keeps them running until ctx ends, or until one of
// them fails before it was ever ready.
func (s *supervisor) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.processes, s.endpoints, s.pids = map[string]*process{}, map[string]kaptar.Endpoint{}, map[string]int{}
	s.pending = len(s.names)
	errs := make([]error, len(s.names))
	var services sync.WaitGroup
	for i, name := range s.names {
		services.Go(func() { errs[i] = s.keep(ctx, cancel, name) })
	}
	done := make(chan struct{})
	go func() {
		services.Wait()
		close(done)
	}()
	<-ctx.Done()
	begun := time.Now()
	select {
	case <-done:
	case <-time.After(lateStop):
		s.log.Info("stopping", "waiting_for", s.running())
		<-done
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.log.Info("stopped", "services", len(s.names), "after", time.Since(begun).Round(time.Millisecond))
	return nil
}

// keep runs the service until ctx ends.
func (s *supervisor) keep(ctx context.Context, cancel func(), name string) error {
	var everReady bool
	var delay time.Duration
	for {
		begun := time.Now()
		end := s.once(ctx, name, func(at kaptar.Endpoint, pid int) {
			if everReady {
				s.log.Info("service "+name+" is ready again", "pid", pid, "http", at.HTTP, "grpc", at.GRPC)
				return
			}
			everReady = true
			s.firstReady(cancel, at, pid)
		})
		switch {
		case ctx.Err() != nil:
			return end.whileStopping(everReady)
		case !everReady:
			s.firstFailed(cancel)
			return end.beforeReady()
		}
		delay = nextDelay(delay, time.Since(begun))
		s.log.Warn(fmt.Sprintf("service %s ended (%s); starting it again in %v", name, end.why(), delay))
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil
		}
	}
}

// once runs one process of the service to its end. ready has been called, if at
// all, when it returns.
func (s *supervisor) once(ctx context.Context, name string, ready func(kaptar.Endpoint, int)) end {
	p, err := s.start(name)
	if err != nil {
		return end{service: name, err: err}
	}
	unhook := context.AfterFunc(ctx, func() { p.stop(s.patience) })
	defer unhook()
	e := p.wait(ready)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.processes, name)
	return e
}

// running returns the names of the services that have a process.
func (s *supervisor) running() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.processes))
}

func (s *supervisor) start(name string) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted {
		return nil, errors.New("stopped at once")
	}
	p, err := startProcess(name, s.command(name), s.logs, s.stdout)
	if err == nil {
		s.processes[name] = p
	}
	return p, err
}

// abort kills all processes.
func (s *supervisor) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	for _, p := range s.processes {
		p.kill()
	}
}

// firstReady notes that a service has become ready for the first time.
func (s *supervisor) firstReady(cancel func(), at kaptar.Endpoint, pid int) {
	s.mu.Lock()
	s.endpoints[at.Service], s.pids[at.Service] = at, pid
	s.mu.Unlock()
	s.settle(cancel, false)
}

// firstFailed notes that a service has ended before it was ever ready.
func (s *supervisor) firstFailed(cancel func()) {
	time.AfterFunc(settleTime, cancel)
	s.settle(cancel, true)
}

// settle notes that a service has come to the end of its first start.
func (s *supervisor) settle(cancel func(), failed bool) {
	s.mu.Lock()
	s.pending--
	s.failed = s.failed || failed
	pending, anyFailed := s.pending, s.failed
	s.mu.Unlock()
	switch {
	case pending > 0:
	case anyFailed:
		cancel()
	default: // nobody writes to the maps any more
		all := make([]kaptar.Endpoint, len(s.names))
		for i, name := range s.names {
			all[i] = s.endpoints[name]
		}
		s.ready(all, s.pids)
	}
}

// An end is how a process ended.
type end struct {
	service  string
	reported string         // the error it told of itself, if it could
	err      error          // of exec: nil for exit status 0
	signal   syscall.Signal // that ended it, or 0
}

// why is the end in a few words for the log.
func (e end) why() string {
	state := "exit status 0"
	if e.err != nil {
		state = e.err.Error()
	}
	if e.reported == "" {
		return state
	}
	return state + ": " + e.reported
}

// beforeReady is the error of a start that failed, as like that of one process as
// can be.
func (e end) beforeReady() error {
	switch {
	case e.reported == "":
		return fmt.Errorf("local: service %s ended before it was ready: %s", e.service, e.why())
	case strings.Contains(e.reported, e.service):
		return errors.New(e.reported)
	}
	return fmt.Errorf("local: service %s: %s", e.service, e.reported)
}

// whileStopping is the error of a process that was told to stop. One that never
// became ready was cut short, and what it says of that is no news.
func (e end) whileStopping(wasReady bool) error {
	switch {
	case e.signal == syscall.SIGKILL:
		return fmt.Errorf("%w: %s", errKilled, e.service)
	case e.err == nil || !wasReady:
		return nil
	}
	return fmt.Errorf("local: service %s did not stop well: %s", e.service, e.why())
}
