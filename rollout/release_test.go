package rollout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/rollout/analysis"
)

var testTime = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a constant

// seen is an interval in which each version answered calls, of which some failed.
func seen(canary, canaryBad, stable, stableBad int) Observed {
	one := func(calls, bad int) map[string]analysis.Observation {
		all, slow := uint64(calls), uint64(calls-calls*19/20)
		return map[string]analysis.Observation{
			errorsMetric:  {Count: all, Bad: uint64(bad)},
			latencyMetric: {Histogram: []analysis.Bucket{{Lower: .01, Upper: .0104, Count: all - slow}, {Lower: .0104, Upper: .0108, Count: slow}}},
		}
	}
	return Observed{
		Elapsed: 10 * time.Second, Instances: map[string]int{"v1": 2, "v2": 1},
		Canary: one(canary, canaryBad), Stable: one(stable, stableBad),
	}
}

func start(t *testing.T, plan Plan) Release {
	t.Helper()
	r, err := New("user-service", "v1", "v2", plan, testTime)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// advance lets n intervals pass, or fewer if the release stops by itself.
func advance(r Release, n int, o Observed) Release {
	for range n {
		if r = r.Advance(testTime, o); r.Done() || r.Phase == Paused {
			break
		}
	}
	return r
}

func plan(t *testing.T, text string) Plan {
	t.Helper()
	p, err := ParsePlan("plan.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGoodCanary(t *testing.T) {
	t.Parallel()
	r := start(t, Plan{})
	weights := []int{}
	for range 400 {
		before := r.Weight
		if r = r.Advance(testTime, seen(200, 1, 2000, 10)); r.Weight != before {
			weights = append(weights, r.Weight)
		}
		if r.Done() {
			break
		}
	}
	if got, want := fmt.Sprintln(weights, r.Phase, r.Stable, r.Previous, r.Weights()), "[5 25 50 0] Healthy v2 v1 map[v1:0 v2:100]\n"; got != want {
		t.Fatalf("a good version: %s (%s), want %s", got, r.Message, want)
	}
}

func TestBadCanary(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		plan string
		good int // intervals before it fails
	}{
		"in an analysis":     {"", 1},
		"in the background":  {"canary: {steps: [setWeight: 5, pause: {}]}", 3},
		"at a later step":    {"", 8},
		"in a timed pause":   {"canary: {steps: [setWeight: 5, pause: {duration: 10h}]}", 5},
		"blue-green, active": {"blueGreen: {autoPromote: true}", 13},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, plan(t, tc.plan))
			for range tc.good {
				r = r.Advance(testTime, seen(200, 1, 2000, 10))
			}
			if r.Weight == 0 || r.Done() {
				t.Fatalf("before it fails: %s", r.line())
			}
			for range 2 {
				r = r.Advance(testTime, seen(200, 60, 2000, 10))
			}
			if r.Phase != Degraded || r.Weights()["v1"] != 100 || r.Weights()["v2"] != 0 || !strings.Contains(r.Message, "v2 is worse: errors") {
				t.Errorf("after two intervals with 30 %% of errors: %s, want Degraded, all calls at v1 and why", r.line())
			}
		})
	}
}

// TestRefusals are the releases that do not begin, or stop, each with what to do.
func TestRefusals(t *testing.T) {
	t.Parallel()
	with := func(f func(o *Observed)) Observed {
		o := seen(100, 0, 1000, 0)
		f(&o)
		return o
	}
	for name, tc := range map[string]struct {
		o     Observed
		after int
		force bool
		phase Phase
		text  string
	}{
		"stable fails":             {seen(0, 0, 1000, 300), 1, false, Degraded, "fails itself (300 of 1000 calls, maxStableErrors is 0.1): fix it first, or use --force"},
		"stable fails, with force": {seen(0, 0, 1000, 300), 1, true, Progressing, "comparing"},
		"stable fails, few calls":  {seen(0, 0, 10, 3), 1, false, Progressing, "comparing"},
		"no stable":                {with(func(o *Observed) { o.Instances = map[string]int{"v2": 1} }), 6, false, Degraded, "has no instance: start one, or use --force"},
		"no stable yet":            {with(func(o *Observed) { o.Instances = map[string]int{"v2": 1} }), 5, false, Progressing, "waiting for an instance of v1"},
		"no stable, with force":    {with(func(o *Observed) { o.Instances = map[string]int{"v2": 1} }), 5, true, Progressing, "comparing"},
		"no canary":                {with(func(o *Observed) { o.Instances = map[string]int{"v1": 1} }), 6, false, Degraded, "no instance of v2 came within 1m0s: start one and release it again"},
		"no canary yet":            {with(func(o *Observed) { o.Instances = map[string]int{"v1": 1} }), 5, false, Progressing, "waiting for an instance of v2"},
		"discovery away":           {Observed{Elapsed: time.Hour}, 9, false, Progressing, "waiting for"},
		"nothing measured":         {Observed{Elapsed: 10 * time.Second, Instances: map[string]int{"v1": 1, "v2": 1}, Missing: "it answers 403"}, 6, false, Degraded, "nothing could be measured: it answers 403"},
		"no calls":                 {seen(0, 0, 0, 0), 62, false, Paused, "no call reached v2 at 5 %, send it some (of a few users, who keep their version, it may have none): promote goes on, abort goes back to v1"},
		"too few calls":            {seen(0, 0, 1000, 0), 62, false, Paused, "no call reached v2"},
		"canary gone":              {with(func(o *Observed) { o.Instances = map[string]int{"v1": 1} }), -2, false, Degraded, "v2 has no instance any more"},
		"canary restarts":          {with(func(o *Observed) { o.Instances = map[string]int{"v1": 1} }), -1, false, Progressing, "comparing"},
		"stable gone":              {with(func(o *Observed) { o.Instances = map[string]int{"v2": 1} }), -2, false, Paused, "v1 has no instance any more: start it, then promote goes on; promote --full"},
		"discovery away in a step": {Observed{Elapsed: time.Hour}, -2, false, Paused, "not sure after 10m0s"},
		"measuring away in a step": {Observed{Elapsed: time.Minute, Instances: map[string]int{"v1": 1, "v2": 1}}, -9, false, Progressing, "comparing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, Plan{})
			r.Force = tc.force
			n := tc.after
			if n < 0 { // after it has begun
				r = r.Advance(testTime, seen(1, 0, 1, 0))
				n = -n
			}
			r = advance(r, n, tc.o)
			if r.Phase != tc.phase || !strings.Contains(r.Message, tc.text) {
				t.Errorf("after %d intervals: %s\nwant %s and %q", n, r.line(), tc.phase, tc.text)
			}
			if r.Phase == Degraded && r.Weights()["v1"] != 100 {
				t.Errorf("weights %v", r.Weights())
			}
		})
	}
}

func TestBlueGreen(t *testing.T) {
	t.Parallel()
	o := seen(2000, 10, 2000, 10)
	r := advance(start(t, plan(t, "blueGreen: {}")), 20, o)
	if r.Phase != Paused || r.Weight != 0 || !strings.Contains(r.Message, "Kaptar-Version: user-service=v2") {
		t.Fatalf("before the switch: %s", r.line())
	}
	for range 20 {
		r = r.Advance(testTime, o)
	}
	if n := len(r.Baseline); n != maxBaseline {
		t.Fatalf("%d intervals of v1 are kept, want %d", n, maxBaseline)
	}
	r, err := r.Promote(testTime, false)
	if err != nil || r.Phase != Progressing || r.Weight != 100 || r.Stable != "v1" {
		t.Fatalf("after the switch: %v, %s", err, r.line())
	}
	healthy := advance(r, 50, seen(2000, 10, 0, 0))
	if healthy.Phase != Healthy || healthy.Stable != "v2" {
		t.Errorf("a good version: %s, want Healthy", healthy.line())
	}
	back, err := r.Undo(testTime)
	if err != nil || back.Phase != Degraded || back.Weights()["v1"] != 100 {
		t.Errorf("undo after the switch: %v, %s", err, back.line())
	}
	unsure := advance(r, 50, seen(40, 0, 0, 0))
	if unsure.Phase != Paused || !strings.Contains(unsure.Message, "not sure after all that was measured of v1 before the switch") || unsure.Weight != 100 {
		t.Errorf("few calls: %s, want a pause", unsure.line())
	}
	done, err := unsure.Promote(testTime, false)
	if err != nil || done.Phase != Healthy {
		t.Errorf("promoted all the same: %v, %s", err, done.line())
	}
}

// TestCommandsInEachPhase tries every command in every phase; the error says what to do instead.
func TestCommandsInEachPhase(t *testing.T) {
	t.Parallel()
	o := seen(10, 0, 10, 0)
	waiting := start(t, plan(t, "canary: {steps: [setWeight: 5, pause: {}, setWeight: 50, analysis: {}]}"))
	atPause := waiting.Advance(testTime, o)
	going, err := atPause.Promote(testTime, false)
	if err != nil || going.Weight != 50 {
		t.Fatal(err, going.line())
	}
	byHand, _ := going.Pause(testTime)
	unsure := advance(going, 61, o)
	healthy, _ := going.Promote(testTime, true)
	degraded, _ := going.Abort(testTime, "")
	undone, _ := healthy.Undo(testTime)
	for name, tc := range map[string]struct {
		r                                   Release
		promote, full, pause, abort, undone string // phase and weight of v2 in per cent, or a part of the error
	}{
		"waiting":      {waiting, "has not begun", "Healthy 100", "has not begun", "Degraded 0", "Degraded 0"},
		"at a pause":   {atPause, "Progressing 50", "Healthy 100", "paused already", "Degraded 0", "Degraded 0"},
		"going":        {going, "goes on by itself", "Healthy 100", "Paused 50", "Degraded 0", "Degraded 0"},
		"by hand":      {byHand, "Progressing 50", "Healthy 100", "paused already", "Degraded 0", "Degraded 0"},
		"inconclusive": {unsure, "Healthy 100", "Healthy 100", "paused already", "Degraded 0", "Degraded 0"},
		"healthy":      {healthy, "is over (Healthy): start", "is over", "is over", "undo goes back", "Healthy 0"},
		"degraded":     {degraded, "is over (Degraded): start", "is over", "is over", "undo goes back", "taken back already"},
		"undone":       {undone, "is over", "is over", "is over", "is over", "Healthy 100"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before, _ := json.Marshal(tc.r)
			check := func(what, want string, f func() (Release, error)) {
				next, err := f()
				got := fmt.Sprintf("%s %d", next.Phase, next.Weights()["v2"])
				if err != nil {
					got = err.Error()
				}
				if got != want && (err == nil || !strings.Contains(got, want)) {
					t.Errorf("%s: %s, want %s", what, got, want)
				}
			}
			check("promote", tc.promote, func() (Release, error) { return tc.r.Promote(testTime, false) })
			check("promote --full", tc.full, func() (Release, error) { return tc.r.Promote(testTime, true) })
			check("pause", tc.pause, func() (Release, error) { return tc.r.Pause(testTime) })
			check("abort", tc.abort, func() (Release, error) { return tc.r.Abort(testTime, "") })
			check("undo", tc.undone, func() (Release, error) { return tc.r.Undo(testTime) })
			if after, _ := json.Marshal(tc.r); !bytes.Equal(before, after) {
				t.Errorf("a method has changed its receiver:\n%s\n%s", before, after)
			}
		})
	}
}

func TestPausedByHandIsStillMeasured(t *testing.T) {
	t.Parallel()
	r, err := advance(start(t, Plan{}), 2, seen(100, 0, 1000, 0)).Pause(testTime)
	if err != nil {
		t.Fatal(err)
	}
	waited := r.Waited
	if r = r.Advance(testTime, seen(10, 0, 100, 0)); r.Phase != Paused || r.Waited != waited {
		t.Errorf("while paused: %s, waited %v, want Paused and %v", r.line(), r.Waited, waited)
	}
	if r = advance(r, 1, seen(100, 60, 1000, 0)); r.Phase == Paused {
		r = r.Advance(testTime, seen(100, 60, 1000, 0))
	}
	if r.Phase != Degraded {
		t.Errorf("a bad version while paused: %s, want Degraded", r.line())
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ service, stable, version, want string }{
		{"a", "v1", "v1", "v1 is the stable version already"},
		{"a", "v1+x", "v1_x", "is the stable version already"},
		{"a", "", "v1", "expected a stable version"},
		{"", "v1", "v2", "expected a service and a version"},
		{"a", "v1", "", "expected a service and a version"},
	} {
		if _, err := New(tc.service, tc.stable, tc.version, Plan{}, testTime); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("New(%q, %q, %q): %v, want %q", tc.service, tc.stable, tc.version, err, tc.want)
		}
	}
}

// FuzzRelease takes a release through any sequence of events and looks whether what must always hold
// does.
func FuzzRelease(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, []byte("aaaaaaaaaaaapaaaaaaaabaaacccpaaaaaaaaaaaaufgh"))
		f.Add(seed, []byte("aPaQaRaSaTaUaVaWaXaaaaaaaaaaaa"))
	}
	f.Fuzz(func(t *testing.T, seed uint64, events []byte) {
		random := rand.New(rand.NewPCG(seed, 0))
		r := start(t, somePlan(random))
		now := testTime
		for _, e := range events[:min(len(events), 300)] {
			now = now.Add(time.Duration(random.IntN(60)-20) * time.Second) // clocks also go back
			before := r
			was, _ := json.Marshal(before)
			r = event(r, now, e, random)
			if is, _ := json.Marshal(before); !bytes.Equal(was, is) {
				t.Fatalf("event %q has changed the state before it:\n%s\n%s", e, was, is)
			}
			holds(t, before, r, e)
			text, err := encode(r)
			if err != nil {
				t.Fatal(err)
			}
			again, err := decode(text)
			if err != nil {
				t.Fatalf("after event %q: %v\n%s", e, err, text)
			}
			if second, _ := encode(again); !bytes.Equal(text, second) {
				t.Fatalf("JSON of the state is another one after a round trip:\n%s\n%s", text, second)
			}
			r = again // each step as if another controller did it
		}
	})
}

func somePlan(random *rand.Rand) (p Plan) {
	if random.IntN(3) == 0 {
		return Plan{BlueGreen: &BlueGreen{AutoPromote: random.IntN(2) == 0}, Events: EventsShare}
	}
	p.Canary = new(Canary)
	for weight := 1 + random.IntN(30); weight <= 100; weight += 1 + random.IntN(60) {
		p.Canary.Steps = append(p.Canary.Steps, Step{SetWeight: &weight})
		if random.IntN(2) == 0 {
			p.Canary.Steps = append(p.Canary.Steps, Step{Pause: &Pause{Duration: Duration(random.IntN(3)) * Duration(time.Minute)}})
		}
		if weight < 100 {
			p.Canary.Steps = append(p.Canary.Steps, Step{Analysis: &StepAnalysis{Timeout: Duration(random.IntN(3)) * Duration(time.Minute)}})
		}
	}
	return p
}

func event(r Release, now time.Time, e byte, random *rand.Rand) Release {
	var next Release
	var err error
	switch e % 16 {
	case 0:
		next, err = r.Promote(now, false)
	case 1:
		next, err = r.Pause(now)
	case 2:
		next, err = r.Undo(now)
	case 3:
		next, err = r.Abort(now, "")
	case 4:
		next, err = r.Promote(now, true)
	case 5:
		o := seen(random.IntN(2000), 0, random.IntN(2000), 0)
		o.Instances = map[string]int{"v1": random.IntN(2), "v2": random.IntN(2)}
		return r.Advance(now, o)
	case 6:
		return r.Advance(now, Observed{Elapsed: time.Duration(random.IntN(1000)) * time.Second})
	case 7:
		n := random.IntN(2000)
		return r.Advance(now, seen(n, random.IntN(n+1), 1000, 10))
	default:
		return r.Advance(now, seen(random.IntN(2000), 0, random.IntN(2000), 0))
	}
	if err != nil {
		return r
	}
	return next
}

// holds checks what is true of every state, and of every change of one.
func holds(t *testing.T, before, r Release, e byte) {
	t.Helper()
	sum := 0
	for _, weight := range r.Weights() {
		sum += weight
	}
	switch {
	case sum != 100 || len(r.Weights()) > 2:
		t.Fatalf("event %q: weights %v, want 100 in all, of two versions", e, r.Weights())
	case r.Stable == "" || r.Stable == r.Canary:
		t.Fatalf("event %q: stable %q, canary %q", e, r.Stable, r.Canary)
	case r.Done() && r.Weights()[r.Stable] != 100:
		t.Fatalf("event %q: %s with weights %v, want all at %s", e, r.Phase, r.Weights(), r.Stable)
	case r.Phase == Healthy && r.Canary != "" || r.Phase == Degraded && r.Stable != "v1":
		t.Fatalf("event %q: %s", e, r.line())
	case before.Done() && e%16 != 2 && r.Phase != before.Phase:
		t.Fatalf("event %q: from %s to %s, but it was over", e, before.Phase, r.Phase)
	case !r.Done() && r.Weight < before.Weight || !r.Done() && r.Step < before.Step:
		t.Fatalf("event %q: back from %s to %s", e, before.line(), r.line())
	case r.Message == "" || r.line() == "":
		t.Fatalf("event %q: no message", e)
	}
	if text := table(r, false); text == "" {
		t.Fatal("no table")
	}
}

// TestClocks lets the clocks of the controllers be anywhere: time is counted, not compared.
func TestClocks(t *testing.T) {
	t.Parallel()
	r := start(t, plan(t, "canary: {steps: [setWeight: 5, pause: {duration: 1m}]}"))
	r = r.Advance(testTime, seen(1, 0, 1, 0))
	for i := range 5 {
		r = r.Advance(testTime.Add(time.Duration(1-2*(i%2))*1000*time.Hour), seen(1, 0, 1, 0))
		if r.Done() {
			t.Fatalf("the pause of 1m has ended after %d s", 10*(i+1))
		}
	}
	if r = r.Advance(testTime, seen(1, 0, 1, 0)); r.Phase != Healthy {
		t.Errorf("after 1m: %s, want Healthy", r.line())
	}
}
