package kaptartest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/kaptar/kaptar/drivers/memory"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

// brokerURL is the broker URL of every System. Each has a broker of its own behind it.
const brokerURL = "memory:"

// Events returns the messages that were published to topic so far, in order and as they are on the
// wire: CloudEvents attributes are headers, the event's data is Data. Messages to a broker of
// Options.Settings are not recorded.
func (s *System) Events(topic string) []driver.Message { return s.broker.events(topic) }

// Deliver publishes m as a program outside of the system would. m.ID and m.Topic are required; a
// CloudEvent needs the headers ce-specversion, ce-id, ce-source and ce-type. Two calls with the
// same ID deliver it twice.
func (s *System) Deliver(m driver.Message) {
	s.t.Helper()
	if err := s.broker.inner.Publish(s.t.Context(), []driver.Message{m}); err != nil {
		s.t.Fatalf("kaptartest: deliver to %s: %v", m.Topic, err)
	}
}

// A broker is a memory broker that records messages and can become unreachable. It outlives the
// services, so that they can be restarted on it.
type broker struct {
	inner *memory.Broker

	mu        sync.Mutex
	published []driver.Message
	now       Fault
	same      context.Context // ends when now changes
	change    context.CancelFunc
}

var (
	_ driver.Broker         = (*broker)(nil)
	_ driver.HealthReporter = (*broker)(nil)
	_ driver.LagReporter    = (*broker)(nil)
	_ driver.Resetter       = (*broker)(nil)
	_ driver.Retainer       = (*broker)(nil)
)

func newBroker() *broker {
	b := &broker{inner: memory.New()}
	b.same, b.change = context.WithCancel(context.Background())
	b.inner.DuplicateWindow = -1 // duplicates are left to the inbox
	return b
}

// Broker is the method that package messaging looks for in a backend.
func (b *broker) Broker() (driver.Broker, error) { return b, nil }

func (b *broker) fault(f Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = f
	b.change()
	b.same, b.change = context.WithCancel(context.Background())
}

// state returns the current fault, and a context that ends when it changes.
func (b *broker) state() (Fault, context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now, b.same
}

func (b *broker) events(topic string) []driver.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.published), func(m driver.Message) bool { return m.Topic != topic })
}

func (b *broker) Healthy() error {
	f, _ := b.state()
	return f.Err
}

func (b *broker) Lag(ctx context.Context, sub driver.Subscription) ([]driver.PartitionLag, error) {
	if f, _ := b.state(); f.Err != nil {
		return nil, f.Err
	}
	return b.inner.Lag(ctx, sub)
}

func (b *broker) Reset(ctx context.Context, sub driver.Subscription, to time.Time) error {
	if f, _ := b.state(); f.Err != nil {
		return f.Err
	}
	return b.inner.Reset(ctx, sub, to)
}

func (b *broker) Retention(ctx context.Context, topic string) (time.Duration, error) {
	return b.inner.Retention(ctx, topic)
}

func (b *broker) Declare(ctx context.Context, sub driver.Subscription) error {
	if f, _ := b.state(); f.Err != nil {
		return f.Err
	}
	return b.inner.Declare(ctx, sub)
}

func (b *broker) Publish(ctx context.Context, msgs []driver.Message) error {
	f, _ := b.state()
	if f.Err != nil {
		return f.Err
	}
	steady.Sleep(ctx, f.Delay)
	b.mu.Lock() // so that who has been delivered an event finds it in events
	defer b.mu.Unlock()
	if err := b.inner.Publish(ctx, msgs); err != nil {
		return err
	}
	for _, m := range msgs {
		m.Headers, m.Data = slices.Clone(m.Headers), slices.Clone(m.Data)
		b.published = append(b.published, m)
	}
	return nil
}

// Subscribe delivers while the broker is reachable, and otherwise waits, as drivers do.
func (b *broker) Subscribe(ctx context.Context, sub driver.Subscription, deliver func(driver.Delivery)) error {
	for ctx.Err() == nil {
		f, same := b.state()
		until, stop := steady.Join(ctx, same)
		var err error
		if f.Err == nil {
			err = b.inner.Subscribe(until, sub, deliver)
		} else {
			<-until.Done()
		}
		stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// Close does nothing: the messages stay for the services of the next Restart.
func (b *broker) Close(context.Context) error { return nil }
