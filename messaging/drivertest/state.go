package drivertest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

func testOrderedRefused(e *env) {
	sub := e.ordered()
	if err := e.Broker.Declare(e.Context(), sub); !errors.Is(err, errors.ErrUnsupported) {
		e.Errorf("Declare with Ordered = %v, want errors.ErrUnsupported", err)
	}
	if err := e.Broker.Subscribe(e.Context(), sub, func(driver.Delivery) {}); !errors.Is(err, errors.ErrUnsupported) {
		e.Errorf("Subscribe with Ordered = %v, want errors.ErrUnsupported", err)
	}
}

// lags waits until the group lags so many messages behind.
func (e *env) lags(sub driver.Subscription, want int64) []driver.PartitionLag {
	e.Helper()
	deadline, tick := time.Now().Add(e.Wait), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		list, err := e.Broker.(driver.LagReporter).Lag(e.Context(), sub) //nolint:forcetypeassert // the case needs it
		if err != nil {
			e.Fatalf("Lag = %v, want nil", err)
		}
		sum := int64(0)
		for _, l := range list {
			sum += l.Waiting
		}
		if sum == want {
			return list
		}
		if time.Now().After(deadline) {
			e.Fatalf("Lag is %+v, %d in all, after %v, want %d", list, sum, e.Wait, want)
		}
		<-tick.C
	}
}

func testLag(e *env) {
	begun := time.Now().Add(-time.Minute) // the server's clock may be another
	e.lags(e.sub("g"), 0)
	e.send("m", 5)
	for _, l := range e.lags(e.sub("g"), 5) {
		if !l.Oldest.IsZero() && (l.Waiting == 0 || l.Oldest.Before(begun) || l.Oldest.After(time.Now().Add(time.Minute))) {
			e.Errorf("Lag of partition %q is %d since %v, want a time around now", l.Partition, l.Waiting, l.Oldest)
		}
	}
	held := make(chan driver.Delivery, 100)
	m := e.take("g", 3, func(d driver.Delivery) { held <- d })
	m.wait(3)
	e.lags(e.sub("g"), 5) // what is in flight counts
	for range 3 {
		e.ack(<-held)
	}
	m.wait(5)
	e.lags(e.sub("g"), 2)
	m.stop()
	r := e.Broker.(driver.LagReporter) //nolint:forcetypeassert // the case needs it
	if _, err := r.Lag(e.Context(), e.sub("nobody")); err == nil {
		e.Error("Lag of a group that there is not = nil, want an error")
	}
	if err := e.Broker.Declare(e.Context(), e.sub("nobody")); err != nil { // Lag made nothing that stands in the way
		e.Errorf("Declare = %v, want nil", err)
	}
}

// testLagOrdered: the partitions have what waits in them.
func testLagOrdered(e *env) {
	sub := e.ordered()
	if err := e.Broker.Declare(e.Context(), sub); err != nil {
		e.Fatal(err)
	}
	l := e.ledger()
	l.send(1)
	list := e.lags(sub, orderedKeys)
	names, some := []string{}, 0
	for _, p := range list {
		names = append(names, p.Partition)
		if p.Waiting > 0 {
			some++
		}
	}
	if some < 2 || len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(list) {
		e.Errorf("Lag is %+v, want several partitions with messages, each once", list)
	}
	l.join(e.Broker, "only")
	l.all(1)
	e.lags(sub, 0)
}

// testReset moves a group to the beginning, to the end, and to a time between.
func testReset(e *env) {
	r := e.Broker.(driver.Resetter) //nolint:forcetypeassert // the case needs it
	if e.NoReplay {
		if err := r.Reset(e.Context(), e.sub("g"), time.Time{}); !errors.Is(err, errors.ErrUnsupported) {
			e.Errorf("Reset without history = %v, want errors.ErrUnsupported", err)
		}
		return
	}
	early := e.send("a", 3)
	m := e.subscribe("g")
	m.wait(3)
	m.stop()
	<-time.After(50 * time.Millisecond) // servers tell times by the millisecond
	between := time.Now()
	<-time.After(50 * time.Millisecond)
	late := e.send("b", 2)
	for i, ordered := range []bool{false, true, false} {
		for name, to := range map[string]time.Time{"the beginning": {}, "a time": between, "the end": time.Now().Add(time.Hour)} {
			sub := e.sub("g")
			sub.Ordered = ordered
			e.reset(r, sub, to)
			marker := e.msg(fmt.Sprint("after ", name, i), "k")
			e.publish(marker)
			want := []string{marker.ID}
			switch {
			case to.IsZero():
				want = slices.Concat(early, late, want)
			case to.Equal(between):
				want = slices.Concat(late, want)
			}
			m := e.join(sub, e.ack)
			e.same("after Reset to "+name+" the group", m.sees(marker.ID), want...)
			m.stop()
			late = append(late, marker.ID)
		}
	}
}

// reset tries until the members have left, as a broker may learn that late.
func (e *env) reset(r driver.Resetter, sub driver.Subscription, to time.Time) {
	e.Helper()
	deadline, tick := time.After(e.Wait), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		err := r.Reset(e.Context(), sub, to)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			e.Fatalf("Reset = %v after %v, want nil", err, e.Wait)
		}
	}
}

func testRetention(e *env) {
	r := e.Broker.(driver.Retainer) //nolint:forcetypeassert // the case needs it
	if got, err := r.Retention(e.Context(), e.topic); err != nil || got != e.Retention {
		e.Errorf("Retention = %v, %v; want %v", got, err, e.Retention)
	}
	if got, err := r.Retention(e.Context(), e.topic+".none"); err == nil {
		e.Errorf("Retention of a topic that there is not = %v, want an error", got)
	}
}
