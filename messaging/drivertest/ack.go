package drivertest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// testNackRedelivers waits longer than AckWait in one of its two parts and expects less in the
// other, so that neither a driver that ignores Nack nor one that ignores the delay gets through. A
// machine that stands still makes one of three rounds long, a driver that ignores Nack all.
func testNackRedelivers(e *env) {
	m, d := e.held(4)
	e.attempt(d, 1)
	n, quickest := 1, time.Duration(1<<62)
	for ; n < 4 && quickest >= e.AckWait; n++ {
		start := time.Now()
		e.nack(d, 0)
		d = m.wait(n + 1)[n]
		quickest = min(quickest, time.Since(start))
	}
	if quickest >= e.AckWait {
		e.Errorf("Nack(0) brought the message after %v, want less than the ack wait of %v", quickest, e.AckWait)
	}
	delay := 2 * e.AckWait
	start := time.Now()
	e.nack(d, delay)
	last := m.wait(n + 1)[n]
	if took := time.Since(start); took < delay {
		e.Errorf("Nack(%v) brought the message after %v already", delay, took)
	}
	e.attempt(d, n)
	e.attempt(last, n+1)
	if last.ID != "m" || string(last.Data) != "m" {
		e.Errorf("the last redelivery has id %q, data %q; want m, m", last.ID, last.Data)
	}
	e.ack(last)
}

// testNackGoesOn: messages that wait for a redelivery do not stop a group for longer than that.
func testNackGoesOn(e *env) {
	all := e.send("m", 6)
	m := e.take("g", 2, func(d driver.Delivery) {
		if d.Attempt == 1 {
			e.nack(d, 200*time.Millisecond)
		} else {
			e.ack(d)
		}
	})
	m.until("all messages from a member with 2 slots that gives each back once", func(got []driver.Delivery) bool {
		have := ids(got)
		return !slices.ContainsFunc(all, func(id string) bool { return !slices.Contains(have, id) })
	})
}

func testUnackedComesAgain(e *env) {
	m, _ := e.held(1) // its only slot is taken by the message itself
	got := m.wait(2)
	e.attempt(got[1], 2)
	e.ack(got[1])
	e.ack(got[1]) // a second Ack is harmless
	e.publish(e.msg("next", "k"))
	m.sees("next")
}

func testUnackedGoesToNewMember(e *env) {
	first, _ := e.held(1)
	first.stop()
	got, _ := first.all() // more than one on a machine that stood still
	e.attempt(e.subscribe("g").wait(1)[0], len(got)+1)
}

func testExtendHoldsTheMessage(e *env) {
	m, d := e.held(2)
	tick := time.NewTicker(e.AckWait / 4)
	defer tick.Stop()
	before, longest := time.Now(), time.Duration(0)
	for range 10 {
		<-tick.C
		if err := d.Extend(e.Context()); err != nil {
			e.Fatalf("Extend = %v, want nil", err)
		}
		longest = max(longest, time.Since(before))
		before = time.Now()
	}
	// Nothing is said of one that was not extended in time, as happens on a busy machine.
	if got := m.wait(1); len(got) != 1 && longest < e.AckWait*3/4 {
		e.Errorf("a message that was extended for 2.5 ack waits came %d times, want once", len(got))
	}
	e.attempt(m.wait(2)[1], 2) // Extend was no Ack
}

func testAckIsFinal(e *env) {
	m := e.subscribe("g")
	e.send("m", 3)
	m.wait(3)
	if got := m.quiet(e.AckWait * 3 / 2); len(got) != 3 {
		e.Errorf("after its Acks the member got %v, want three deliveries", ids(got))
	}
	m.stop()
	e.nothingLeft()
}

func testAckAfterSubscribeReturned(e *env) {
	m, d := e.held(1)
	m.stop()
	e.ack(d)
	e.nothingLeft()
}

// nothingLeft checks that a new member gets what is published now and nothing else.
func (e *env) nothingLeft() {
	e.Helper()
	m := e.subscribe("g")
	e.publish(e.msg("marker", "k"))
	m.wait(1)
	e.same("the next member", m.quiet(e.AckWait*3/2), "marker")
}

// testFetchedGoesBackOnStop: what a member was not given to handle comes as a first attempt or at
// least soon, not only after the ack wait, and nothing is delivered after Subscribe returned. As with
// Nack, a machine that stands still makes one of three rounds long.
func testFetchedGoesBackOnStop(e *env) {
	quickest := time.Duration(1 << 62)
	for round := 0; round < 3 && quickest >= e.AckWait; round++ {
		quickest = min(quickest, e.goesBack(fmt.Sprint("m", round, "-")))
	}
	if quickest >= e.AckWait {
		e.Errorf("the messages left over came after %v, want less than the ack wait of %v", quickest, e.AckWait)
	}
}

// goesBack stops a member that has 20 messages, and returns how long they take to the next one.
func (e *env) goesBack(prefix string) time.Duration {
	e.Helper()
	sent := e.send(prefix, 20)
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	m := e.take("g", 20, func(driver.Delivery) {
		once.Do(func() { close(entered) })
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
	next := e.subscribe("g")
	next.until("what the first member has not got", func(got []driver.Delivery) bool {
		have := append(ids(first), ids(got)...)
		return !slices.ContainsFunc(sent, func(id string) bool { return !slices.Contains(have, id) })
	})
	took := time.Since(start)
	if again, _ := m.all(); len(again) != len(first) {
		e.Errorf("%d deliveries came after Subscribe returned", len(again)-len(first))
	}
	next.stop()
	return took
}

func testMaxInFlight(e *env) {
	const limit, total = 3, 40
	var mu sync.Mutex
	open, most := make(map[string]bool), 0 // by id: on a busy machine one may come again
	queue := make(chan driver.Delivery, 10*total)
	m := e.take("g", limit, func(d driver.Delivery) {
		mu.Lock()
		defer mu.Unlock()
		open[d.ID] = true
		most = max(most, len(open))
		queue <- d
	})
	e.send("m", total)
	m.wait(limit)
	m.quiet(e.AckWait / 4)
	mu.Lock()
	if len(open) != limit {
		e.Errorf("with nothing acknowledged the member got %d messages, want %d", len(open), limit)
	}
	mu.Unlock()
	for done := make(map[string]bool); len(done) < total; {
		select {
		case d := <-queue:
			mu.Lock()
			delete(open, d.ID) // before Ack, which may let the next one in
			mu.Unlock()
			e.ack(d)
			done[d.ID] = true
		case <-time.After(e.Wait):
			e.Fatalf("waited %v for the next delivery, got %v", e.Wait, ids(m.got))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if most > limit {
		e.Errorf("%d messages were unacknowledged at a time, want at most %d", most, limit)
	}
}
