package memdriver

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

// next leases a message, or says when to look again at the latest; the zero time means when woken.
func (m *member) next() (*driver.Delivery, time.Time) {
	m.b.mu.Lock()
	defer m.b.mu.Unlock()
	now := time.Now()
	if m.inFlight >= m.limit {
		m.group.expire(now)
	}
	if m.inFlight >= m.limit {
		return nil, m.group.lease // its own lease may be the one that ends
	}
	e, again := m.group.take(m, now)
	if e == nil {
		return nil, again
	}
	return m.delivery(e), time.Time{}
}

func (m *member) delivery(e *entry) *driver.Delivery {
	g, attempt := m.group, e.attempt
	settle := func(ctx context.Context, verb string, do func()) error {
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("memdriver: %s: %w", verb, err)
		}
		m.b.mu.Lock()
		defer m.b.mu.Unlock()
		select {
		case <-m.b.idle: // not before Close is through, since the last deliver calls may want to settle
			return fmt.Errorf("memdriver: %s: %w", verb, driver.ErrClosed)
		default:
		}
		if g.open[e.index] == e {
			do()
			g.wakeAll()
		}
		return nil
	}
	mine := func() bool { return e.holder == m && e.attempt == attempt }
	return &driver.Delivery{
		Message: clone(g.topic.log[e.index]),
		Attempt: attempt,
		Ack: func(ctx context.Context) error {
			return settle(ctx, "ack", func() { // also when the lease is over: the work is done
				g.release(e)
				delete(g.open, e.index)
			})
		},
		Nack: func(ctx context.Context, after time.Duration) error {
			return settle(ctx, "nack", func() {
				if mine() {
					g.release(e)
					e.due = time.Now().Add(max(after, 0))
					heap.Push(&g.waiting, e)
				}
			})
		},
		Extend: func(ctx context.Context) error {
			return settle(ctx, "extend", func() {
				if mine() {
					e.due = time.Now().Add(g.ackWait)
				}
			})
		},
	}
}
