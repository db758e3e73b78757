package saga

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// order is a plan with all kinds of steps: reserve (undo), note (none), charge (pivot), ship.
func order() *plan {
	return &plan{
		name: "order", steps: []planned{{"reserve", true}, {"note", false}, {"charge", false}, {"ship", false}},
		pivot: 2, backoff: 100 * time.Millisecond, maxBackoff: time.Second,
	}
}

func (p position) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %d %s", p.Status, p.Step, p.Attempts, p.Reason))
}

// TestNext enumerates every status and step with every outcome.
func TestNext(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ from, done, refused, failed string }{
		{"running reserve", "running note 0", "compensated  0 no", "running reserve 4"},
		{"running note", "running charge 0", "compensating reserve 0 no", "running note 4"},
		{"running charge", "running ship 0", "compensating reserve 0 no", "running charge 4"},
		{"running ship", "completed  0", "running ship 4", "running ship 4"},
		{"cancelling reserve why", "compensating reserve 0 why", "compensated  0 why", "cancelling reserve 4 why"},
		{"cancelling note why", "compensating reserve 0 why", "compensating reserve 0 why", "cancelling note 4 why"},
		{"compensating reserve why", "compensated  0 why", "compensating reserve 4 why", "compensating reserve 4 why"},
		{"running unknown", "running unknown 4", "running unknown 4", "running unknown 4"},
		{"completed", "completed  3", "completed  3", "completed  3"},
		{"compensated", "compensated  3", "compensated  3", "compensated  3"},
	} {
		words := append(strings.Fields(tc.from), "", "")
		from := position{Status: Status(words[0]), Step: words[1], Reason: words[2], Attempts: 3}
		for outcome, want := range map[outcome]string{done: tc.done, refused: tc.refused, failed: tc.failed} {
			got, wait := order().next(from, answer{outcome: outcome, text: "no"})
			if got.String() != want {
				t.Errorf("%s after outcome %d: %s, want %s", tc.from, outcome, got, want)
			}
			if again := got.Attempts == 4; again != (wait > 0) || wait > time.Second || again && got.Error != "no" {
				t.Errorf("%s after outcome %d: wait %v, error %q", tc.from, outcome, wait, got.Error)
			}
		}
	}
}

func TestWaits(t *testing.T) {
	t.Parallel()
	p := order()
	for attempts, most := range map[int]time.Duration{0: 100 * time.Millisecond, 2: 400 * time.Millisecond, 4: time.Second, 1000: time.Second} {
		_, got := p.next(position{Status: Running, Step: "ship", Attempts: attempts}, answer{})
		if got < most/2 || got > most {
			t.Errorf("after %d attempts the next comes in %v, want between half of %v and all of it", attempts, got, most)
		}
	}
	for asked, want := range map[time.Duration]time.Duration{30 * time.Second: 30 * time.Second, 48 * time.Hour: time.Hour} {
		a := answerOf(fmt.Errorf("step: %w", After(asked, errors.New("busy"))))
		if _, got := p.next(position{Status: Running, Step: "ship", Attempts: 7}, a); got != want || !strings.HasPrefix(a.text, "step: busy") {
			t.Errorf("asked to come again in %v: %v %q, want %v", asked, got, a.text, want)
		}
	}
}

func TestCancelPosition(t *testing.T) {
	t.Parallel()
	for from, want := range map[string]string{
		"running reserve": "cancelling reserve 0 why", "running note": "cancelling note 0 why",
		"running charge": "its pivot charge may be done already, so it can only go on", "running ship": "it is past its pivot, so it can only go on",
		"cancelling note": "it is being taken back already", "compensating reserve": "it is being taken back already",
		"completed ": "it is over", "compensated ": "it is over", "running unknown": "its step is unknown here",
	} {
		status, step, _ := strings.Cut(from, " ")
		at, err := order().cancel(position{Status: Status(status), Step: step}, "why")
		got := at.String()
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("cancel of %s: %s, want %s", from, got, want)
		}
	}
}

func TestPlain(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"a\x00b": "a\uFFFDb", "\xff": "\uFFFD", strings.Repeat("é", 600): strings.Repeat("é", 500) + "…"} {
		if got := plain(text); got != want {
			t.Errorf("plain(%q) = %q, want %q", text, got, want)
		}
	}
}

// A world is what the steps of a simulated saga have done, seen from outside.
type world struct {
	p    *plan
	done []string // and not undone
	log  []string
}

// apply has the effect of an answer: a step that is done may not be done again, but for a repetition,
// and what is undone must be the last one that can be.
func (w *world) apply(at position, a answer) error {
	w.log = append(w.log, fmt.Sprintf("%s: %d", at, a.outcome))
	if a.outcome != done {
		return nil
	}
	if at.Status != Compensating {
		if slices.Contains(w.done, at.Step) {
			return fmt.Errorf("%s is done twice", at.Step)
		}
		w.done = append(w.done, at.Step)
		return nil
	}
	last := ""
	for _, s := range w.done {
		if w.p.steps[w.p.index(s)].undo {
			last = s
		}
	}
	if last != at.Step {
		return fmt.Errorf("%s is undone, the last one done is %q", at.Step, last)
	}
	w.done = slices.DeleteFunc(w.done, func(s string) bool { return s == at.Step })
	return nil
}

// simulate takes a saga with a random plan through random answers, cancels and late answers to its
// end, and says what was wrong.
func simulate(seed uint64) error {
	rnd := rand.New(rand.NewPCG(seed, 12))
	p := &plan{backoff: 1, maxBackoff: 1}
	n := 1 + rnd.IntN(6)
	p.pivot = rnd.IntN(n + 1) // n: none
	for i := range n {
		p.steps = append(p.steps, planned{fmt.Sprint("s", i), i < p.pivot && rnd.IntN(3) > 0})
	}
	w := &world{p: p}
	at := position{Status: Running, Step: "s0"}
	pastPivot := false
	for moves := 0; !at.Status.over(); moves++ {
		if moves > 1000 {
			return fmt.Errorf("does not end: %v", w.log)
		}
		if rnd.IntN(10) == 0 {
			to, err := p.cancel(at, "why")
			if err == nil && (at.Status != Running || p.index(at.Step) >= p.pivot) {
				return fmt.Errorf("cancelled at %s", at)
			}
			at = to
		}
		a := answer{outcome: outcome(rnd.IntN(3)), text: "no"}
		if err := w.apply(at, a); err != nil {
			return fmt.Errorf("%w: %v", err, w.log)
		}
		next, wait := p.next(at, a)
		if (next.Attempts == at.Attempts+1) != (wait > 0) {
			return fmt.Errorf("%s waits %v: %v", next, wait, w.log)
		}
		if pastPivot && next.Status != Running && next.Status != Completed {
			return fmt.Errorf("%s past the pivot: %v", next, w.log)
		}
		pastPivot = pastPivot || a.outcome == done && at.Status == Running && p.index(at.Step) == p.pivot
		at = next
	}
	if late, _ := p.next(at, answer{outcome: outcome(rnd.IntN(3))}); late != at {
		return fmt.Errorf("a late answer moved %s to %s", at, late)
	}
	undone := slices.DeleteFunc(slices.Clone(w.done), func(s string) bool { return !p.steps[p.index(s)].undo })
	switch {
	case at.Status == Completed && len(w.done) != n:
		return fmt.Errorf("completed with %v of %d steps: %v", w.done, n, w.log)
	case at.Status == Compensated && (len(undone) > 0 || pastPivot || at.Reason == ""):
		return fmt.Errorf("compensated because of %q with %v not undone: %v", at.Reason, undone, w.log)
	}
	return nil
}

func TestSimulation(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20_000) {
		if err := simulate(seed); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func FuzzNext(f *testing.F) {
	for seed := range uint64(10) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		if err := simulate(seed); err != nil {
			t.Error(err)
		}
	})
}
