// Package faults holds deliberate faults, which show what a system does about them: their form,
// which of them strike a call, and waiting.
package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kaptar/kaptar/internal/route"
	"github.com/kaptar/kaptar/internal/steady"
)

// A Fault is what goes wrong with some calls. At most one of Status, Abort and Drop is set.
type Fault struct {
	Route   Route    // the calls it applies to
	Percent float64  // of these calls, 0 to 100; in JSON the default is 100
	Delay   Duration // before anything else
	Status  int      // the answer is this HTTP status, or what corresponds to it in gRPC
	Abort   bool     // the connection breaks off
	Drop    bool     // no answer comes before the deadline
}

// Route is a pattern of package route in JSON.
type Route struct{ route.Pattern }

// UnmarshalText reads a pattern.
func (r *Route) UnmarshalText(text []byte) (err error) {
	r.Pattern, err = route.Parse(string(text))
	return err
}

// Duration is a time.Duration in JSON: "200ms".
type Duration time.Duration

// UnmarshalText reads a duration with its unit.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// UnmarshalJSON reads and checks a fault. An unknown key is an error.
func (f *Fault) UnmarshalJSON(text []byte) error {
	type plain Fault
	p := plain{Percent: 100}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return err
	}
	*f = Fault(p)
	ends := 0
	for _, set := range []bool{f.Status != 0, f.Abort, f.Drop} {
		if set {
			ends++
		}
	}
	switch {
	case f.Percent < 0 || f.Percent > 100:
		return fmt.Errorf("percent %v: expected 0 to 100", f.Percent)
	case f.Delay < 0:
		return fmt.Errorf("delay %v: expected 0s or more", time.Duration(f.Delay))
	case f.Status != 0 && (f.Status < 400 || f.Status > 599):
		return fmt.Errorf("status %d: expected 400 to 599", f.Status)
	case ends > 1:
		return errors.New("expected one of status, abort and drop")
	case ends == 0 && f.Delay == 0:
		return errors.New("expected delay, status, abort or drop")
	}
	return nil
}

// Parse reads a list of faults:
//
//	[{"route": "GET /orders/{user_id}", "percent": 20, "delay": "200ms", "status": 503}]
func Parse(text []byte) (list []Fault, err error) {
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf(`faults: %w: expected a list such as [{"route":"GET /orders/{user_id}","percent":20,"delay":"200ms","status":503}]`, err)
	}
	return list, nil
}

// Draw returns what strikes a call. Each fault of its route strikes with its own percentage. Delays
// add up, and the first fault with an end decides how the call ends. ok is false if none strikes.
func Draw(list []Fault, method, path string) (sum Fault, ok bool) {
	for _, f := range list {
		if !f.Route.Match(method, path) || !Chance(f.Percent) {
			continue
		}
		sum.Delay += f.Delay
		if sum.Status == 0 && !sum.Abort && !sum.Drop {
			sum.Status, sum.Abort, sum.Drop = f.Status, f.Abort, f.Drop
		}
		ok = true
	}
	return sum, ok
}

// Chance is true in percent of all calls: never at 0, always at 100.
func Chance(percent float64) bool { return 100*rand.Float64() < percent } //nolint:gosec // nobody gains by guessing it

// Wait waits for the delay, or with Drop until ctx ends. It returns the error of ctx.
func (f Fault) Wait(ctx context.Context) error {
	if f.Drop {
		<-ctx.Done()
	}
	if !steady.Sleep(ctx, time.Duration(f.Delay)) {
		return ctx.Err()
	}
	return nil
}
