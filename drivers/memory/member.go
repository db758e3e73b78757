package memory

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

// A member is one Subscribe call.
type member struct {
	b     *Broker
	group *group
	limit int
	wake  chan struct{} // holds at most one wake-up
}

func (m *member) run(ctx context.Context, deliver func(driver.Delivery)) {
	for ctx.Err() == nil {
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
		}
	}
}

// next returns a delivery, or nil and when to look again; the zero time: when woken.
func (m *member) next() (*driver.Delivery, time.Time) {
	m.b.mu.Lock()
	defer m.b.mu.Unlock()
	e, again := m.group.take(m, time.Now())
	if e == nil {
		return nil, again
	}
	return &driver.Delivery{Message: clone(m.group.topic.log[e.index].Message), Attempt: e.attempt, Acker: &delivery{m, e, e.attempt}}, again
}

func (m *member) wakeUp() { steady.Signal(m.wake) }

// A delivery is an entry given to a member once.
type delivery struct {
	m       *member
	e       *entry
	attempt int
}

// Ack implements driver.Acker.
func (l *delivery) Ack(ctx context.Context) error {
	return l.finish(ctx, "ack", func(g *group, i int) { // also after the ack wait: the work is done
		g.open = slices.Delete(g.open, i, i+1)
	})
}

// Nack implements driver.Acker.
func (l *delivery) Nack(ctx context.Context, after time.Duration) error {
	return l.finish(ctx, "nack", func(*group, int) {
		if l.current() {
			l.e.holder, l.e.due = nil, time.Now().Add(max(after, 0))
		}
	})
}

// Extend implements driver.Acker.
func (l *delivery) Extend(ctx context.Context) error {
	return l.finish(ctx, "extend", func(g *group, _ int) {
		if l.current() {
			l.e.due = time.Now().Add(g.ackWait)
		}
	})
}

// current reports whether the entry is still held by this delivery. The caller holds Broker.mu.
func (l *delivery) current() bool { return l.e.holder == l.m && l.e.attempt == l.attempt }

// finish calls do with the group and the delivery's index in its open entries. It does nothing if
// the message is already acknowledged.
func (l *delivery) finish(ctx context.Context, verb string, do func(g *group, i int)) error {
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
	if i, open := g.find(l.e.index); open {
		do(g, i)
		g.wakeAll()
	}
	return nil
}
