package rollout_test

import (
	"fmt"
	"time"

	"github.com/kaptar/kaptar/rollout"
	"github.com/kaptar/kaptar/rollout/analysis"
)

func Example() {
	plan, err := rollout.ParsePlan("plan.yml", []byte(`
canary:
  steps:
    - setWeight: 5
    - pause: {duration: 1m}
    - setWeight: 50
    - pause: {}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	r, err := rollout.New("user-service", "v1", "v2", plan, now)
	fmt.Println(r.Phase, r.Weights(), err)

	// What a controller does when both versions are there and nothing fails.
	seen := rollout.Observed{Elapsed: 10 * time.Second, Instances: map[string]int{"v1": 3, "v2": 1}, Stable: map[string]analysis.Observation{}}
	r = r.Advance(now, seen)
	fmt.Println(r.Phase, r.Weights(), r.Message)
	for range 6 {
		r = r.Advance(now, seen)
	}
	fmt.Println(r.Phase, r.Weights(), r.Message)

	r, err = r.Promote(now, false)
	fmt.Println(r.Phase, r.Weights(), err)
	r, err = r.Undo(now)
	fmt.Println(r.Phase, r.Weights(), err)
	// Output:
	// Progressing map[v1:100 v2:0] <nil>
	// Progressing map[v1:95 v2:5] pausing for 1m0s
	// Paused map[v1:50 v2:50] at a pause of the plan: promote goes on, abort goes back to v1
	// Healthy map[v1:0 v2:100] <nil>
	// Healthy map[v1:100 v2:0] <nil>
}
