package rollout

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kaptar/kaptar/rollout/analysis"
)

const (
	// awayIntervals is how long a version that gets calls may lack instances; a restart is shorter.
	awayIntervals = 2
	// maxBaseline is how many intervals of the stable version a blue-green release keeps.
	maxBaseline = 12
	// minStable is the number of the stable version's calls that show whether it fails.
	minStable = 20
)

// Observed is what a controller has seen since it last advanced a release.
type Observed struct {
	// Elapsed is the time since then by the controller's own clock.
	Elapsed time.Duration
	// Instances are how many discovery lists, by version; nil is not known.
	Instances map[string]int
	// Canary and Stable are the measurements by metric; nil for none, as in a controller's first
	// interval. Missing says why, if measuring failed.
	Canary, Stable map[string]analysis.Observation
	Missing        string
}

// Advance returns the release after what was observed. It does not change one that is over.
func (r Release) Advance(now time.Time, o Observed) Release {
	if r.Done() {
		return r
	}
	next := r.add(o)
	if !r.Begun {
		return r.change(now, next.begin(o))
	}
	next = next.count(o)
	result := next.Test.Result()
	switch limit := awayIntervals * r.Plan.Analysis.Interval; {
	case result.Phase == analysis.Failed:
		next = next.abort(r.Canary + " is worse: " + failed(result))
	case next.Away >= limit && o.Instances[r.Canary] == 0:
		next = next.abort(r.Canary + " has no instance any more")
	case next.Away >= limit && r.Reason == "":
		next.Phase, next.Reason = Paused, pausedInconclusive
		next.Message = fmt.Sprintf("%s has no instance any more: start it, then promote goes on; promote --full makes %s the stable version", r.Stable, r.Canary)
	case r.Phase == Progressing:
		next.Waited += Duration(o.Elapsed)
		next = next.run()
	}
	return r.change(now, next)
}

// begin takes the first step once both versions have instances and the stable one works.
func (r Release) begin(o Observed) Release {
	r.Waited += Duration(o.Elapsed)
	late := r.Waited >= r.Wait && o.Instances != nil
	calls := o.Stable[errorsMetric]
	switch {
	case o.Instances[r.Canary] == 0 && late:
		return r.abort(fmt.Sprintf("no instance of %s came within %v: start one and release it again", r.Canary, r.Wait))
	case o.Instances[r.Canary] == 0:
		r.Message = "waiting for an instance of " + r.Canary
		return r
	case r.Force:
	case o.Instances[r.Stable] == 0 && late:
		return r.abort(fmt.Sprintf("the stable version, %s, has no instance: start one, or use --force if %s is the fix", r.Stable, r.Canary))
	case o.Instances[r.Stable] == 0:
		r.Message = "waiting for an instance of " + r.Stable
		return r
	case o.Stable == nil && late && o.Missing != "":
		return r.abort("nothing could be measured: " + o.Missing)
	case o.Stable == nil:
		r.Message = strings.TrimSuffix(fmt.Sprintf("measuring %s: %s", r.Stable, o.Missing), ": ")
		return r
	case calls.Count >= minStable && float64(calls.Bad) > *r.Plan.Analysis.MaxStableErrors*float64(calls.Count):
		return r.abort(fmt.Sprintf("the stable version, %s, fails itself (%d of %d calls, maxStableErrors is %g): fix it first, or use --force if %s is the fix",
			r.Stable, calls.Bad, calls.Count, *r.Plan.Analysis.MaxStableErrors, r.Canary))
	}
	r.Begun, r.Message = true, ""
	return r.enter(0).run()
}

// count records how long a version that gets calls has had no instance.
func (r Release) count(o Observed) Release {
	switch {
	case o.Instances == nil:
	case r.Weight > 0 && o.Instances[r.Canary] == 0, r.Weight < 100 && o.Instances[r.Stable] == 0 && !r.Force:
		r.Away += Duration(o.Elapsed)
	default:
		r.Away = 0
	}
	return r
}

func (r Release) enter(step int) Release {
	r.Step, r.Waited = step, 0
	if step < len(r.Steps()) && r.Steps()[step].Analysis != nil {
		r.Test = clone(r.Test)
		r.Test.NextStep()
	}
	return r
}

// run takes steps until one has to wait.
func (r Release) run() Release {
	for r.Phase == Progressing {
		if r.Step == len(r.Steps()) {
			return r.finish("after all steps")
		}
		switch step := r.Steps()[r.Step]; {
		case step.SetWeight != nil:
			r.Weight = *step.SetWeight
		case step.Pause != nil && step.Pause.Duration == 0:
			r.Phase, r.Reason = Paused, pausedByStep
			return r
		case step.Pause != nil && r.Waited < step.Pause.Duration:
			return r
		case step.Analysis != nil:
			var passed bool
			if r, passed = r.analyse(*step.Analysis); !passed {
				return r
			}
		}
		r = r.enter(r.Step + 1)
	}
	return r
}

// analyse reports whether the step is passed. It pauses the release if that takes too long.
func (r Release) analyse(step StepAnalysis) (Release, bool) {
	result := r.Test.Result()
	timeout := step.Timeout
	if timeout == 0 {
		timeout = r.Plan.Analysis.Timeout
	}
	used := r.Plan.BlueGreen != nil && len(r.Baseline) == 0
	switch {
	case result.Phase == analysis.Successful:
		return r, true
	case used:
		r.Message = fmt.Sprintf("not sure after all that was measured of %s before the switch", r.Stable)
	case r.Waited >= timeout:
		r.Message = fmt.Sprintf("not sure after %v", timeout)
	default:
		return r, false
	}
	r.Phase, r.Reason = Paused, pausedInconclusive
	r.Message = fmt.Sprintf("%s: %s: promote goes on, abort goes back to %s", r.Message, unsure(r, result), r.Stable)
	return r, false
}

func failed(result analysis.Result) string {
	var texts []string
	for _, m := range result.Metrics {
		if m.Phase == analysis.Failed {
			texts = append(texts, m.String())
		}
	}
	return strings.Join(texts, "; ")
}

// unsure says why an analysis has no result.
func unsure(r Release, result analysis.Result) string {
	var texts []string
	for _, m := range result.Metrics {
		switch {
		case m.CanarySamples == 0 && m.Name == errorsMetric:
			return fmt.Sprintf("no call reached %s at %d %%, send it some (of a few users, who keep their version, it may have none)", r.Canary, r.Weight)
		case m.Phase == analysis.Running:
			texts = append(texts, m.Name+" needs "+m.Missing)
		}
	}
	return strings.Join(texts, ", ")
}

// add adds the measurements to the test.
func (r Release) add(o Observed) Release {
	canary, stable := o.Canary, o.Stable
	switch {
	case canary == nil && stable == nil:
		return r
	case r.Plan.BlueGreen != nil && r.Weight == 0:
		first := max(0, len(r.Baseline)+1-maxBaseline)
		r.Baseline = append(slices.Clone(r.Baseline[min(first, len(r.Baseline)):]), stable)
		return r
	case r.Plan.BlueGreen != nil && len(r.Baseline) > 0 && canary != nil:
		// Each interval counts once. Used again it would look like more evidence than there is.
		stable, r.Baseline = r.Baseline[0], r.Baseline[1:]
	}
	test := clone(r.Test)
	if err := test.Add(canary, stable); err != nil {
		return r // the interval is lost; the controller logs it
	}
	r.Test = test
	return r
}

func clone(t *analysis.Test) *analysis.Test {
	out := new(analysis.Test)
	text, err := json.Marshal(t)
	if err == nil {
		err = json.Unmarshal(text, out)
	}
	if err != nil {
		return t // no test of ours: see analysis.Test.MarshalJSON
	}
	return out
}
