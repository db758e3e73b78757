package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
)

// TestFromBeginning: refused, unless the URL says what to take instead.
func TestFromBeginning(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	b := open(t, url+"?from_beginning=now", options())
	defer closeNow(t, b)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	got, result := make(chan string, 100), make(chan error, 1)
	go func() {
		sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning}
		result <- b.Subscribe(ctx, sub, func(d driver.Delivery) { got <- d.ID })
	}()
	until(t, "a message", func() bool {
		if err := b.Publish(t.Context(), messages("t", "m", 1)); err != nil {
			t.Fatal(err)
		}
		return len(got) > 0
	})
	stop()
	if err := <-result; err != nil {
		t.Errorf("Subscribe with from_beginning=now = %v, want nil", err)
	}
	refusing := open(t, url, options())
	defer closeNow(t, refusing)
	sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning}
	err := refusing.Subscribe(t.Context(), sub, func(driver.Delivery) {})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "from_beginning=now") {
		t.Errorf("Subscribe from the beginning = %v, want errors.ErrUnsupported that says what to write", err)
	}
}

// TestDeletedQueue: a subscription that can never get a message again says so, and subscribing anew
// works.
func TestDeletedQueue(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	b := open(t, url, options())
	defer closeNow(t, b)
	sub := driver.Subscription{Topic: "t", Group: "g"}
	m := join(t, b, sub)
	for _, queue := range []string{"t:g:1", "t:g:0"} { // the first alone, and then one that is not the last
		if _, err := plain(t, url).QueueDelete(queue, false, false, false); err != nil {
			t.Fatal(err)
		}
		if err := m.ended(t); err == nil || !strings.Contains(err.Error(), "queue "+queue+" was deleted") || !strings.Contains(err.Error(), "subscribe g to t") {
			t.Errorf("Subscribe whose queue was deleted = %v, want an error that says so", err)
		}
		m = join(t, b, sub)
	}
}

// TestDeletedQueueRestart: a queue that was deleted while nobody was there does not hide those
// after it.
func TestDeletedQueueRestart(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	sub := driver.Subscription{Topic: "t", Group: "g"}
	before := open(t, url+"?partitions=4", options())
	m := join(t, before, sub)
	m.stop()
	if err := m.ended(t); err != nil {
		t.Fatal(err)
	}
	if _, err := plain(t, url).QueueDelete("t:g:1", false, false, false); err != nil {
		t.Fatal(err)
	}
	for i := range 40 { // some in each of the others
		if err := before.Publish(t.Context(), []driver.Message{message("t", fmt.Sprint(i), fmt.Sprint(i))}); err != nil {
			t.Fatal(err)
		}
	}
	closeNow(t, before)
	after := open(t, url+"?partitions=4", options())
	defer closeNow(t, after)
	sub.From = driver.FromNow
	ctx, stop := context.WithCancel(t.Context())
	m = &member{got: make(chan driver.Delivery, 1000), stop: stop, result: make(chan error, 1)} // join would take one
	defer stop()
	go func() { m.result <- after.Subscribe(ctx, sub, func(d driver.Delivery) { m.got <- d }) }()
	for range 40 {
		if err := m.next(t).Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDeletedExchange: the server tells nobody when an exchange goes, so a subscription notices
// itself. When a publisher has made the topic's exchange again it goes on, else it says that it can
// never get a message again.
func TestDeletedExchange(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	b := open(t, url, options())
	defer closeNow(t, b)
	sub := driver.Subscription{Topic: "t", Group: "g"}
	for _, exchange := range []string{"t", "t:g"} {
		m := join(t, b, sub)
		if err := plain(t, url).ExchangeDelete(exchange, false, false); err != nil {
			t.Fatal(err)
		}
		if err := m.ended(t); err == nil || !strings.Contains(err.Error(), "no exchange '"+exchange+"'") || !strings.Contains(err.Error(), "subscribe g to t") {
			t.Errorf("Subscribe whose exchange %s was deleted = %v, want an error that says so", exchange, err)
		}
		until(t, "publishing to go on", func() bool { return b.Publish(t.Context(), messages("t", "m", 1)) == nil })
	}
	join(t, b, sub)
}

// TestPartitionsStay: a group keeps the number of queues that it was made with, and its order.
func TestPartitionsStay(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t)
	sub := driver.Subscription{Topic: "t", Group: "g"}
	queues := func() (n int) {
		ch := plain(t, url)
		for ; ; n++ {
			if _, err := ch.QueueDeclarePassive(fmt.Sprint("t:g:", n), true, false, false, false, nil); err != nil {
				return n
			}
		}
	}
	for _, partitions := range []string{"3", "2", "5"} {
		b := open(t, url+"?partitions="+partitions, options())
		m := join(t, b, sub)
		if n := queues(); n != 3 {
			t.Errorf("with partitions=%s the group has %d queues, want the first 3", partitions, n)
		}
		m.stop()
		closeNow(t, b)
	}
	b := open(t, url+"?order=none", options())
	defer closeNow(t, b)
	sub.From = driver.FromNow
	err := b.Subscribe(t.Context(), sub, func(driver.Delivery) {})
	if err == nil || !strings.Contains(err.Error(), "order=none?") {
		t.Errorf("Subscribe of a group with another order = %v, want an error that says so", err)
	}
}

// TestLateAck: an Ack after the time is over says that the message comes again.
func TestLateAck(t *testing.T) {
	t.Parallel()
	b := open(t, servertest.VHost(t), options())
	defer closeNow(t, b)
	m := join(t, b, driver.Subscription{Topic: "t", Group: "g"})
	if err := b.Publish(t.Context(), messages("t", "m", 1)); err != nil {
		t.Fatal(err)
	}
	first := m.next(t)
	second := m.next(t)
	if second.ID != first.ID || second.Attempt <= first.Attempt {
		t.Errorf("second delivery is %s, attempt %d; want %s, above %d", second.ID, second.Attempt, first.ID, first.Attempt)
	}
	if err := first.Ack(t.Context()); err == nil {
		t.Error("Ack of a message that was delivered again = nil, want an error")
	}
	if err := second.Ack(t.Context()); err != nil {
		t.Errorf("Ack of the second delivery = %v, want nil", err)
	}
	if err := second.Ack(t.Context()); err != nil {
		t.Errorf("a second Ack = %v, want nil", err)
	}
}

// TestLongNames: together topic and group are longer than a name on the server may be, and differ
// only at the end.
func TestLongNames(t *testing.T) {
	t.Parallel()
	o := options()
	o.AckWait = time.Minute
	b := open(t, servertest.VHost(t), o)
	defer closeNow(t, b)
	long := strings.Repeat("x", 199)
	var members []*member
	for _, group := range []string{long + "a", long + "b"} {
		members = append(members, join(t, b, driver.Subscription{Topic: long, Group: group}))
	}
	if err := b.Publish(t.Context(), messages(long, "m", 1)); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if d := m.next(t); d.ID != "m0" {
			t.Errorf("got %s, want m0 in each group", d.ID)
		} else if err := d.Nack(t.Context(), time.Hour); err != nil {
			t.Errorf("Nack = %v, want nil", err)
		}
	}
}

// TestMaxInFlightOfAllPartitions: the limit is one of the member, though the server counts for each
// queue.
func TestMaxInFlightOfAllPartitions(t *testing.T) {
	t.Parallel()
	o := options()
	o.AckWait = time.Minute
	b := open(t, servertest.VHost(t), o)
	defer closeNow(t, b)
	m := join(t, b, driver.Subscription{Topic: "t", Group: "g", MaxInFlight: 2})
	var batch []driver.Message
	for n := range 20 { // of both partitions
		batch = append(batch, message("t", fmt.Sprint("m", n), fmt.Sprint("key", n)))
	}
	if err := b.Publish(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	first, second := m.next(t), m.next(t)
	select {
	case d := <-m.got:
		t.Errorf("with 2 deliveries that are not acknowledged came %s, want none", d.ID)
	case <-time.After(500 * time.Millisecond):
	}
	for _, d := range []driver.Delivery{first, second} {
		if err := d.Ack(t.Context()); err != nil {
			t.Error(err)
		}
	}
	m.next(t)
}
