package memory

import (
	"container/heap"
	"context"
	"fmt"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// A member is one Subscribe call.
type member struct {
	b        *Broker
	group    *group
	limit    int
	inFlight int           // guarded by Broker.mu
	wake     chan struct{} // holds one wake-up
}

func (m *member) run(ctx context.Context, deliver func(driver.Delivery)) {
	for ctx.Err() == nil && !m.b.closed() {
		d, again := m.next()
		if d != nil {
			deliver(*d)
			continue
		}
		var timer <-chan time.Time
		if !again.IsZero() {
			timer = time.After(time.Until(again))
		}
		select {
		case <-m.wake:
		case <-timer:
		case <-ctx.Done():
		case <-m.b.done:
		}
	}
}

// next hands a message to the member, or says when to look again at the latest; the zero time means
// when woken.
func (m *member) next() (*driver.Delivery, time.Time) {
	m.b.mu.Lock()
	defer m.b.mu.Unlock()
	now := time.Now()
	if m.inFlight >= m.limit {
		m.group.expire(now)
	}
	if m.inFlight >= m.limit {
		return nil, m.group.deadline // its own delivery may be the one that ends
	}
	e, again := m.group.take(m, now)
	if e == nil {
		return nil, again
	}
	return m.delivery(e), time.Time{}
}

func (m *member) delivery(e *entry) *driver.Delivery {
	return &driver.Delivery{Message: clone(m.group.topic.log[e.index]), Attempt: e.attempt, Acker: &delivery{m, e, e.attempt}}
}

// A delivery is an entry given to a member once.
type delivery struct {
	m       *member
	e       *entry
	attempt int
}

// Ack implements driver.Acker.
func (l *delivery) Ack(ctx context.Context) error {
	return l.finish(ctx, "ack", func(g *group) { // also when the time is over: the work is done
		g.release(l.e)
		delete(g.open, l.e.index)
	})
}

// Nack implements driver.Acker.
func (l *delivery) Nack(ctx context.Context, after time.Duration) error {
	return l.finish(ctx, "nack", func(g *group) {
		if l.current() {
			g.release(l.e)
			l.e.due = time.Now().Add(max(after, 0))
			heap.Push(&g.waiting, l.e)
		}
	})
}

// Extend implements driver.Acker.
func (l *delivery) Extend(ctx context.Context) error {
	return l.finish(ctx, "extend", func(g *group) {
		if l.current() {
			l.e.due = time.Now().Add(g.ackWait)
		}
	})
}

// current reports whether the entry is still held by this delivery. The caller holds Broker.mu.
func (l *delivery) current() bool { return l.e.holder == l.m && l.e.attempt == l.attempt }

func (l *delivery) finish(ctx context.Context, verb string, do func(*group)) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("memory: %s: %w", verb, err)
	}
	b, g := l.m.b, l.m.group
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.idle: // not before Close is through, since the last deliver calls may want to acknowledge
		return fmt.Errorf("memory: %s: %w", verb, driver.ErrClosed)
	default:
	}
	if g.open[l.e.index] == l.e {
		do(g)
		g.wakeAll()
	}
	return nil
}
