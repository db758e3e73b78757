package rollout

import (
	"encoding"
	"time"
)

// A Plan says how a version is released. The zero value is a canary through 5, 25 and 50 % with an
// analysis at each. In YAML:
//
//	canary:
//	  steps:
//	    - setWeight: 5
//	    - analysis: {}
//	    - setWeight: 50
//	    - pause: {duration: 10m}
//	    - analysis: {timeout: 30m}
//	    - pause: {}
//	analysis:
//	  interval: 10s
//	events: stable
type Plan struct {
	// Canary and BlueGreen are the strategies; one of them. Neither is a Canary without steps.
	Canary    *Canary    `json:"canary,omitempty"    yaml:"canary"`
	BlueGreen *BlueGreen `json:"blueGreen,omitempty" yaml:"blueGreen"`
	// Analysis is how the versions are compared.
	Analysis Analysis `json:"analysis" yaml:"analysis"`
	// Events says which version handles events during the release: EventsStable, the default, or
	// EventsShare.
	Events string `json:"events,omitempty" yaml:"events"`
}

// What Plan.Events can be.
const (
	EventsStable = "stable" // the stable version alone
	EventsShare  = "share"  // all versions, by their weights
)

// Canary gives the new version a growing share of the calls. After the last step it gets all of them,
// and the release is Healthy.
type Canary struct {
	// Steps are taken one after another; default: 5, 25 and 50 % with an analysis at each.
	Steps []Step `json:"steps" yaml:"steps"`
}

// A Step is one of its fields.
type Step struct {
	// SetWeight is the new version's share of the calls in per cent, larger than the one before.
	SetWeight *int `json:"setWeight,omitempty" yaml:"setWeight"`
	// Pause waits for a time, or for somebody who promotes.
	Pause *Pause `json:"pause,omitempty" yaml:"pause"`
	// Analysis waits until the new version is known to be as good as the stable one.
	Analysis *StepAnalysis `json:"analysis,omitempty" yaml:"analysis"`
}

// Pause is a step that waits.
type Pause struct {
	// Duration is how long; 0 is until somebody promotes.
	Duration Duration `json:"duration,omitempty" yaml:"duration"`
}

// StepAnalysis is a step that compares the versions by what was measured since it began.
type StepAnalysis struct {
	// Timeout is when the result is Inconclusive, and the release pauses; default Analysis.Timeout.
	Timeout Duration `json:"timeout,omitempty" yaml:"timeout"`
}

// BlueGreen keeps the new version as a preview, which testers alone reach, until it is promoted. Then
// it gets all calls at once and is compared with what the old version did before.
type BlueGreen struct {
	// AutoPromote promotes without waiting for somebody, after AutoPromoteAfter.
	AutoPromote bool `json:"autoPromote,omitempty" yaml:"autoPromote"`
	// AutoPromoteAfter is how long the preview must have been there; default Analysis.Interval, since
	// the old version has to be measured.
	AutoPromoteAfter Duration `json:"autoPromoteAfter,omitempty" yaml:"autoPromoteAfter"`
}

// Analysis is how the versions are compared: in steps, and in the background of all steps while the
// new version gets calls.
type Analysis struct {
	// Interval is how often both versions are measured; default 10s, at least 1s.
	Interval Duration `json:"interval,omitempty" yaml:"interval"`
	// Timeout is that of steps without one; default 10m.
	Timeout Duration `json:"timeout,omitempty" yaml:"timeout"`
	// Callers are services whose calls to the released one count too; default: the one that controls.
	Callers []string `json:"callers,omitempty" yaml:"callers"`
	// MaxStableErrors is the share of failed calls of the stable version above which a release does not
	// begin, from 0 to 1; default 0.1.
	MaxStableErrors *float64 `json:"maxStableErrors,omitempty" yaml:"maxStableErrors"`
}

// A Duration is written as "90s" or "10m" in YAML and JSON.
type Duration time.Duration

var (
	_ encoding.TextMarshaler   = Duration(0)
	_ encoding.TextUnmarshaler = (*Duration)(nil)
)

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	t, err := time.ParseDuration(string(text))
	*d = Duration(t)
	return err
}

// ReadPlan reads a plan from a file of YAML and checks it. Unknown keys are errors.
func ReadPlan(file string) (Plan, error) { return Plan{}, nil }

// ParsePlan is ReadPlan for the content of a file; name is the file's in errors.
func ParsePlan(name string, text []byte) (Plan, error) { return Plan{}, nil }

// WithDefaults returns the plan with everything filled in that it leaves to defaults.
func (p Plan) WithDefaults() Plan { return p }

// Check returns what is wrong with the plan, all at once.
func (p Plan) Check() error { return nil }
