package rollout_test

import (
	"fmt"
	"time"

	"github.com/kaptar/kaptar/rollout"
)

func ExampleNew() {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	r, err := rollout.New("user-service", "v1", "v2", rollout.Plan{}, now)
	fmt.Println(r.Phase, r.Weights(), err)
	// Output: Progressing map[v1:100] <nil>
}
