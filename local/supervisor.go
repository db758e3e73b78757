//go:build unix

package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/proc"
)

// moreErrors is how long a start that has failed goes on at most, so that the error names all
// services that fail, as it does in one process: until each has failed or is ready.
const moreErrors = 5 * time.Second

// lateStop is the time after which a stop logs what it waits for.
const lateStop = time.Second

// A supervisor keeps a process for each service.
type supervisor struct {
	names   []string
	start   func(c child, reports io.Writer) (*proc.Process, error)
	timeout time.Duration // from SIGTERM to SIGKILL
	log     *slog.Logger
	ready   func(all []discovery.Instance, pids map[string]int) // called once, when all are
	beside  func(ctx context.Context)                           // called after it, until ctx ends; nil: nothing

	running sync.Map      // keys are the names of children that run
	up      chan struct{} // closed when all are ready

	mu        sync.Mutex
	instances map[string]discovery.Instance
	pids      map[string]int // of those that became ready first
	pending   int            // services that have neither become ready nor failed
	failed    bool           // whether one failed before it was ever ready
}

// run starts all services and keeps them running until ctx ends, or until one of them fails before
// it is ready for the first time.
func (s *supervisor) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.instances, s.pids = map[string]discovery.Instance{}, map[string]int{}
	s.pending, s.up = len(s.names), make(chan struct{})
	errs := make([]error, len(s.names))
	var services sync.WaitGroup
	for i, name := range s.names {
		services.Go(func() { errs[i] = s.keep(ctx, cancel, name) })
	}
	if s.beside != nil {
		services.Go(func() {
			select {
			case <-s.up:
				s.beside(ctx)
			case <-ctx.Done():
			}
		})
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
		var waiting []string
		for name := range s.running.Range {
			waiting = append(waiting, name.(string))
		}
		slices.Sort(waiting)
		s.log.Info("stopping", "waiting_for", waiting)
		<-done
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.log.Info("stopped", "services", len(s.names), "after", time.Since(begun).Round(time.Millisecond))
	return nil
}

func (s *supervisor) keep(ctx context.Context, cancel func(), name string) (err error) {
	var everReady, ready bool // ready: this run
	var last end
	proc.Keep(ctx, func() {
		ready = false
		last = s.runOne(ctx, child{service: name}, func(r report) {
			if ready = true; everReady {
				s.log.Info("service "+name+" is ready again", "pid", r.PID, "http", r.Ready.HTTP, "grpc", r.Ready.GRPC)
				return
			}
			everReady = true
			s.mu.Lock()
			s.instances[name], s.pids[name] = *r.Ready, r.PID
			s.mu.Unlock()
			s.started(cancel, false)
		})
		if ctx.Err() != nil {
			err = last.whileStopping(ready)
		}
	}, func(wait time.Duration) bool {
		if !everReady {
			err = last.beforeReady()
			time.AfterFunc(moreErrors, cancel)
			s.started(cancel, true)
			return false
		}
		s.log.Warn(fmt.Sprintf("service %s ended (%s); starting it again in %v", name, last.why(), wait))
		return true
	})
	return err
}

// runOne runs one process to its end. ready has been called, if at all, when it returns.
func (s *supervisor) runOne(ctx context.Context, c child, ready func(report)) end {
	e := end{service: c.name()}
	p, err := s.start(c, reports(func(r report) {
		if e.reported = r.Error; r.Ready != nil {
			ready(r)
		}
	}))
	if err != nil {
		e.err = fmt.Errorf("local: %w", err)
		return e
	}
	s.running.Store(e.service, nil)
	defer s.running.Delete(e.service)
	unhook := context.AfterFunc(ctx, func() { p.Stop(s.timeout) })
	defer unhook()
	e.err = p.Wait()
	return e
}

// reports is an io.Writer that takes each report that is written to it.
type reports func(report)

// Write implements io.Writer. A report is smaller than what a pipe passes on as one piece.
func (f reports) Write(b []byte) (int, error) {
	for d := json.NewDecoder(bytes.NewReader(b)); ; {
		var r report
		if d.Decode(&r) != nil {
			return len(b), nil
		}
		f(r)
	}
}

// started notes that the first start of a service is over.
func (s *supervisor) started(cancel func(), failed bool) {
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
		all := make([]discovery.Instance, len(s.names))
		for i, name := range s.names {
			all[i] = s.instances[name]
		}
		s.ready(all, s.pids)
		close(s.up)
	}
}

// An end is how a process ended.
type end struct {
	service  string
	reported string // the error that it reported before it ended, if it could
	err      error  // of exec: nil for exit status 0
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

// beforeReady returns the error of a failed start: the one that the process reported, if it did.
func (e end) beforeReady() error {
	if e.reported == "" {
		return fmt.Errorf("local: service %s ended before it was ready: %s", e.service, e.why())
	}
	return errors.New(e.reported)
}

// whileStopping returns the error of a process that was told to stop. If it had not become ready, its
// own error only says that its start was interrupted, and is left out.
func (e end) whileStopping(wasReady bool) error {
	exit, _ := errors.AsType[*exec.ExitError](e.err)
	switch {
	case exit != nil && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		return fmt.Errorf("local: killed because it did not stop in time: %s", e.service)
	case e.err == nil || !wasReady:
		return nil
	}
	return fmt.Errorf("local: service %s did not stop well: %s", e.service, e.why())
}
