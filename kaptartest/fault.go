package kaptartest

import (
	"context"
	"sync"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/driver"
)

// A Fault says what goes wrong. The zero value ends the fault that was set before.
type Fault struct {
	// Delay is a wait before the call is made or fails. It ends early with the caller's context.
	Delay time.Duration
	// Err, if set, is returned instead of making the call.
	Err error
	// Times is how often the fault strikes before it ends; 0 means always.
	Times int
}

// FaultHandlers makes the handlers of a topic's events fail or take longer, in every service. A
// handler that is made to fail does not run.
func (s *System) FaultHandlers(topic string, f Fault) { s.handlers.set(topic, f) }

// FaultCalls makes the services' calls fail or take longer, by target, with the rules of
// [transport.Faults]: {"bank": `[{"percent": 50, "status": 503}]`}. They replace the rules of the
// previous call.
func (s *System) FaultCalls(byTarget map[string]string) {
	s.t.Helper()
	if err := s.calls.Set(byTarget); err != nil {
		s.t.Fatal(err)
	}
}

// FaultBroker makes the broker unreachable, if f has an Err, or slow to publish. While it is
// unreachable nothing is published or delivered, and new events wait in the outbox. f.Times is not
// used. A broker of Options.Settings is not affected.
func (s *System) FaultBroker(f Fault) { s.broker.fault(f) }

// faults are the current faults by the name of what they affect.
type faults struct {
	mu   sync.Mutex
	left map[string]*Fault
}

func (f *faults) set(name string, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == nil {
		f.left = make(map[string]*Fault)
	}
	if fault == (Fault{}) {
		delete(f.left, name)
		return
	}
	f.left[name] = &fault
}

// strike waits and fails as the fault for name says.
func (f *faults) strike(ctx context.Context, name string) error {
	f.mu.Lock()
	set := f.left[name]
	var fault Fault
	if set != nil {
		fault = *set
		if set.Times > 0 {
			if set.Times--; set.Times == 0 {
				delete(f.left, name)
			}
		}
	}
	f.mu.Unlock()
	if !steady.Sleep(ctx, fault.Delay) && fault.Delay > 0 {
		return context.Cause(ctx)
	}
	return fault.Err
}

// withFaults returns service with its calls and handlers under the faults of s.
func (s *System) withFaults(service kaptar.Service) kaptar.Service {
	setup := service.Setup
	if setup == nil {
		return service // Run refuses it
	}
	service.Setup = func(app *kaptar.App) error {
		app.Transport().Faults = &s.calls
		err := messaging.Use(app, func(next messaging.Handler) messaging.Handler {
			return func(ctx context.Context, d *driver.Delivery) error {
				if err := s.handlers.strike(ctx, d.Topic); err != nil {
					return err
				}
				return next(ctx, d)
			}
		})
		if err != nil {
			return err
		}
		return setup(app)
	}
	return service
}
