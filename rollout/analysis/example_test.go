package analysis_test

import (
	"fmt"

	"github.com/kaptar/kaptar/rollout/analysis"
)

// A canary with 5 % of the calls and an error more in ten, looked at after each interval.
func Example() {
	test, err := analysis.New([]analysis.Metric{{Name: "errors"}}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 4 {
		canary := map[string]analysis.Observation{"errors": {Count: 20, Bad: 2}}
		stable := map[string]analysis.Observation{"errors": {Count: 380, Bad: 4}}
		if err := test.Add(canary, stable); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(test.Result())
	}
	// Output:
	// Running after 1 intervals
	//   errors Running: canary 10 % of 20 calls, stable 1.05 % of 380, limit 2.05 %; worse 1 of 100, within 1 of 100; missing: 10 more calls of the canary
	// Running after 2 intervals
	//   errors Running: canary 10 % of 40 calls, stable 1.05 % of 760, limit 2.05 %; worse 4.68 of 100, within 1 of 100; missing: evidence for either
	// Running after 3 intervals
	//   errors Running: canary 10 % of 60 calls, stable 1.05 % of 1140, limit 2.05 %; worse 37.6 of 100, within 1 of 100; missing: evidence for either
	// Failed after 4 intervals
	//   errors Failed: canary 10 % of 80 calls, stable 1.05 % of 1520, limit 2.05 %; worse 370 of 100, within 1 of 100
}
