package drivertest_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/drivers/memory"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

func newHarness(*testing.T) drivertest.Harness {
	b := memory.New()
	b.AckWait = time.Second
	return drivertest.Harness{Broker: b, AckWait: b.AckWait, Ordered: true, Dedup: true}
}

// ExampleRun is the test of a driver. It has no output, since it needs a *testing.T.
func ExampleRun() {
	_ = func(t *testing.T) { // func TestConformance(t *testing.T)
		drivertest.Run(t, newHarness)
	}
}

func ExampleCases() {
	names := 0
	for _, c := range drivertest.Cases() {
		if c.Needs == nil || c.Needs(drivertest.Harness{Ordered: true, Dedup: true}) {
			names++
		}
	}
	fmt.Println("cases for a broker with order and deduplication:", names > 20)
	// Output: cases for a broker with order and deduplication: true
}

// TestNamesAreUnique: a case can be chosen by its name.
func TestNamesAreUnique(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, c := range drivertest.Cases() {
		if seen[c.Name] || c.Run == nil {
			t.Errorf("case %q is there twice or has no function", c.Name)
		}
		seen[c.Name] = true
	}
}

// TestInBubble: the suite itself waits in ways that the fake clock understands.
func TestInBubble(t *testing.T) {
	t.Parallel()
	for _, c := range drivertest.Cases() {
		if c.Name != "AckIsFinal" {
			continue
		}
		synctest.Test(t, func(t *testing.T) { c.Run(t, newHarness(t)) })
	}
}
