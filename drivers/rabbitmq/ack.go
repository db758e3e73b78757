package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/messaging/driver"
)

var errGone = errors.New("the server has taken the message back, since its ack wait is over or its connection broke: it comes again")

// A delivery is a message that was fetched. Its fields but s and raw are guarded by member.mu.
type delivery struct {
	s       *session
	raw     *amqp.Delivery
	attempt int
	state   deliveryState
	ends    time.Time
	timer   *time.Timer
}

type deliveryState int

const (
	fetched  deliveryState = iota
	held                   // delivered
	delaying               // nacked, to be given back after a delay
	finished
	gone
)

// begin makes the delivery. The caller holds member.mu.
func (l *delivery) begin() *driver.Delivery {
	m := l.s.m
	wait := m.b.opts.AckWait
	l.state, l.ends, l.attempt = held, time.Now().Add(wait), attempt(l.raw)
	l.s.deliveries[l] = struct{}{}
	m.open++
	l.timer = time.AfterFunc(wait, l.expire)
	return &driver.Delivery{
		Message: decode(m.sub.Topic, m.sub.Raw, l.raw), Attempt: l.attempt, Acker: l,
	}
}

// take moves a held delivery to the next state. It returns false if there is nothing left to do.
func (l *delivery) take(ctx context.Context, verb string, next deliveryState) (bool, error) {
	if err := context.Cause(ctx); err != nil {
		return false, fmt.Errorf("rabbitmq: %s: %w", verb, err)
	}
	l.s.m.mu.Lock()
	defer l.s.m.mu.Unlock()
	switch l.state {
	case held:
		l.timer.Stop()
		l.state = next
		return true, nil
	case gone:
		return false, fmt.Errorf("rabbitmq: %s: %w", verb, errGone)
	}
	return false, nil
}

// release frees the slot.
func (l *delivery) release(state deliveryState) {
	m := l.s.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.s.over {
		return // end has freed it
	}
	l.state = state
	delete(l.s.deliveries, l)
	m.open--
	l.s.maybeDrained()
	m.wakeUp()
}

// Ack implements driver.Acker.
func (l *delivery) Ack(ctx context.Context) error {
	if mine, err := l.take(ctx, "ack", finished); !mine {
		return err
	}
	return l.tell("ack", finished, l.raw.Ack)
}

// tell calls word and frees the slot. If word fails the message comes again.
func (l *delivery) tell(verb string, state deliveryState, word func(bool) error) error {
	err := word(false)
	if err != nil {
		l.release(gone)
		return fmt.Errorf("rabbitmq: %s to %s: %w", verb, l.s.m.b.url, l.s.m.b.cause(err))
	}
	l.release(state)
	return nil
}

// Nack implements driver.Acker.
func (l *delivery) Nack(ctx context.Context, after time.Duration) error {
	if after > 0 {
		return l.later(ctx, after)
	}
	if mine, err := l.take(ctx, "nack", finished); !mine {
		return err
	}
	return l.giveBack()
}

// giveBack makes the server deliver the message again. While the session drains, the end of its
// channel does so.
func (l *delivery) giveBack() error {
	l.s.m.mu.Lock()
	draining, state := l.s.draining, l.state
	l.s.m.mu.Unlock()
	if draining {
		l.release(state)
		return nil
	}
	return l.tell("nack", state, func(bool) error { return l.raw.Nack(false, true) })
}

// later gives the message back after a delay, during which the member keeps it.
func (l *delivery) later(ctx context.Context, after time.Duration) error {
	mine, err := l.take(ctx, "nack", delaying)
	if mine {
		l.s.m.mu.Lock()
		defer l.s.m.mu.Unlock()
		if !l.s.over { // else it is back already
			l.hold(min(after, driver.MaxNack))
		}
	}
	return err
}

// hold sets the time after which the message goes back. The caller holds member.mu.
func (l *delivery) hold(wait time.Duration) {
	l.ends = time.Now().Add(wait)
	l.timer.Reset(wait)
}

// Extend implements driver.Acker.
func (l *delivery) Extend(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("rabbitmq: extend: %w", err)
	}
	l.s.m.mu.Lock()
	defer l.s.m.mu.Unlock()
	switch l.state {
	case held:
		l.hold(l.s.m.b.opts.AckWait)
	case gone:
		return fmt.Errorf("rabbitmq: extend: %w", errGone)
	}
	return nil
}

// expire gives back what the session has held for too long. The driver keeps this time, since
// RabbitMQ itself waits 30 minutes. Deliveries that came together expire together, and must go back
// in order, whichever timer fires first.
func (l *delivery) expire() {
	l.s.expiring.Lock()
	defer l.s.expiring.Unlock()
	for _, due := range l.due() {
		_ = due.giveBack() // fails only with the connection, whose end gives it back too
	}
}

// due takes the expired deliveries of l's session, if l is one of them.
func (l *delivery) due() (all []*delivery) {
	l.s.m.mu.Lock()
	defer l.s.m.mu.Unlock()
	if l.state != held && l.state != delaying {
		return nil
	}
	now := time.Now()
	if left := l.ends.Sub(now); left > 0 { // extended meanwhile
		l.timer.Reset(left)
		return nil
	}
	for other := range l.s.deliveries {
		if other.ends.After(now) {
			continue
		}
		switch other.state {
		case held:
			other.state = gone // not finished: a late Ack must fail
		case delaying:
			other.state = finished
		default:
			continue
		}
		all = append(all, other)
	}
	slices.SortFunc(all, func(a, b *delivery) int { return cmp.Compare(a.raw.DeliveryTag, b.raw.DeliveryTag) })
	return all
}
