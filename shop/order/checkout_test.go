package order

import (
	"fmt"
	"testing"
	"time"
)

// TestNext enumerates every step with every outcome.
func TestNext(t *testing.T) {
	t.Parallel()
	tests := []struct {
		step    step
		outcome outcome
		want    checkout // from Attempts 3, pending, Reason "why"
		wait    time.Duration
	}{
		{reserve, ok, checkout{charge, 0, pending, "why"}, 0},
		{reserve, refused, checkout{done, 0, cancelled, "no"}, 0},
		{reserve, again, checkout{reserve, 4, pending, "why"}, 1600 * time.Millisecond},
		{charge, ok, checkout{ship, 0, pending, "why"}, 0},
		{charge, refused, checkout{release, 0, pending, "no"}, 0},
		{charge, again, checkout{charge, 4, pending, "why"}, 1600 * time.Millisecond},
		{ship, ok, checkout{done, 0, confirmed, ""}, 0},
		{ship, refused, checkout{ship, 4, pending, "why"}, 1600 * time.Millisecond},
		{ship, again, checkout{ship, 4, pending, "why"}, 1600 * time.Millisecond},
		{release, ok, checkout{done, 0, cancelled, "why"}, 0},
		{release, refused, checkout{release, 4, pending, "why"}, 1600 * time.Millisecond},
		{release, again, checkout{release, 4, pending, "why"}, 1600 * time.Millisecond},
		{done, ok, checkout{done, 3, pending, "why"}, 0},
		{done, refused, checkout{done, 3, pending, "why"}, 0},
		{done, again, checkout{done, 3, pending, "why"}, 0},
	}
	for _, test := range tests {
		from := checkout{test.step, 3, pending, "why"}
		got, wait := next(from, answer{Outcome: test.outcome, Reason: "no"})
		if got != test.want || wait != test.wait {
			t.Errorf("next(%+v, outcome %d) = %+v in %v; want %+v in %v", from, test.outcome, got, wait, test.want, test.wait)
		}
	}
}

// TestNextEnds walks every sequence of answers that is possible without a step
// being repeated, and wants each to end, with the stock where it belongs.
func TestNextEnds(t *testing.T) {
	t.Parallel()
	ends := make(map[string]bool)
	var walk func(c checkout, path string)
	walk = func(c checkout, path string) {
		if len(path) > 100 {
			t.Fatalf("%s does not end", path)
		}
		if c.Step == done {
			ends[path+" "+string(c.Status)] = true
			return
		}
		for v, name := range map[outcome]string{ok: "ok", refused: "refused"} {
			after, _ := next(c, answer{Outcome: v, Reason: "no"})
			if after.Step != c.Step {
				walk(after, path+" "+string(c.Step)+":"+name)
			}
		}
	}
	walk(checkout{Step: reserve, Status: pending}, "")
	want := []string{
		" reserve:refused cancelled",
		" reserve:ok charge:ok ship:ok confirmed",
		" reserve:ok charge:refused release:ok cancelled",
	}
	if len(ends) != len(want) {
		t.Errorf("the checkout ends in %d ways, %v; want %d", len(ends), ends, len(want))
	}
	for _, w := range want {
		if !ends[w] {
			t.Errorf("no way ends as%s; there are %v", w, ends)
		}
	}
}

func TestWaits(t *testing.T) {
	t.Parallel()
	for attempts, want := range map[int]time.Duration{
		0: 200 * time.Millisecond, 1: 400 * time.Millisecond, 4: 3200 * time.Millisecond, 5: 5 * time.Second, 1000: 5 * time.Second,
	} {
		if _, got := next(checkout{Step: ship, Attempts: attempts}, answer{}); got != want {
			t.Errorf("after %d attempts the next comes in %v; want %v", attempts, got, want)
		}
	}
	for asked, want := range map[time.Duration]time.Duration{time.Second: time.Second, time.Hour: 5 * time.Second} {
		if _, got := next(checkout{Step: charge, Attempts: 7}, answer{After: asked}); got != want {
			t.Errorf("asked to come again in %v the next comes in %v; want %v", asked, got, want)
		}
	}
}

func Example_checkout() {
	c := checkout{Step: reserve, Status: pending}
	for _, a := range []answer{{Outcome: ok}, {Outcome: again, Reason: "bank is away"}, {Outcome: refused, Reason: "no money"}, {Outcome: ok}} {
		var wait time.Duration
		c, wait = next(c, a)
		fmt.Println(c.Step, c.Status, wait)
	}
	fmt.Println(c.Reason)
	// Output:
	// charge pending 0s
	// charge pending 200ms
	// release pending 0s
	// done cancelled 0s
	// no money
}
