package rollout

import (
	"errors"
	"time"
)

// A Phase is where a release is.
type Phase string

// The phases, as Argo Rollouts names them. Paused is a release that waits for somebody, unlike one whose
// pause has a duration.
const (
	Progressing Phase = "Progressing"
	Paused      Phase = "Paused"
	Healthy     Phase = "Healthy"  // it is over: the new version is the stable one
	Degraded    Phase = "Degraded" // it is over: the calls are the old version's again
)

// A Release is the state of a service's last or current release, as it stands in the store. Its methods
// are pure and return the state that follows.
type Release struct {
	Service string `json:"service"`
	// Stable is the version that the others are compared with, and that stays when a release is aborted.
	Stable string `json:"stable"`
	// Canary is the version that is being released, or whose release was aborted; "" when all are
	// done. In a blue-green release it is the preview, and active once its weight is 100.
	Canary string `json:"canary,omitempty"`
	// Previous is the stable version before this one, for Undo.
	Previous string `json:"previous,omitempty"`
	Plan     Plan   `json:"plan"`

	Phase Phase `json:"phase"`
	// Begun tells that both versions were found and the first step was taken.
	Begun bool `json:"begun,omitempty"`
	// Step is the index of the current step in Steps, and their number when all have been taken.
	Step int `json:"step"`
	// Weight is the share of Canary in per cent.
	Weight int `json:"weight"`
	// Waited is how long the current step has taken, as controllers have measured it: no clocks of
	// different machines are compared.
	Waited Duration `json:"waited,omitempty"`
	// Message says why the release is where it is, and what to do.
	Message string    `json:"message,omitempty"`
	Started time.Time `json:"started"`
	Changed time.Time `json:"changed"` // of the last change but of numbers
}

// Observed is what a controller has seen since it last advanced a release.
type Observed struct {
	// Elapsed is the time since then by the controller's own clock.
	Elapsed time.Duration
	// Instances are how many discovery lists, by version.
	Instances map[string]int
}

// New returns a release of version at its beginning. stable is the version that has the calls.
func New(service, stable, version string, plan Plan, now time.Time) (Release, error) {
	return Release{Service: service, Stable: stable, Canary: version, Plan: plan, Phase: Progressing, Started: now, Changed: now}, nil
}

// Steps are those of the plan; of a blue-green release: a pause, all calls, an analysis.
func (r Release) Steps() []Step { return nil }

// Done reports whether the release is over: Healthy or Degraded.
func (r Release) Done() bool { return r.Phase == Healthy || r.Phase == Degraded }

// Weights are the shares of the versions in per cent: 100 in all.
func (r Release) Weights() map[string]int { return map[string]int{r.Stable: 100} }

// Advance returns the release after what was observed.
func (r Release) Advance(now time.Time, o Observed) Release { return r }

// Promote goes on: past the pause that the release is in, or in the step in which it was paused. With
// full it skips all steps and analyses.
func (r Release) Promote(now time.Time, full bool) (Release, error) { return r, errors.ErrUnsupported }

// Pause stops the release where it is until somebody promotes it. Its analysis goes on.
func (r Release) Pause(now time.Time) (Release, error) { return r, errors.ErrUnsupported }

// Abort gives all calls back to the stable version.
func (r Release) Abort(now time.Time, why string) (Release, error) { return r, errors.ErrUnsupported }

// Undo makes the previous version the stable one again, at once; while a release goes on it is Abort.
func (r Release) Undo(now time.Time) (Release, error) { return r, errors.ErrUnsupported }
