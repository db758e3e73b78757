package memory

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

const (
	defaultAckWait  = 30 * time.Second
	duplicateWindow = 10 * time.Minute
)

var _ driver.Broker = (*Broker)(nil)
var _ driver.HealthReporter = (*Broker)(nil)
var _ driver.LagReporter = (*Broker)(nil)
var _ driver.Resetter = (*Broker)(nil)
var _ driver.Retainer = (*Broker)(nil)

func init() {
	drivers.Register("memory", func(_ context.Context, url string, _ *drivers.Options) (drivers.Backend, error) {
		if url != "memory:" {
			return nil, fmt.Errorf("memory: url %q: expected memory: and nothing after it", url)
		}
		return New(), nil
	})
}

// A Broker implements driver.Broker. Make it with [New]; all methods may be called concurrently.
type Broker struct {
	// AckWait is how long a member may leave a delivery unacknowledged until the group gets it
	// again; 0 means 30 s. Set it before the first call.
	AckWait time.Duration

	// DuplicateWindow is how long an ID is remembered, to store it once; 0 means 10 minutes, and a
	// negative value that every message is stored. Set it before the first call.
	DuplicateWindow time.Duration

	mu     sync.Mutex // never held while something waits, so that bubbles can go idle
	topics map[string]*topic
	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	calls  sync.WaitGroup
	idle   chan struct{} // closed when all Subscribe calls returned after Close
}

// New returns a broker without topics.
func New() *Broker {
	b := &Broker{topics: make(map[string]*topic), idle: make(chan struct{})}
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b
}

// Broker returns b, as package drivers asks for it.
func (b *Broker) Broker() (driver.Broker, error) { return b, nil }

// As sets *target to b, if it is a **Broker.
func (b *Broker) As(target any) bool {
	t, ok := target.(**Broker)
	if ok {
		*t = b
	}
	return ok
}

// Declare implements driver.Broker.
func (b *Broker) Declare(ctx context.Context, sub driver.Subscription) error {
	if err := sub.ValidateDeclare(); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("memory: declare %s: %w", sub.Topic, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed() {
		return fmt.Errorf("memory: declare %s: %w", sub.Topic, driver.ErrClosed)
	}
	t := b.topic(sub.Topic)
	if sub.Group != "" {
		t.group(sub, cmp.Or(b.AckWait, defaultAckWait))
	}
	return nil
}

// Publish implements driver.Broker. A topic stores an ID once within DuplicateWindow.
func (b *Broker) Publish(ctx context.Context, msgs []driver.Message) error {
	if err := driver.ValidateAll(msgs); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("memory: publish: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed() {
		return fmt.Errorf("memory: publish: %w", driver.ErrClosed)
	}
	now := time.Now()
	for _, m := range msgs {
		b.topic(m.Topic).add(clone(m), now)
	}
	return nil
}

// Subscribe implements driver.Broker. Once it delivers it does not fail. With Ordered a partition
// moves to another member once its owner has nothing of it in flight.
func (b *Broker) Subscribe(ctx context.Context, sub driver.Subscription, deliver func(driver.Delivery)) error {
	if err := sub.Validate(); err != nil {
		return err
	}
	m := &member{b: b, limit: cmp.Or(sub.MaxInFlight, driver.DefaultMaxInFlight), wake: make(chan struct{}, 1)}
	b.mu.Lock()
	if b.closed() {
		b.mu.Unlock()
		return fmt.Errorf("memory: subscribe %s to %s: %w", sub.Group, sub.Topic, driver.ErrClosed)
	}
	g := b.topic(sub.Topic).group(sub, cmp.Or(b.AckWait, defaultAckWait))
	if len(g.members) > 0 && g.ordered != sub.Ordered {
		b.mu.Unlock()
		return fmt.Errorf("memory: subscribe %s to %s: the group has members with Ordered %t: stop them before others join with Ordered %t",
			sub.Group, sub.Topic, g.ordered, sub.Ordered)
	}
	b.calls.Add(1)
	m.group, g.ordered = g, sub.Ordered
	g.join(m)
	b.mu.Unlock()

	defer b.calls.Done()
	ctx, stop := steady.Join(ctx, b.ctx)
	defer stop()
	m.run(ctx, deliver)
	b.mu.Lock()
	defer b.mu.Unlock()
	m.group.leave(m)
	return nil
}

// Close implements driver.Broker.
func (b *Broker) Close(ctx context.Context) error {
	b.mu.Lock()
	first := !b.closed()
	b.stop()
	b.mu.Unlock()
	if first {
		go func() {
			b.calls.Wait()
			close(b.idle)
		}()
	}
	select {
	case <-b.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("memory: close: a deliver function still runs: %w", context.Cause(ctx))
	}
}

// SharesMessages implements driver.Sharer: members are equal.
func (b *Broker) SharesMessages() {}

// Healthy implements driver.HealthReporter: nil until Close.
func (b *Broker) Healthy() error {
	if b.closed() {
		return fmt.Errorf("memory: %w", driver.ErrClosed)
	}
	return nil
}

// Lag implements driver.LagReporter.
func (b *Broker) Lag(ctx context.Context, sub driver.Subscription) (list []driver.PartitionLag, err error) {
	err = b.with(ctx, "lag", sub, func(g *group) error {
		list = g.lag()
		return nil
	})
	return list, err
}

// Reset implements driver.Resetter. It fails while the group has members.
func (b *Broker) Reset(ctx context.Context, sub driver.Subscription, to time.Time) error {
	return b.with(ctx, "reset", sub, func(g *group) error {
		if len(g.members) > 0 {
			return fmt.Errorf("the group has %d members: stop them first", len(g.members))
		}
		g.move(func(s *stored) bool { return !s.at.Before(to) })
		return nil
	})
}

// with calls do with an existing group.
func (b *Broker) with(ctx context.Context, verb string, sub driver.Subscription, do func(*group) error) error {
	err := sub.Validate()
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch t := b.topics[sub.Topic]; {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case b.closed():
		err = driver.ErrClosed
	case t == nil || t.groups[sub.Group] == nil:
		err = errors.New("there is no such group: it is made when it subscribes first")
	default:
		err = do(t.groups[sub.Group])
	}
	if err != nil {
		return fmt.Errorf("memory: %s of group %s in topic %s: %w", verb, sub.Group, sub.Topic, err)
	}
	return nil
}

// Retention implements driver.Retainer: messages are kept for ever.
func (b *Broker) Retention(_ context.Context, topic string) (time.Duration, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.topics[topic] == nil {
		return 0, fmt.Errorf("memory: retention of topic %s: there is no such topic: it is made when it is declared first", topic)
	}
	return 0, nil
}

func (b *Broker) closed() bool { return b.ctx.Err() != nil }

// topic returns the topic, made if need be. The caller holds b.mu.
func (b *Broker) topic(name string) *topic {
	t := b.topics[name]
	if t == nil {
		t = &topic{window: cmp.Or(b.DuplicateWindow, duplicateWindow), groups: make(map[string]*group), ids: make(map[string]time.Time)}
		b.topics[name] = t
	}
	return t
}

// clone makes a message that shares no memory with its source: publisher and every consumer may do
// what they like.
func clone(m driver.Message) driver.Message {
	m.Headers = slices.Clone(m.Headers)
	m.Data = bytes.Clone(m.Data)
	return m
}
