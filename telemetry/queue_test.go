package telemetry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestQueueFails: what a collector does not take is counted, and Shutdown says what was still to be sent.
func TestQueueFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		q := newQueue("spans", time.Minute, reg, func(context.Context, []int) error { return errors.New("refused") })
		failed := func() (n float64) {
			t.Helper()
			synctest.Wait()
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range families[0].Metric {
				if m.Label[0].GetValue() == "export_failed" {
					n = m.Counter.GetValue()
				}
			}
			return n
		}
		for i := range 600 {
			q.put(i)
		}
		if got := failed(); got != batchLen {
			t.Errorf("%v are counted, want the first batch of %d", got, batchLen)
		}
		if err := q.shutdown(t.Context()); err == nil || err.Error() != "88 spans not sent: refused" {
			t.Errorf("shutdown = %v, want that 88 spans were not sent", err)
		}
		if got := failed(); got != 600 {
			t.Errorf("%v are counted, want all 600", got)
		}
	})
}

// TestQueueIsCut: a batch that is under way when Shutdown begins is among what it says was not sent.
func TestQueueIsCut(t *testing.T) {
	t.Parallel()
	for later, want := range []string{"2 spans not sent: context canceled", "3 spans not sent: context canceled"} {
		synctest.Test(t, func(t *testing.T) {
			q := newQueue("spans", time.Minute, prometheus.NewRegistry(), func(ctx context.Context, _ []int) error {
				<-ctx.Done()
				return context.Cause(ctx)
			})
			q.put(0)
			q.put(1)
			time.Sleep(batchInterval + time.Millisecond)
			for i := range later {
				q.put(i)
			}
			if err := q.shutdown(t.Context()); err == nil || err.Error() != want {
				t.Errorf("shutdown = %v, want %s", err, want)
			}
		})
	}
}
