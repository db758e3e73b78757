package analysis

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// Kind says what a metric is and how it is compared.
type Kind string

const (
	// Proportion is a share of calls that were bad. It is Failed if the canary's share is certainly
	// above stable's, Successful if it is certainly below stable's + Tolerance. The test is not
	// made to find differences of less than about half of the tolerance.
	Proportion Kind = "proportion"

	// Quantile is a quantile of a distribution, such as of latencies. It is Failed if the canary's
	// is certainly above stable's by more than about a quarter of the tolerance, Successful if it
	// is certainly below stable's + the tolerance. It is not Successful if the bounds of the
	// histogram are further apart than the tolerance.
	Quantile Kind = "quantile"

	// Level is a gauge, such as memory: Failed if the canary's was above stable's + the tolerance
	// in two intervals running, Successful if it was not in two. This is a plain limit and no
	// statistical test.
	Level Kind = "level"
)

// Metric is one comparison. Its JSON and YAML keys are the fields' names in lower case.
type Metric struct {
	Name string `json:"name" yaml:"name"` // unique, required

	// Kind is Proportion when empty.
	Kind Kind `json:"kind,omitempty" yaml:"kind"`

	// Tolerance is the difference that must not be promoted: in points for Proportion (default
	// 0.01, one point), as a share of stable's value for Quantile (default 0.2) and Level (default
	// 0.5).
	Tolerance float64 `json:"tolerance,omitempty" yaml:"tolerance"`

	// Least is a difference that is always tolerated, in the unit of a Quantile or Level; default
	// 0.005, five milliseconds, for Quantile and 0 for Level.
	Least float64 `json:"least,omitempty" yaml:"least"`

	// Quantile is the quantile that is compared, for that kind only; default 0.95.
	Quantile float64 `json:"quantile,omitempty" yaml:"quantile"`
}

// Defaults returns the metrics "errors" and "latency".
func Defaults() []Metric {
	return []Metric{{Name: "errors", Kind: Proportion}, {Name: "latency", Kind: Quantile}}
}

// Options are the limits of a test. Zero fields, and nil, mean the defaults.
type Options struct {
	// Alpha bounds the probability that a version which is not worse is Failed, over all metrics
	// and however long the test runs; default 0.01.
	Alpha float64 `json:"alpha,omitempty" yaml:"alpha"`

	// Beta bounds the probability that one worse by the tolerance is Successful; default 0.01.
	Beta float64 `json:"beta,omitempty" yaml:"beta"`

	// MinSamples is the number of calls of each version before anything is concluded; default 30.
	// The evidence is sound without it, but the first calls of a process differ from later ones.
	MinSamples uint64 `json:"minsamples,omitempty" yaml:"minsamples"` //nolint:tagliatelle // as the field
}

// Bucket is the number of samples above Lower and up to Upper, which may be +Inf.
type Bucket struct {
	Lower, Upper float64
	Count        uint64
}

// Observation is one version in one interval, as one metric sees it: differences, not totals.
type Observation struct {
	Count, Bad uint64   // Proportion: calls, and those among them that were bad
	Histogram  []Bucket // Quantile: by ascending bounds; empty buckets may be missing
	Level      float64  // Level: the mean of the instances
}

// Test collects the evidence of one release. Make it with New, or with UnmarshalJSON from
// MarshalJSON's output. It is not for concurrent use.
type Test struct {
	options Options
	looks   int
	metrics []*metric
	scratch [2][]weight // of the interval that is added
}

// metric is a Metric with its evidence.
type metric struct {
	Metric
	Looks  int         // intervals with samples
	Worse  *evidence   `json:",omitempty"`
	Within *evidence   `json:",omitempty"`
	Canary *history    `json:",omitempty"`
	Stable *history    `json:",omitempty"`
	Above  int         // Level: intervals running above the limit
	Below  int         // Level: intervals running below it
	Levels *[2]float64 `json:",omitempty"` // Level: the last, canary's and stable's
}

// New returns a test without evidence. It refuses an empty list, and metrics without a name, with
// the name of another, of an unknown kind or with a number out of range. opts may be nil.
func New(metrics []Metric, opts *Options) (*Test, error) {
	t := &Test{}
	if opts != nil {
		t.options = *opts
	}
	if err := t.options.check(); err != nil {
		return nil, err
	}
	if len(metrics) == 0 {
		return nil, errors.New("analysis: no metrics: expected at least one, such as those of Defaults")
	}
	seen := map[string]bool{}
	for _, m := range metrics {
		m = m.WithDefaults()
		if err := m.check(); err != nil {
			return nil, err
		}
		if seen[m.Name] {
			return nil, fmt.Errorf("analysis: metric %q: expected each name once", m.Name)
		}
		seen[m.Name] = true
		t.metrics = append(t.metrics, newMetric(m))
	}
	return t, nil
}

func newMetric(m Metric) *metric {
	out := &metric{Metric: m}
	if m.Kind != Level {
		out.Worse, out.Within, out.Canary, out.Stable = newEvidence(), newEvidence(), &history{}, &history{}
	}
	return out
}

func (o *Options) check() error {
	orDefault(&o.Alpha, 0.01)
	orDefault(&o.Beta, 0.01)
	if o.MinSamples == 0 {
		o.MinSamples = 30
	}
	for name, v := range map[string]float64{"alpha": o.Alpha, "beta": o.Beta} {
		if !(v > 0 && v < 1) {
			return fmt.Errorf("analysis: %s: %g: expected a probability between 0 and 1, such as 0.01", name, v)
		}
	}
	return nil
}

// WithDefaults returns the metric with its defaults filled in.
func (m Metric) WithDefaults() Metric {
	switch m.Kind {
	case "", Proportion:
		m.Kind = Proportion
		orDefault(&m.Tolerance, 0.01)
	case Quantile:
		orDefault(&m.Tolerance, 0.2)
		orDefault(&m.Quantile, 0.95)
		orDefault(&m.Least, 0.005)
	case Level:
		orDefault(&m.Tolerance, 0.5)
	}
	return m
}

func (m Metric) check() error {
	if m.Name == "" {
		return errors.New("analysis: a metric has no name: expected one, such as errors")
	}
	if m.Kind != Proportion && m.Kind != Quantile && m.Kind != Level {
		return fmt.Errorf("analysis: metric %q: kind %q: expected proportion, quantile or level", m.Name, m.Kind)
	}
	if most := m.mostTolerance(); !(m.Tolerance >= 0.0001 && m.Tolerance <= most) {
		return fmt.Errorf("analysis: metric %q: tolerance %g: expected 0.0001 to %g", m.Name, m.Tolerance, most)
	}
	if m.Kind == Quantile && !(m.Quantile >= 0.01 && m.Quantile <= 0.999) {
		return fmt.Errorf("analysis: metric %q: quantile %g: expected 0.01 to 0.999", m.Name, m.Quantile)
	}
	if m.Kind != Quantile && m.Quantile != 0 {
		return fmt.Errorf("analysis: metric %q: quantile %g: a %s has none", m.Name, m.Quantile, m.Kind)
	}
	if !(m.Least >= 0 && m.Least <= math.MaxFloat64) || m.Kind == Proportion && m.Least != 0 {
		return fmt.Errorf("analysis: metric %q: least %g: expected 0 or more, for a quantile or a level", m.Name, m.Least)
	}
	return nil
}

// mostTolerance is the largest sensible one: half of all calls, or 100 times stable's value.
func (m Metric) mostTolerance() float64 {
	if m.Kind == Proportion {
		return 0.5
	}
	return 100
}

func orDefault(v *float64, d float64) {
	if *v == 0 {
		*v = d
	}
}

// Add adds the observations of one interval, by name of metric. A version or metric without calls
// may be missing. Add intervals before the canary gets calls, too: they show what stable is like,
// and without one the canary's first interval serves only for that. In an interval without calls of
// stable, as after the switch of a blue-green release, the canary is compared with stable's recent
// past, and what has changed for both since then counts against it.
// Add refuses names that New was not given, more bad calls than calls, levels that are negative or
// not numbers, and histograms whose bounds do not ascend or differ between the versions. Then it
// takes nothing of the interval.
func (t *Test) Add(canary, stable map[string]Observation) error {
	for version, all := range map[string]map[string]Observation{"canary": canary, "stable": stable} {
		if err := t.checkAll(version, all); err != nil {
			return err
		}
	}
	for _, m := range t.metrics {
		if m.Kind != Quantile {
			continue
		}
		c, s := weights(t.scratch[0][:0], canary[m.Name].Histogram), weights(t.scratch[1][:0], stable[m.Name].Histogram)
		t.scratch = [2][]weight{c, s}
		if err := sameBounds(m.Name, c, s, m.Canary.Buckets, m.Stable.Buckets); err != nil {
			return err
		}
	}
	t.looks++
	for _, m := range t.metrics {
		c, inCanary := canary[m.Name]
		s, inStable := stable[m.Name]
		switch m.Kind {
		case Proportion:
			m.addProportion(c, s)
		case Quantile:
			m.addQuantile(c, s)
		case Level:
			if inCanary && inStable {
				m.addLevel(c.Level, s.Level)
			}
		}
	}
	return nil
}

func (t *Test) checkAll(version string, all map[string]Observation) error {
	for name, o := range all {
		m := t.find(name)
		if m == nil {
			return fmt.Errorf("analysis: metric %q of %s: not one of the test's, which are %s", name, version, t.names())
		}
		if err := o.check(m.Kind); err != nil {
			return fmt.Errorf("analysis: metric %q of %s: %w", name, version, err)
		}
	}
	return nil
}

func (t *Test) find(name string) *metric {
	for _, m := range t.metrics {
		if m.Name == name {
			return m
		}
	}
	return nil
}

func (t *Test) names() (list []string) {
	for _, m := range t.metrics {
		list = append(list, m.Name)
	}
	return list
}

// mostCount bounds the count of one interval, so that sums stay exact as float64.
const mostCount = 1 << 40

func (o Observation) check(k Kind) error {
	switch {
	case k == Proportion && o.Bad > o.Count:
		return fmt.Errorf("%d bad of %d calls: expected no more bad ones than calls", o.Bad, o.Count)
	case k == Proportion && o.Count > mostCount:
		return fmt.Errorf("%d calls: expected the difference to the last interval, at most %d", o.Count, uint64(mostCount))
	case k == Level && !(o.Level >= 0 && o.Level <= math.MaxFloat64):
		return fmt.Errorf("level %g: expected 0 or more", o.Level)
	case k == Quantile:
		return checkBuckets(o.Histogram)
	}
	return nil
}

// NextStep discards the evidence for success and keeps the evidence against the canary. One test
// serves a whole release: each step asks again whether the canary is good under more calls, and the
// probability of aborting a good version is Alpha for all steps together.
func (t *Test) NextStep() {
	for _, m := range t.metrics {
		m.Below = 0
		if m.Within != nil {
			m.Within = newEvidence()
		}
	}
}

// state is a Test as JSON.
type state struct {
	Options Options
	Looks   int
	Metrics []*metric
}

// MarshalJSON writes all of the test, a few kB for each metric.
func (t *Test) MarshalJSON() ([]byte, error) {
	return json.Marshal(state{t.options, t.looks, t.metrics})
}

// UnmarshalJSON reads MarshalJSON's output. It refuses what no test can have written.
func (t *Test) UnmarshalJSON(text []byte) error {
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("analysis: state of a test: %w", err)
	}
	var metrics []Metric
	for _, m := range s.Metrics {
		if m == nil {
			return errors.New("analysis: state of a test: a metric is null: expected MarshalJSON's output")
		}
		metrics = append(metrics, m.Metric)
	}
	made, err := New(metrics, &s.Options)
	if err != nil {
		return fmt.Errorf("state of a test: %w", err)
	}
	for i, m := range s.Metrics {
		m.Metric = made.metrics[i].Metric
		if err := m.checkState(); err != nil {
			return fmt.Errorf("analysis: state of a test: metric %q: %w", m.Name, err)
		}
	}
	if s.Looks < 0 {
		return fmt.Errorf("analysis: state of a test: %d looks: expected 0 or more", s.Looks)
	}
	*t = Test{options: made.options, looks: s.Looks, metrics: s.Metrics}
	return nil
}
