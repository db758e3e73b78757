package calls

import (
	"math"
	"testing"
	"time"
)

// TestMeasure measures the stacks of this package for a moment, which proves their features.
func TestMeasure(t *testing.T) {
	t.Parallel()
	stacks := Stacks()
	results, err := Measure(t.Context(), stacks, Settings{
		Rounds: 1, Slice: 20 * time.Millisecond, Workers: []int{2}, Sampling: []float64{1}, Foreign: math.Inf(1),
		Note: func(string, ...any) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != len(stacks) {
		t.Errorf("%d results, want one for each of %d stacks", len(results), len(stacks))
	}
	for _, r := range results {
		if r.Rounds != 1 || r.of[rate] <= 0 || r.of[allocs] < 1 || r.p99 < r.p50 || r.p50 <= 0 {
			t.Errorf("%s, sampling %g: %+v", r.Stack.Name, r.Sampling, r)
		}
	}
}
