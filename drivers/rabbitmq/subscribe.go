package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

// partWait bounds the wait at Subscribe's end for fetched messages to go back.
const partWait = 2 * time.Second

// Subscribe implements driver.Broker. It fails for good when a queue of the group, its exchange or
// that of the topic is deleted. Subscribing again makes them anew. FromBeginning is refused with
// errors.ErrUnsupported, since RabbitMQ keeps no messages for future groups, unless
// Options.BeginningIsNow is set.
//
// A member that leaves keeps a partition with unacknowledged deliveries until they are acknowledged
// or AckWait has passed, so that the next member does not get a later message of a key too soon.
func (b *Broker) Subscribe(ctx context.Context, sub driver.Subscription, deliver func(driver.Delivery)) error {
	if err := sub.Validate(); err != nil {
		return err
	}
	if err := b.supports(sub); err != nil {
		return err
	}
	sub.MaxInFlight = cmp.Or(sub.MaxInFlight, driver.DefaultMaxInFlight)
	if !b.enter() {
		return fmt.Errorf("rabbitmq: subscribe %s to %s: %w", sub.Group, sub.Topic, driver.ErrClosed)
	}
	defer b.calls.Done()
	if ctx.Err() != nil {
		return nil
	}
	joining, cancel := steady.Bound(ctx, callTimeout)
	g, err := b.join(joining, sub)
	cancel()
	if err == nil {
		err = newMember(b, sub, g).run(ctx, deliver)
	}
	if err != nil && ctx.Err() == nil && !b.isClosed() {
		return fmt.Errorf("rabbitmq: subscribe %s to %s at %s: %w", sub.Group, sub.Topic, b.url, err)
	}
	return nil
}

// supports returns an error for what RabbitMQ cannot do.
func (b *Broker) supports(sub driver.Subscription) error {
	if sub.Ordered && (b.opts.Unordered || sub.Raw) {
		return fmt.Errorf("rabbitmq: subscribe %s to %s with Ordered: %w: with order=none, and in a raw topic, members share one queue message by message: "+
			"remove order=none from the broker's URL, or subscribe without Ordered", sub.Group, sub.Topic, errors.ErrUnsupported)
	}
	if sub.From == driver.FromBeginning && !b.opts.BeginningIsNow && !sub.Raw {
		return fmt.Errorf("rabbitmq: subscribe %s to %s from the beginning: %w: RabbitMQ keeps no messages for groups to come: "+
			"choose FromNow, or add the parameter from_beginning=now to the broker's URL",
			sub.Group, sub.Topic, errors.ErrUnsupported)
	}
	return nil
}

// A member is one Subscribe call. It consumes all partitions of its group. The server makes one
// member active for each partition and the others wait, so a partition that loses its member moves
// to another at once.
type member struct {
	b     *Broker
	sub   driver.Subscription
	group *group
	wake  chan struct{} // holds at most one wake-up of run
	ctx   context.Context
	left  context.CancelFunc // ends ctx: the member leaves

	mu       sync.Mutex
	queue    []*delivery       // fetched and not delivered
	open     int               // delivered and not acknowledged
	sessions map[*session]bool // under way
	fatal    error
}

func newMember(b *Broker, sub driver.Subscription, g *group) *member {
	m := &member{b: b, sub: sub, group: g, wake: make(chan struct{}, 1), sessions: make(map[*session]bool)}
	m.ctx, m.left = context.WithCancel(b.ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members[m] = struct{}{}
	return m
}

func (m *member) run(ctx context.Context, deliver func(driver.Delivery)) error {
	for _, queue := range m.group.queues {
		m.b.work.Go(func() { m.consume(queue) })
	}
	if !m.sub.Raw {
		m.b.work.Go(m.guard)
	}
	if len(m.group.queues) > 1 {
		m.b.work.Go(m.balance)
	}
	defer m.leave()
	for ctx.Err() == nil && !m.b.isClosed() {
		d, err := m.next()
		if err != nil {
			return err
		}
		if d != nil {
			deliver(*d)
			continue
		}
		select {
		case <-m.wake:
		case <-ctx.Done():
		case <-m.b.ctx.Done():
		}
	}
	return nil
}

// next returns the next message and counts it as in flight; nil if there is none or no slot.
func (m *member) next() (*driver.Delivery, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fatal != nil {
		return nil, m.fatal
	}
	if len(m.queue) == 0 || m.open >= m.sub.MaxInFlight {
		return nil, nil
	}
	l := m.queue[0]
	m.queue[0] = nil
	m.queue = m.queue[1:]
	return l.begin(), nil
}

// fail ends the subscription.
func (m *member) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fatal = err
	m.wakeUp()
}

func (m *member) wakeUp() { steady.Signal(m.wake) }

// leave gives up all partitions, and waits for those that have nothing in flight.
func (m *member) leave() {
	m.left()
	var free []*session
	m.mu.Lock()
	for s := range m.sessions {
		s.drain()
		if len(s.deliveries) == 0 {
			free = append(free, s)
		}
	}
	none := len(m.sessions) == 0
	m.mu.Unlock()
	if none {
		m.b.forget(m)
	}
	timer := time.NewTimer(partWait)
	defer timer.Stop()
	for _, s := range free {
		select {
		case <-s.ended:
		case <-timer.C: // the connection is stuck; its end gives everything back
			return
		case <-m.b.ctx.Done():
			return
		}
	}
}
