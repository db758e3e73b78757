package rollout

import (
	"errors"
	"fmt"
	"time"

	"github.com/kaptar/kaptar/kv"
	"github.com/kaptar/kaptar/rollout/analysis"
)

// A Phase is the state of a release.
type Phase string

// The phases, as Argo Rollouts names them. A Paused release waits for somebody, unlike one at a
// pause with a duration.
const (
	Progressing Phase = "Progressing"
	Paused      Phase = "Paused"
	Healthy     Phase = "Healthy"  // over: the new version is the stable one
	Degraded    Phase = "Degraded" // over: the old version has all calls again
)

// Why a release is Paused.
const (
	pausedByStep       = "step"
	pausedByUser       = "user"
	pausedInconclusive = "inconclusive"
)

// defaultWait is how long a release waits for its first instances.
const defaultWait = Duration(time.Minute)

// minSamples is the number of calls of each version before anything is concluded. It is small
// because a version whose calls all fail gets few: callers eject its instances.
const minSamples = 10

// A Release is the state of a service's last or current release, as it is in the store. Its methods
// return the next state and do not change the receiver.
type Release struct {
	Service string `json:"service"`
	// Stable is the version to compare with, which stays if the release is aborted.
	Stable string `json:"stable"`
	// Canary is the version that is being released, or whose release was aborted; "" after a
	// successful one. In a blue-green release it is the preview, and active once its weight is 100.
	Canary string `json:"canary,omitempty"`
	// Previous is the stable version before this one, for Undo.
	Previous string `json:"previous,omitempty"`
	Plan     Plan   `json:"plan"` // with its defaults
	// Wait is how long the first instances may take to come; New sets it to 1m.
	Wait Duration `json:"wait"`
	// Force begins even if the stable version fails or is missing, for a release that is the fix.
	Force bool `json:"force,omitempty"`

	Phase Phase `json:"phase"`
	// Reason is why it is Paused: "step", "user" or "inconclusive".
	Reason string `json:"reason,omitempty"`
	// Begun tells that both versions were found and the first step was taken.
	Begun bool `json:"begun,omitempty"`
	// Step is the index of the current step in Steps, and their number when all have been taken.
	Step int `json:"step"`
	// Weight is the share of Canary in per cent.
	Weight int `json:"weight"`
	// Waited is how long the current step has taken, as controllers measured it: clocks of
	// different machines are not compared.
	Waited Duration `json:"waited,omitempty"`
	// Away is how long a version that gets calls has had no instance.
	Away Duration `json:"away,omitempty"`
	// Test has the measurements. Baseline is what stable did in the last intervals before the
	// switch of a blue-green release.
	Test     *analysis.Test                    `json:"test,omitempty"`
	Baseline []map[string]analysis.Observation `json:"baseline,omitempty"`
	// Message says why the release is where it is, and what to do.
	Message string    `json:"message,omitempty"`
	Started time.Time `json:"started"`
	Changed time.Time `json:"changed"` // of the last change of phase, step or message
}

// New returns a new release of version. stable is the version that has the calls. It fails for an
// invalid plan or versions that cannot be compared.
func New(service, stable, version string, plan Plan, now time.Time) (Release, error) {
	r := Release{
		Service: service, Stable: stable, Canary: version, Plan: plan.WithDefaults(), Wait: defaultWait,
		Phase: Progressing, Message: "waiting for both versions", Started: now, Changed: now,
	}
	err := plan.Check()
	switch {
	case service == "" || version == "":
		err = errors.New("expected a service and a version")
	case stable == "":
		err = errors.New("expected a stable version to compare with")
	case kv.Segment(stable) == kv.Segment(version):
		err = fmt.Errorf("%s is the stable version already: release another one", version)
	}
	if err == nil {
		r.Test, err = analysis.New(r.Plan.compared(), &analysis.Options{MinSamples: minSamples})
	}
	if err != nil {
		return Release{}, fmt.Errorf("rollout: start: %s: %w", service, err)
	}
	return r, nil
}

// Steps are those of the plan; of a blue-green release: a pause, all calls, an analysis.
func (r Release) Steps() []Step {
	if r.Plan.BlueGreen == nil {
		return r.Plan.Canary.Steps
	}
	pause := new(Pause)
	if r.Plan.BlueGreen.AutoPromote {
		pause.Duration = r.Plan.BlueGreen.AutoPromoteAfter
	}
	return []Step{{Pause: pause}, {SetWeight: new(100)}, {Analysis: new(StepAnalysis)}}
}

// Done reports whether the release is over: Healthy or Degraded.
func (r Release) Done() bool { return r.Phase == Healthy || r.Phase == Degraded }

// Weights are the shares of the versions in per cent: 100 in all.
func (r Release) Weights() map[string]int {
	if r.Canary == "" {
		weights := map[string]int{r.Stable: 100}
		if r.Previous != "" {
			weights[r.Previous] = 0
		}
		return weights
	}
	return map[string]int{r.Stable: 100 - r.Weight, r.Canary: r.Weight}
}

// Promote resumes the release: after a pause step or an Inconclusive analysis with the next step,
// after Pause with the same step. With full it skips all steps and analyses.
func (r Release) Promote(now time.Time, full bool) (Release, error) {
	switch {
	case r.Done():
		return r, r.over("promote", "start another one")
	case full:
		return r.change(now, r.finish("promoted by hand, past what was left of its steps")), nil
	case !r.Begun:
		return r, fmt.Errorf("rollout: promote: %s: the release of %s has not begun: %s", r.Service, r.Canary, r.Message)
	case r.Phase != Paused:
		return r, fmt.Errorf("rollout: promote: %s: the release of %s goes on by itself: %s; --full skips what is left", r.Service, r.Canary, r.Message)
	}
	reason, next := r.Reason, r
	next.Phase, next.Reason, next.Away = Progressing, "", 0
	if reason == pausedByStep || reason == pausedInconclusive && r.Steps()[r.Step].Analysis != nil {
		next = next.enter(r.Step + 1)
	}
	return r.change(now, next.run()), nil
}

// Pause stops the release until somebody promotes it. Its analysis goes on.
func (r Release) Pause(now time.Time) (Release, error) {
	switch {
	case r.Done():
		return r, r.over("pause", "start another one")
	case r.Phase == Paused:
		return r, fmt.Errorf("rollout: pause: %s: it is paused already: %s", r.Service, r.Message)
	case !r.Begun:
		return r, fmt.Errorf("rollout: pause: %s: the release of %s has not begun: %s; abort it instead", r.Service, r.Canary, r.Message)
	}
	next := r
	next.Phase, next.Reason = Paused, pausedByUser
	return r.change(now, next), nil
}

// Abort gives all calls back to the stable version. why, which may be empty, becomes the message.
func (r Release) Abort(now time.Time, why string) (Release, error) {
	if r.Done() {
		return r, r.over("abort", "undo goes back to the version before")
	}
	if why == "" {
		why = "aborted by hand"
	}
	return r.change(now, r.abort(why)), nil
}

// Undo makes the previous version the stable one again, at once; a second Undo reverts that. During
// a release it is Abort.
func (r Release) Undo(now time.Time) (Release, error) {
	switch {
	case !r.Done():
		return r.Abort(now, "undone by hand")
	case r.Phase == Degraded:
		return r, fmt.Errorf("rollout: undo: %s: %s was taken back already, and %s has all calls", r.Service, r.Canary, r.Stable)
	case r.Previous == "":
		return r, fmt.Errorf("rollout: undo: %s: no version before %s is known: start a release of the one that you mean", r.Service, r.Stable)
	}
	next := r
	next.Stable, next.Previous = r.Previous, r.Stable
	next.Test, next.Baseline = nil, nil
	next.Message = "undone: all calls are " + next.Stable + "'s again"
	return r.change(now, next), nil
}

func (r Release) over(what, instead string) error {
	version := r.Canary
	if version == "" {
		version = r.Stable
	}
	return fmt.Errorf("rollout: %s: %s: the release of %s is over (%s): %s", what, r.Service, version, r.Phase, instead)
}

// change returns next with the time of the change and a message about what it does now.
func (r Release) change(now time.Time, next Release) Release {
	if next.Done() == r.Done() && next.Begun && !next.Done() {
		next.Message = next.doing()
	}
	if next.Phase != r.Phase || next.Step != r.Step || next.Weight != r.Weight || next.Stable != r.Stable || next.Reason != r.Reason || next.Begun != r.Begun {
		next.Changed = now
	}
	return next
}

// abort ends the release with all calls at the stable version.
func (r Release) abort(why string) Release {
	r.Phase, r.Reason, r.Weight, r.Baseline = Degraded, "", 0, nil
	r.Message = fmt.Sprintf("%s: all calls are %s's", why, r.Stable)
	return r
}

// finish ends the release with all calls at the new version.
func (r Release) finish(why string) Release {
	r.Phase, r.Reason, r.Begun, r.Step, r.Waited, r.Away, r.Baseline = Healthy, "", true, len(r.Steps()), 0, 0, nil
	r.Previous, r.Stable, r.Canary, r.Weight = r.Stable, r.Canary, "", 0
	r.Message = fmt.Sprintf("%s is the stable version now, %s", r.Stable, why)
	return r
}

// doing is what a release in one of its steps does, and what somebody can do.
func (r Release) doing() string {
	step := r.Steps()[r.Step]
	switch {
	case r.Reason == pausedByUser:
		return "paused by hand: promote goes on, abort goes back to " + r.Stable
	case r.Reason == pausedByStep && r.Plan.BlueGreen != nil:
		return fmt.Sprintf("the preview is there: try it with the header Kaptar-Version: %s=%s, then promote or abort", r.Service, r.Canary)
	case r.Reason == pausedByStep:
		return "at a pause of the plan: promote goes on, abort goes back to " + r.Stable
	case r.Reason == pausedInconclusive:
		return r.Message
	case step.Pause != nil:
		return fmt.Sprintf("pausing for %v", step.Pause.Duration)
	}
	return "comparing with " + r.Stable
}
