package rollout

import (
	"encoding"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/kaptar/kaptar/rollout/analysis"
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
	// Canary and BlueGreen are the strategies; at most one is set, default Canary.
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

// Canary gives the new version a growing share of the calls. After the last step it gets all, and
// the release is Healthy.
type Canary struct {
	// Steps are taken one after another; default: 5, 25 and 50 % with an analysis at each.
	Steps []Step `json:"steps" yaml:"steps"`
}

// A Step has exactly one of these fields.
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
	// Duration is the length; 0 means until somebody promotes.
	Duration Duration `json:"duration,omitempty" yaml:"duration"`
}

// StepAnalysis waits for evidence, measured since it began, that the new version is good.
type StepAnalysis struct {
	// Timeout is the time after which the result is Inconclusive and the release pauses; default
	// Analysis.Timeout.
	Timeout Duration `json:"timeout,omitempty" yaml:"timeout"`
}

// BlueGreen keeps the new version as a preview, which only testers reach, until it is promoted.
// Then it gets all calls at once and is compared with the old version's last measurements.
type BlueGreen struct {
	// AutoPromote promotes the preview by itself after AutoPromoteAfter, default 2m, during which
	// the old version is measured.
	AutoPromote      bool     `json:"autoPromote,omitempty"      yaml:"autoPromote"`
	AutoPromoteAfter Duration `json:"autoPromoteAfter,omitempty" yaml:"autoPromoteAfter"`
}

// Analysis is how the versions are compared: in steps, and in the background of all steps while the
// new version gets calls.
type Analysis struct {
	// Interval is how often both versions are measured; default 10s, at least 1s.
	Interval Duration `json:"interval,omitempty" yaml:"interval"`
	// Timeout is that of steps without one; default 10m.
	Timeout Duration `json:"timeout,omitempty" yaml:"timeout"`
	// Metrics are compared beside "errors" (calls that failed) and "latency", which always are. One
	// with such a name and no source changes its tolerance.
	Metrics []Metric `json:"metrics,omitempty" yaml:"metrics"`
	// Callers are services whose failed calls to the released one count too, since nobody else
	// counts a call that did not arrive; default: the service that controls.
	Callers []string `json:"callers,omitempty" yaml:"callers"`
	// MaxStableErrors is the share of the stable version's calls, from 0 to 1, that may fail when a
	// release begins; default 0.1.
	MaxStableErrors *float64 `json:"maxStableErrors,omitempty" yaml:"maxStableErrors"`
}

// A Metric is a metric of the services' /metrics.
type Metric struct {
	analysis.Metric `yaml:",inline"`

	// Source is its name there: a counter or histogram for a proportion, a histogram for a
	// quantile, a gauge for a level.
	Source string `json:"source,omitempty" yaml:"source"`
	// Labels select the series that count, and Bad those that are bad, for a proportion. The values
	// are regular expressions that match a whole value: status: "5.."
	Labels map[string]string `json:"labels,omitempty" yaml:"labels"`
	Bad    map[string]string `json:"bad,omitempty"    yaml:"bad"`
}

// A Duration is written as "90s" or "10m" in YAML and JSON.
type Duration time.Duration

var (
	_ encoding.TextMarshaler   = Duration(0)
	_ encoding.TextUnmarshaler = (*Duration)(nil)
)

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	t, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q: expected a duration such as 90s or 10m", text)
	}
	*d = Duration(t)
	return nil
}

// The limits of what a plan can hold: the state of a release must fit into one value of the store.
const (
	maxPlan    = 32 << 10 // bytes of YAML
	maxSteps   = 50
	maxMetrics = 10
)

// ReadPlan reads a plan from a file of YAML and checks it. Unknown keys are errors.
func ReadPlan(file string) (Plan, error) {
	info, err := os.Stat(file)
	if err == nil && (info.IsDir() || info.Size() > maxPlan) {
		return Plan{}, fmt.Errorf("rollout: plan: %s: expected a file of at most %d bytes", file, maxPlan)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return Plan{}, fmt.Errorf("rollout: plan: %w", err)
	}
	return ParsePlan(file, text)
}

// ParsePlan is ReadPlan for the content of a file; name is the file's in errors.
func ParsePlan(name string, text []byte) (p Plan, err error) {
	if len(text) > maxPlan {
		return Plan{}, fmt.Errorf("rollout: plan: %s: expected at most %d bytes", name, maxPlan)
	}
	if err := yaml.UnmarshalWithOptions(text, &p, yaml.Strict()); err != nil {
		return Plan{}, fmt.Errorf("rollout: plan: %s%w", name, mistake(err))
	}
	if err := errors.Join(fractions(text), p.Check()); err != nil {
		return Plan{}, fmt.Errorf("rollout: plan: %s: %w", name, err)
	}
	return p, nil
}

// WithDefaults returns the plan with its defaults filled in.
func (p Plan) WithDefaults() Plan {
	or := func(d *Duration, value time.Duration) {
		if *d == 0 {
			*d = Duration(value)
		}
	}
	or(&p.Analysis.Interval, 10*time.Second)
	or(&p.Analysis.Timeout, 10*time.Minute)
	if p.Analysis.MaxStableErrors == nil {
		p.Analysis.MaxStableErrors = new(0.1)
	}
	if p.Events == "" {
		p.Events = EventsStable
	}
	switch {
	case p.BlueGreen != nil:
		blue := *p.BlueGreen
		or(&blue.AutoPromoteAfter, 2*time.Minute)
		p.BlueGreen = &blue
	case p.Canary == nil || len(p.Canary.Steps) == 0:
		p.Canary = new(Canary)
		for _, weight := range []int{5, 25, 50} {
			p.Canary.Steps = append(p.Canary.Steps, Step{SetWeight: &weight}, Step{Analysis: new(StepAnalysis)})
		}
	}
	return p
}

// Check returns what is wrong with the plan, all at once.
func (p Plan) Check() error {
	p = p.WithDefaults()
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if p.Canary != nil && p.BlueGreen != nil {
		wrong("canary and blueGreen: expected one of them")
	}
	if p.Canary != nil {
		errs = append(errs, checkSteps(p.Canary.Steps))
	}
	if p.BlueGreen != nil && p.BlueGreen.AutoPromoteAfter < p.Analysis.Interval {
		wrong("blueGreen.autoPromoteAfter: %v: expected analysis.interval, %v, at least", p.BlueGreen.AutoPromoteAfter, p.Analysis.Interval)
	}
	if p.Events != EventsStable && p.Events != EventsShare {
		wrong("events: %q: expected stable or share", p.Events)
	}
	a := p.Analysis
	if a.Interval < Duration(time.Second) || a.Interval > Duration(time.Hour) {
		wrong("analysis.interval: %v: expected 1s to 1h", a.Interval)
	}
	if a.Timeout < a.Interval {
		wrong("analysis.timeout: %v: expected the interval, %v, at least", a.Timeout, a.Interval)
	}
	if most := *a.MaxStableErrors; !(most >= 0 && most <= 1) {
		wrong("analysis.maxStableErrors: %g: expected a share from 0 to 1", most)
	}
	if len(a.Metrics) > maxMetrics || len(a.Callers) > maxMetrics {
		wrong("analysis: %d metrics and %d callers: expected at most %d of each", len(a.Metrics), len(a.Callers), maxMetrics)
	}
	for _, m := range a.Metrics {
		if err := m.check(); err != nil {
			wrong("analysis.metrics: %s: %w", m.Name, err)
		}
	}
	if _, err := analysis.New(p.compared(), nil); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// checkSteps checks those of a canary.
func checkSteps(steps []Step) error {
	var errs []error
	weight := 0
	if len(steps) > maxSteps {
		errs = append(errs, fmt.Errorf("canary.steps: %d: expected at most %d", len(steps), maxSteps))
	}
	for i, s := range steps {
		wrong := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("canary.steps[%d]: "+format, append([]any{i}, args...)...))
		}
		switch {
		case s.fields() != 1:
			wrong("expected one of setWeight, pause and analysis, as in - pause: {} or - analysis: {}")
		case s.SetWeight != nil && (*s.SetWeight < 1 || *s.SetWeight > 100):
			wrong("setWeight: %d: expected a share from 1 to 100", *s.SetWeight)
		case s.SetWeight != nil && *s.SetWeight <= weight:
			wrong("setWeight: %d: expected more than the %d before it; abort takes calls away again", *s.SetWeight, weight)
		case s.SetWeight != nil:
			weight = *s.SetWeight
		case s.Pause != nil && s.Pause.Duration < 0, s.Analysis != nil && s.Analysis.Timeout < 0:
			wrong("expected a duration of 0s or more")
		case s.Analysis != nil && weight == 0:
			wrong("analysis: expected a setWeight before it: a version that gets no calls cannot be compared")
		case s.Analysis != nil && weight == 100:
			wrong("analysis: expected a setWeight below 100 before it: the stable version gets no calls to compare with")
		}
	}
	return errors.Join(errs...)
}

func (s Step) fields() (n int) {
	for _, is := range []bool{s.SetWeight != nil, s.Pause != nil, s.Analysis != nil} {
		if is {
			n++
		}
	}
	return n
}

// Names of the metrics that every analysis has.
const (
	errorsMetric  = "errors"
	latencyMetric = "latency"
)

func (m Metric) builtIn() bool { return m.Name == errorsMetric || m.Name == latencyMetric }

func (m Metric) check() error {
	switch {
	case m.builtIn() && (m.Source != "" || len(m.Labels) > 0 || len(m.Bad) > 0):
		return errors.New("it has a source already: expected another name")
	case m.builtIn():
		return nil
	case m.Source == "":
		return errors.New("expected a source: the name of a metric in /metrics")
	case (m.Kind == analysis.Proportion || m.Kind == "") != (len(m.Bad) > 0):
		return errors.New(`bad: expected for a proportion, and for that alone, the labels of what is bad, such as status: "5.."`)
	}
	for _, labels := range []map[string]string{m.Labels, m.Bad} {
		for name, value := range labels {
			if _, err := regexp.Compile(value); err != nil {
				return fmt.Errorf("label %s: %q: expected a regular expression: %w", name, value, err)
			}
		}
	}
	return nil
}

// Metrics returns those that are compared: "errors" and "latency", as the plan changes them, and its
// own.
func (p Plan) Metrics() []Metric {
	var all []Metric
	for _, d := range analysis.Defaults() {
		all = append(all, Metric{Metric: d})
	}
	for _, m := range p.Analysis.Metrics {
		i := slices.IndexFunc(all, func(d Metric) bool { return m.builtIn() && d.Name == m.Name })
		if i < 0 {
			all = append(all, m)
			continue
		}
		if m.Kind == "" {
			m.Kind = all[i].Kind
		}
		all[i] = m
	}
	return all
}

// compared are the Metrics as package analysis takes them.
func (p Plan) compared() (list []analysis.Metric) {
	for _, m := range p.Metrics() {
		list = append(list, m.Metric)
	}
	return list
}
