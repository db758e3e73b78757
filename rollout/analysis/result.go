package analysis

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Phase is the state of an analysis, in Argo Rollouts' words.
type Phase string

// The phases. A Test is never Inconclusive: that is the word for a caller that stops waiting.
const (
	Running      Phase = "Running"
	Successful   Phase = "Successful"
	Failed       Phase = "Failed"
	Inconclusive Phase = "Inconclusive"
)

// Result is what a Test knows. It is Failed if one metric is, Successful if all are.
type Result struct {
	Phase   Phase
	Looks   int // intervals added
	Metrics []MetricResult
}

// MetricResult has the numbers behind a result. Rates are shares of calls, latencies seconds.
type MetricResult struct {
	Name  string
	Kind  Kind
	Phase Phase

	Canary, Stable float64 // rate (since the start), quantile (of the recent past) or level (last)
	Limit          float64 // what the canary must certainly be below

	CanarySamples, StableSamples uint64 // calls; of a Level, intervals

	// Worse is the evidence that the canary is worse than stable: Failed from WorseLimit. Within is
	// the evidence that it is better than Limit: Successful from WithinLimit. Both start at 1; of a
	// Level they are the intervals running above and below its limit.
	Worse, WorseLimit, Within, WithinLimit float64

	Missing string // what a Running metric waits for, "" otherwise
}

// Result returns what is known now. It may be called at any time and changes nothing.
//
// To fail, the evidence of a metric must pass the number of metrics / Alpha: Bonferroni's
// correction, so that the result can name the metric. To succeed, that of every metric must pass 1
// / Beta. This needs no correction: a bad version is promoted only if its bad metric passes.
func (t *Test) Result() Result {
	r := Result{Phase: t.whole(), Looks: t.looks}
	for _, m := range t.metrics {
		r.Metrics = append(r.Metrics, t.result(m))
	}
	return r
}

func (t *Test) whole() Phase {
	all := Successful
	for _, m := range t.metrics {
		switch t.phase(m) {
		case Failed:
			return Failed
		case Running:
			all = Running
		}
	}
	return all
}

func (t *Test) result(m *metric) MetricResult {
	r := MetricResult{Name: m.Name, Kind: m.Kind, Phase: t.phase(m)}
	r.Worse, r.WorseLimit, r.Within, r.WithinLimit = t.evidence(m)
	if m.Kind == Level {
		r.CanarySamples, r.StableSamples = uint64(m.Looks), uint64(m.Looks) //nolint:gosec // not negative
	} else {
		r.CanarySamples, r.StableSamples = m.Canary.Calls, m.Stable.Calls
	}
	switch {
	case m.Kind == Proportion:
		r.Canary, r.Stable = share(m.Canary), share(m.Stable)
	case m.Kind == Quantile:
		r.Canary, r.Stable = m.Canary.quantile(m.Quantile), m.Stable.quantile(m.Quantile)
	case m.Levels != nil:
		r.Canary, r.Stable = m.Levels[0], m.Levels[1]
	}
	r.Limit = r.Stable + m.allowed(r.Stable)
	if r.Phase == Running {
		r.Missing = m.missing(r, t.options.MinSamples)
	}
	return r
}

// evidence returns a metric's evidence against and for the canary, with the limits.
func (t *Test) evidence(m *metric) (worse, worseLimit, within, withinLimit float64) {
	if m.Kind == Level {
		return float64(m.Above), running, float64(m.Below), running
	}
	return m.Worse.Best, float64(len(t.metrics)) / t.options.Alpha, m.Within.Best, 1 / t.options.Beta
}

// phase is what is concluded of one metric.
func (t *Test) phase(m *metric) Phase {
	worse, worseLimit, within, withinLimit := t.evidence(m)
	switch {
	case m.Kind != Level && min(m.Canary.Calls, m.Stable.Calls) < t.options.MinSamples:
		return Running
	case worse >= worseLimit:
		return Failed
	case within >= withinLimit:
		return Successful
	}
	return Running
}

func share(h *history) float64 {
	if h.Calls == 0 {
		return 0
	}
	return float64(h.Bad) / float64(h.Calls)
}

// missing says what a metric waits for. The number of calls is estimated from the evidence, which
// grows by a factor for each call.
func (m *metric) missing(r MetricResult, least uint64) string {
	switch {
	case m.Kind == Level:
		return "another interval"
	case r.CanarySamples < least:
		return fmt.Sprintf("%d more calls of the canary", least-r.CanarySamples)
	case r.StableSamples < least:
		return fmt.Sprintf("%d more calls of stable", least-r.StableSamples)
	}
	if m.Kind == Quantile && m.Within.Bets == 0 && m.Looks > 1 {
		b, _, _, _ := m.Stable.at(m.Quantile)
		return fmt.Sprintf("a histogram with a bound between %s and %s", seconds(b.Lower), seconds(b.Lower+m.allowed(b.Lower)))
	}
	if r.Within <= 2 {
		return "evidence for either"
	}
	more := float64(r.CanarySamples) * (math.Log(r.WithinLimit)/math.Log(r.Within) - 1)
	return fmt.Sprintf("about %.0f more calls of the canary", math.Ceil(more))
}

// String is the result in one line for each metric.
func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s after %d intervals", r.Phase, r.Looks)
	for _, m := range r.Metrics {
		fmt.Fprintf(&b, "\n  %s", m)
	}
	return b.String()
}

// String is the result in one line:
//
//	errors Failed: canary 10 % of 80 calls, stable 1.05 % of 1520, limit 2.05 %; worse 370 of 100, within 1 of 100
func (m MetricResult) String() string {
	number := func(v float64) string { return fmt.Sprintf("%.4g", v) }
	switch m.Kind {
	case Proportion:
		number = func(v float64) string { return fmt.Sprintf("%.3g %%", 100*v) }
	case Quantile:
		number = seconds
	}
	unit := "calls"
	if m.Kind == Level {
		unit = "intervals"
	}
	text := fmt.Sprintf("%s %s: canary %s of %d %s, stable %s of %d, limit %s; worse %.3g of %g, within %.3g of %g", m.Name, m.Phase,
		number(m.Canary), m.CanarySamples, unit, number(m.Stable), m.StableSamples, number(m.Limit), m.Worse, m.WorseLimit, m.Within, m.WithinLimit)
	if m.Missing != "" {
		text += "; missing: " + m.Missing
	}
	return text
}

// seconds writes a latency with three digits.
func seconds(v float64) string {
	if v > 1e6 {
		return "unbounded"
	}
	d := time.Duration(v * float64(time.Second))
	return d.Round(max(1, time.Duration(math.Pow10(int(math.Floor(math.Log10(max(1, float64(d)))))-2)))).String()
}
