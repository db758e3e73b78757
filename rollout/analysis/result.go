package analysis

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Phase is the state of an analysis, in Argo Rollouts' words.
type Phase string

// The phases. A Test is never Inconclusive: that is what a caller who stops waiting calls it.
const (
	Running      Phase = "Running"
	Successful   Phase = "Successful"
	Failed       Phase = "Failed"
	Inconclusive Phase = "Inconclusive"
)

// Result is what a Test knows. It is Failed when one metric is, Successful when all are.
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
	Limit          float64 // what the canary is to be surely below: Stable and the tolerance

	CanarySamples, StableSamples uint64 // calls; of a Level, intervals

	// Worse is the evidence that the canary is worse than stable: Failed from WorseLimit. Within is the
	// evidence that it is better than Limit: Successful from WithinLimit. Both start at 1; of a Level
	// they are the intervals running above and below its limit.
	Worse, WorseLimit, Within, WithinLimit float64

	Missing string // what a Running metric waits for, "" otherwise
}

// Result returns what is known now. It may be called at any time and changes nothing.
//
// To fail, the evidence of a metric must pass the number of metrics / Alpha (Bonferroni's correction,
// so that the result names the metric; the mean of all evidence would gain little). To succeed it must
// pass 1 / Beta for every metric, which needs no correction: a bad version is promoted only if its bad
// metric passes as well.
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
	r := MetricResult{Name: m.Name, Kind: m.Kind}
	switch m.Kind {
	case Level:
		r.CanarySamples, r.StableSamples = uint64(m.Looks), uint64(m.Looks)
		r.Worse, r.Within, r.WorseLimit, r.WithinLimit = float64(m.Above), float64(m.Below), running, running
		if m.Levels != nil {
			r.Canary, r.Stable = m.Levels[0], m.Levels[1]
		}
		r.Limit = r.Stable + m.allowed(r.Stable)
	default:
		r.CanarySamples, r.StableSamples = m.Canary.Calls, m.Stable.Calls
		r.Worse, r.Within = m.Worse.Best, m.Within.Best
		r.WorseLimit, r.WithinLimit = t.worseLimit(), 1/t.options.Beta
		if m.Kind == Quantile {
			r.Canary, r.Stable = m.Canary.quantile(m.Quantile), m.Stable.quantile(m.Quantile)
			r.Limit = r.Stable + m.allowed(r.Stable)
		} else {
			r.Canary, r.Stable = share(m.Canary), share(m.Stable)
			r.Limit = r.Stable + m.Tolerance
		}
	}
	r.Phase = t.phase(m)
	if least := t.options.MinSamples; r.Phase == Running && m.Kind != Level && min(r.CanarySamples, r.StableSamples) < least {
		r.Missing = fewer(least, r.CanarySamples, r.StableSamples)
	} else if r.Phase == Running {
		r.Missing = m.missing(r)
	}
	return r
}

// phase is what is concluded of one metric.
func (t *Test) phase(m *metric) Phase {
	if m.Kind == Level {
		return concluded(float64(m.Above), running, float64(m.Below), running)
	}
	if min(m.Canary.Calls, m.Stable.Calls) < t.options.MinSamples {
		return Running
	}
	return concluded(m.Worse.Best, t.worseLimit(), m.Within.Best, 1/t.options.Beta)
}

func (t *Test) worseLimit() float64 { return float64(len(t.metrics)) / t.options.Alpha }

func concluded(worse, worseLimit, within, withinLimit float64) Phase {
	switch {
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

// fewer says how many calls there are fewer than least.
func fewer(least, canary, stable uint64) string {
	if canary >= least {
		return fmt.Sprintf("%d more calls of stable", least-stable)
	}
	return fmt.Sprintf("%d more calls of the canary", least-canary)
}

// missing says what a metric with enough samples waits for. The number of calls is a guess by the
// evidence so far, which grows by a factor for each call.
func (m *metric) missing(r MetricResult) string {
	if m.Kind == Level {
		return "another interval"
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
//	errors Running: canary 1.02 % of 1200 calls, stable 0.98 % of 22800, limit 1.98 %; worse 0.3 of 200, within 31 of 100; missing: about 410 more calls of the canary
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
