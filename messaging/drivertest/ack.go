package drivertest

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// testNackRedelivers waits longer than AckWait in one of its two parts and expects less in the
// other, so that neither a driver that ignores Nack nor one that ignores the delay gets through.
func testNackRedelivers(t *testing.T, h Harness) {
	e := setup(t, h)
	e.ready("g")
	e.publish(e.msg("m", "k"))
	m := e.hold("g", driver.FromNow, 4)
	d := m.wait(1)[0]
	e.attempt(d, 1)
	start := time.Now()
	nack(t, d, 0)
	d = m.wait(2)[1]
	if took := time.Since(start); took >= h.AckWait {
		t.Errorf("Nack(0) brought the message after %v, want less than the ack wait of %v", took, h.AckWait)
	}
	delay := 2 * h.AckWait
	start = time.Now()
	nack(t, d, delay)
	last := m.wait(3)[2]
	if took := time.Since(start); took < delay {
		t.Errorf("Nack(%v) brought the message after %v already", delay, took)
	}
	e.attempt(d, 2)
	e.attempt(last, 3)
	if last.ID != "m" || string(last.Data) != "m" {
		t.Errorf("the last redelivery has id %q, data %q; want m, m", last.ID, last.Data)
	}
	e.ack(last)
}

// testNackFreesTheSlot: messages that wait for a far redelivery must not stop a group.
func testNackFreesTheSlot(t *testing.T, h Harness) {
	e := setup(t, h)
	e.ready("g")
	e.publish(e.msgs("m", 6)...)
	m := e.join(driver.Subscription{Topic: e.topic, Group: "g", From: driver.FromNow, MaxInFlight: 2}, func(d driver.Delivery) {
		nack(t, d, time.Hour)
	})
	if got := ids(m.wait(6)); !slices.Equal(got, sent(e.msgs("m", 6))) {
		t.Errorf("a member with 2 slots that nacks everything got %v, want all six", got)
	}
}

func testUnackedComesAgain(t *testing.T, h Harness) {
	e := setup(t, h)
	e.ready("g")
	e.publish(e.msg("m", "k"))
	m := e.hold("g", driver.FromNow, 1) // its only slot is taken by the message itself
	got := m.wait(2)
	e.attempt(got[1], 2)
	e.ack(got[1])
	e.ack(got[1]) // a second Ack is harmless
	e.publish(e.msg("next", "k"))
	m.until("the next message", func(got []driver.Delivery) bool { return slices.Contains(ids(got), "next") })
}

func testUnackedGoesToNewMember(t *testing.T, h Harness) {
	e := setup(t, h)
	e.ready("g")
	e.publish(e.msg("m", "k"))
	first := e.hold("g", driver.FromNow, 1)
	first.wait(1)
	first.stop()
	d := e.subscribe("g", driver.FromNow).wait(1)[0]
	e.attempt(d, 2)
}

func testExtendHoldsTheMessage(t *testing.T, h Harness) {
	e := setup(t, h)
	e.ready("g")
	e.publish(e.msg("m", "k"))
	m := e.hold("g", driver.FromNow, 2)
	d := m.wait(1)[0]
	tick := time.NewTicker(h.AckWait / 4)
	defer tick.Stop()
	for range 10 {
		<-tick.C
		if err := d.Extend(t.Context()); err != nil {
			t.Fatalf("Extend = %v, want nil", err)
		}
	}
	if got := m.wait(1); len(got) != 1 {
		t.Errorf("a message that was extended for 2.5 ack waits came %d times, want once", len(got))
	}
	e.attempt(m.wait(2)[1], 2) // Extend was no Ack
}

func testAckIsFinal(t *testing.T, h Harness) {
	e := setup(t, h)
	e.ready("g")
	m := e.subscribe("g", driver.FromNow)
	e.publish(e.msgs("m", 3)...)
	m.wait(3)
	if got := m.quiet(h.AckWait * 3 / 2); len(got) != 3 {
		t.Errorf("after its Acks the member got %v, want three deliveries", ids(got))
	}
	m.stop()
	m = e.subscribe("g", driver.FromNow)
	e.publish(e.msg("marker", "k"))
	m.wait(1)
	if got := ids(m.quiet(h.AckWait * 3 / 2)); !slices.Equal(got, []string{"marker"}) {
		t.Errorf("the next member got %v, want only the marker", got)
	}
}

func testAckAfterSubscribeReturned(t *testing.T, h Harness) {
	e := setup(t, h)
	e.ready("g")
	e.publish(e.msg("m", "k"))
	m := e.hold("g", driver.FromNow, 1)
	d := m.wait(1)[0]
	m.stop()
	e.ack(d)
	m = e.subscribe("g", driver.FromNow)
	e.publish(e.msg("marker", "k"))
	m.wait(1)
	if got := ids(m.quiet(h.AckWait * 3 / 2)); !slices.Equal(got, []string{"marker"}) {
		t.Errorf("the next member got %v, want only the marker", got)
	}
}

// testFetchedGoesBackOnStop: what a member was not given to handle comes as a first attempt or at
// least soon, not only after the ack wait, and nothing is delivered after Subscribe returned.
func testFetchedGoesBackOnStop(t *testing.T, h Harness) {
	e := setup(t, h)
	e.ready("g")
	e.publish(e.msgs("m", 20)...)
	entered, release := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	m := e.join(driver.Subscription{Topic: e.topic, Group: "g", From: driver.FromNow, MaxInFlight: 20}, func(driver.Delivery) {
		if once.CompareAndSwap(false, true) {
			close(entered)
		}
		<-release
	})
	<-entered
	m.cancel()
	start := time.Now()
	close(release)
	m.ended("its context was cancelled")
	first, _ := m.all()
	for _, d := range first {
		e.ack(d)
	}
	next := e.subscribe("g", driver.FromNow)
	got := next.wait(20 - len(first))
	if took := time.Since(start); took >= h.AckWait {
		t.Errorf("the messages left over came after %v, want less than the ack wait of %v", took, h.AckWait)
	}
	if again, _ := m.all(); len(again) != len(first) {
		t.Errorf("%d deliveries came after Subscribe returned", len(again)-len(first))
	}
	all := append(ids(first), ids(got)...)
	slices.Sort(all)
	if all = slices.Compact(all); len(all) != 20 {
		t.Errorf("both members got together %v, want all 20", all)
	}
}

func testMaxInFlight(t *testing.T, h Harness) {
	e := setup(t, h)
	e.ready("g")
	const limit, total = 3, 40
	var open, most atomic.Int64
	queue := make(chan driver.Delivery, total)
	m := e.join(driver.Subscription{Topic: e.topic, Group: "g", From: driver.FromNow, MaxInFlight: limit}, func(d driver.Delivery) {
		if n := open.Add(1); n > most.Load() {
			most.Store(n)
		}
		queue <- d
	})
	e.publish(e.msgs("m", total)...)
	m.wait(limit)
	if got := m.quiet(h.AckWait / 4); len(got) != limit {
		t.Errorf("with nothing acknowledged the member got %d messages, want %d", len(got), limit)
	}
	for range total {
		select {
		case d := <-queue:
			open.Add(-1) // before Ack, which may let the next one in
			e.ack(d)
		case <-time.After(e.h.Wait):
			t.Fatalf("waited %v for the next delivery, got %v", e.h.Wait, ids(m.got))
		}
	}
	if n := most.Load(); n > limit {
		t.Errorf("%d messages were unacknowledged at a time, want at most %d", n, limit)
	}
}

func nack(t *testing.T, d driver.Delivery, after time.Duration) {
	if err := d.Nack(context.WithoutCancel(t.Context()), after); err != nil {
		t.Errorf("Nack of %s = %v, want nil", d.ID, err)
	}
}
