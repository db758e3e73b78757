package drivertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

func testCancelEndsSubscribe(t *testing.T, h Harness) {
	e := setup(t, h)
	m := e.subscribe("g", driver.FromNow)
	m.probe()
	start := time.Now()
	m.stop()
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("Subscribe took %v to return after its context was cancelled, want about none", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	sub := driver.Subscription{Topic: e.topic, Group: "g", From: driver.FromNow}
	if err := h.Broker.Subscribe(ctx, sub, func(d driver.Delivery) { t.Errorf("delivery of %s to a cancelled Subscribe", d.ID) }); err != nil {
		t.Errorf("Subscribe with a cancelled context = %v, want nil", err)
	}
}

func testCloseEndsAll(t *testing.T, h Harness) {
	e := setup(t, h)
	a, b := e.subscribe("a", driver.FromNow), e.subscribe("b", driver.FromNow)
	a.probe()
	b.probe()
	e.close(h.Broker)
	a.ended("Close")
	b.ended("Close")
	e.close(h.Broker)
	sub := driver.Subscription{Topic: e.topic, Group: "a", From: driver.FromNow}
	for name, err := range map[string]error{
		"Declare":   h.Broker.Declare(t.Context(), driver.Subscription{Topic: e.topic}),
		"Publish":   h.Broker.Publish(t.Context(), e.msgs("m", 1)),
		"Publish30": h.Broker.Publish(t.Context(), e.msgs("m", 30)),
		"Subscribe": h.Broker.Subscribe(t.Context(), sub, func(driver.Delivery) {}),
	} {
		if !errors.Is(err, driver.ErrClosed) {
			t.Errorf("%s after Close = %v, want driver.ErrClosed", name, err)
		}
	}
}

// testNoGoroutineLeft marks all goroutines that come from opening and using a connection by a
// profiler label, which they hand down, and looks for the mark after Close.
func testNoGoroutineLeft(t *testing.T, h Harness) {
	e := setup(t, h)
	mark := rand.Text()
	pprof.Do(t.Context(), pprof.Labels("drivertest", mark), func(context.Context) {
		e.h.Broker = h.Open(t)
		m := e.subscribe("g", driver.FromNow)
		m.probe()
		e.publish(e.msgs("m", 30)...)
		m.wait(30)
		stays := e.hold("h", driver.FromNow, 0)
		stays.probe()
		m.stop()
		e.close(e.h.Broker)
		stays.ended("Close")
	})
	deadline, tick := time.After(h.Wait+10*time.Second), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		left := marked(mark)
		if left == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("goroutines left after Close:\n%s", left)
		}
	}
}

// marked returns the stacks of the goroutines with a label.
func marked(mark string) string {
	var buf bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&buf, 1); err != nil {
		return err.Error()
	}
	var out []string
	for block := range strings.SplitSeq(buf.String(), "\n\n") {
		if strings.Contains(block, mark) {
			out = append(out, block)
		}
	}
	return strings.Join(out, "\n\n")
}

// testRestartLosesNothing publishes, restarts the server twice in the middle and expects every
// message whose Publish returned nil. A publisher that gets an error tries again with the same ids,
// as the outbox does.
func testRestartLosesNothing(t *testing.T, h Harness) {
	e := setup(t, h)
	e.ready("g")
	try := func(d driver.Delivery) { // an Ack may fail meanwhile: then the message comes again
		if err := d.Ack(context.WithoutCancel(t.Context())); err != nil {
			t.Logf("Ack of %s: %v", d.ID, err)
		}
	}
	m := e.join(driver.Subscription{Topic: e.topic, Group: "g", From: driver.FromNow}, try)
	var want []string
	publish := func(round int) {
		for _, size := range []int{1, 3, 20} {
			batch := e.msgs(fmt.Sprintf("r%d-%d-", round, size), size)
			e.insist(batch)
			want = append(want, sent(batch)...)
		}
	}
	publish(0)
	m.wait(len(want)) // the member has joined: whether a server that dies in the middle of that is waited for is another question
	for round := 1; round <= 2; round++ {
		restarted, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for n := 0; ; n++ {
				publish(1000*round + n)
				select {
				case <-restarted:
					publish(1000*round + n + 1)
					return
				default:
				}
			}
		}()
		h.Restart(t)
		close(restarted)
		<-done
	}
	missing := func(got []driver.Delivery) []string {
		have := ids(got)
		return slices.DeleteFunc(slices.Clone(want), func(id string) bool { return slices.Contains(have, id) })
	}
	got := m.until("all messages around two restarts", func(got []driver.Delivery) bool { return len(missing(got)) == 0 })
	t.Logf("%d messages, %d deliveries around two restarts", len(want), len(genuine(got)))
	m.stop()
	next := e.subscribe("g", driver.FromNow)
	e.insist(e.msgs("marker", 1))
	next.until("the marker", func(got []driver.Delivery) bool { return slices.Contains(ids(got), "marker0") })
}

// insist publishes until it works.
func (e *env) insist(batch []driver.Message) {
	ctx, cancel := context.WithTimeout(e.t.Context(), e.h.Wait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := e.h.Broker.Publish(ctx, batch)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			e.t.Errorf("Publish still fails after %v: %v", e.h.Wait, err)
			return
		}
	}
}
