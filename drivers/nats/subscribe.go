package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/messaging/driver"
)

// maxAckPending bounds what a whole group may have delivered and not acknowledged. It is not the
// MaxInFlight of a member, which the member keeps by asking for no more: messages that wait for a
// late redelivery count here too, and must not stop the group.
const maxAckPending = 10_000

// Subscribe implements driver.Broker. It fails for good when the group's consumer or the topic's
// stream is deleted meanwhile; to subscribe again makes them anew, and the group then gets all of a
// new stream. AckWait is in [Options].
//
// Ack is a message to the server without an answer: the server writes acknowledgements to disk some
// time later in any case, so that waiting for an answer would cost a round trip and promise
// nothing.
func (b *broker) Subscribe(ctx context.Context, sub driver.Subscription, deliver func(driver.Delivery)) error {
	if err := sub.Validate(); err != nil {
		return err
	}
	if sub.MaxInFlight == 0 {
		sub.MaxInFlight = driver.DefaultMaxInFlight
	}
	b.mu.Lock()
	if b.isClosed() {
		b.mu.Unlock()
		return fmt.Errorf("nats: subscribe %s to %s: %w", sub.Group, sub.Topic, driver.ErrClosed)
	}
	b.calls.Add(1)
	b.mu.Unlock()
	defer b.calls.Done()

	p, err := b.join(ctx, sub)
	if err == nil {
		err = p.run(ctx, deliver)
	}
	if err != nil && ctx.Err() == nil && !b.isClosed() {
		return fmt.Errorf("nats: subscribe %s to %s at %s: %w", sub.Group, sub.Topic, b.conn.url, err)
	}
	return nil
}

func (b *broker) isClosed() bool { return ended(b.done) }

// join makes sure that the group has its consumer and makes a puller for it.
func (b *broker) join(ctx context.Context, sub driver.Subscription) (*puller, error) {
	if err := b.Healthy(); err != nil {
		return nil, err
	}
	ctx, cancel := b.conn.bound(ctx)
	defer cancel()
	info, err := b.topic(ctx, sub.Topic, sub.Raw)
	if err != nil {
		return nil, err
	}
	ctx, done := b.askAbout(ctx, info.stream)
	defer done()
	var consumer string
	err = insist(ctx, func(ctx context.Context) (err error) {
		consumer, err = b.consumer(ctx, info, sub)
		return err
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) { // deleted since this broker saw it
		b.forget(sub.Topic)
		if info, err = b.topic(ctx, sub.Topic, sub.Raw); err == nil {
			consumer, err = b.consumer(ctx, info, sub)
		}
	}
	if err != nil {
		return nil, b.cause(ctx, err)
	}
	return &puller{
		b: b, sub: sub, stream: info.stream, created: info.created, consumer: consumer,
		wake: make(chan struct{}, 1), pending: make(map[*pending]struct{}),
	}, nil
}

// consumer returns the name of the group's consumer, made at sub.From if there was none. When this
// Broker had the group in a stream that was deleted, the group gets all of the new one: what came
// there before it is back is newer than the group.
func (b *broker) consumer(ctx context.Context, info topicInfo, sub driver.Subscription) (string, error) {
	stream, name := info.stream, escapeName(sub.Group)
	b.mu.Lock()
	before, was := b.joined[stream+"/"+name]
	b.mu.Unlock()
	config := jetstream.ConsumerConfig{
		Durable: name, Description: "kaptar group " + sub.Group,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: b.set.ackWait, MaxAckPending: maxAckPending, MaxDeliver: -1,
		DeliverPolicy: jetstream.DeliverNewPolicy,
	}
	if sub.From == driver.FromBeginning || was && !before.Equal(info.created) {
		config.DeliverPolicy = jetstream.DeliverAllPolicy
	}
	have, err := b.conn.js.Consumer(ctx, stream, name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		if have, err = b.conn.js.CreateConsumer(ctx, stream, config); errors.Is(err, jetstream.ErrConsumerExists) {
			have, err = b.conn.js.Consumer(ctx, stream, name) // another member was faster and starts elsewhere
		}
	}
	if err != nil {
		return "", err
	}
	b.mu.Lock()
	b.joined[stream+"/"+name] = info.created
	b.mu.Unlock()
	if current := have.CachedInfo().Config; current.AckWait != b.set.ackWait {
		current.AckWait = b.set.ackWait
		_, err = b.conn.js.UpdateConsumer(ctx, stream, current)
	}
	return name, err
}

// gone returns why the consumer will never answer, or nil if that is not known.
func (p *puller) gone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := p.b.conn.js.Consumer(ctx, p.stream, p.consumer)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		p.b.forget(p.sub.Topic) // perhaps that of a stream which somebody has made again
		if stream, failure := p.b.conn.js.Stream(ctx, p.stream); failure == nil && !stream.CachedInfo().Created.Equal(p.created) {
			return fmt.Errorf("stream %s was deleted and made again: %w", p.stream, err)
		}
		return fmt.Errorf("consumer %s of stream %s was deleted: %w", p.consumer, p.stream, err)
	case errors.Is(err, jetstream.ErrStreamNotFound):
		p.b.forget(p.sub.Topic)
		return fmt.Errorf("stream %s was deleted: %w", p.stream, err)
	}
	return nil
}
