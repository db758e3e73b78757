package transport

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestObservingLeavesInstancesAlone: reading the state and the metrics is no call, and does not keep
// a target from being forgotten.
func TestObservingLeavesInstancesAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		m.set("a:80", "down")
		tel := newTelemetry(t, io.Discard)
		tr := over(t, Options{Resolver: listed("a", "b", "c"), Base: m, Telemetry: tel}, nil)
		for range 60 {
			_, _ = do(t, tr, http.MethodPost, orders, nil)
		}
		tg := tr.byName["order-service"]
		seen := func() (text string) {
			for _, in := range tg.instances() {
				text += fmt.Sprintln(in.ID, in.inFlight.Load(), in.peak.Load(), in.usual.Load(), in.heard.Load(), in.failures.Load(), in.ejected.Load())
			}
			return text + fmt.Sprint(tg.breaker.failures, tg.pool.Load())
		}
		before := seen()
		for range 100 {
			_ = tr.State("order-service")
			if _, err := tel.Registry().Gather(); err != nil {
				t.Fatal(err)
			}
		}
		if after := seen(); after != before {
			t.Errorf("state was\n%s\nand is, after nothing but looking at it,\n%s", before, after)
		}
		for range 3 * 60 {
			_ = tr.State("order-service")
			_, _ = tel.Registry().Gather()
			time.Sleep(10 * time.Second)
		}
		if tr.byName["order-service"] != nil {
			t.Error("a target that is only looked at is not forgotten")
		}
	})
}
