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

// A Fault says what goes wrong. The zero value is none: it ends the fault set before.
type Fault struct {
	// Delay comes before what is done or refused; it ends early with the caller's context.
	Delay time.Duration
	// Err, if set, is returned instead of doing anything.
	Err error
	// Times is how often the fault strikes before it ends by itself; 0 means always.
	Times int
}

// FaultHandlers makes the handlers of a topic's events fail or be slow, in every service. A handler
// that fails here has not run.
func (s *System) FaultHandlers(topic string, f Fault) { s.handlers.set(topic, f) }

// FaultCalls makes the services' calls fail or be slow, by target, with the rules of
// [transport.Faults]: {"bank": `[{"percent": 50, "status": 503}]`}. They replace those of the call before.
func (s *System) FaultCalls(byTarget map[string]string) {
	s.t.Helper()
	if err := s.calls.Set(byTarget); err != nil {
		s.t.Fatal(err)
	}
}

// FaultBroker makes the broker unreachable, when f has an Err, or slow to publish. While it is
// unreachable nothing is published or delivered; what is to be published waits in the outbox.
// f.Times is not used. The fault has no effect on a broker of Options.Settings.
func (s *System) FaultBroker(f Fault) { s.broker.fault(f) }

// faults are by name of what they strike.
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

// strike does what is set for name.
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

// withFaults returns service with the switches in its doors.
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
