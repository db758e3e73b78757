package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

// maxAckPending bounds what a whole group may have delivered and not acknowledged. MaxInFlight is
// kept by each member, which requests no more than that. Messages that wait for a late redelivery
// count here too, and must not stop the group.
const maxAckPending = 10_000

// Subscribe implements driver.Broker. It fails for good when the group's consumer or the topic's
// stream is deleted. Subscribing again makes them anew, and the group then gets all of a new
// stream. The ack wait is the URL's ack_wait.
//
// Ack sends a message to the server and waits for no answer: the server writes acknowledgements to
// disk some time later anyway, so an answer would cost a round trip and promise nothing.
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

	group := [2]string{sub.Topic, sub.Group}
	info, err := b.join(ctx, sub)
	if err == nil {
		b.working.Note(group, nil)
	}
	switch {
	case err != nil:
	case sub.Ordered:
		err = b.newMember(info, sub, deliver).run(ctx)
	default:
		f := &flight{limit: sub.MaxInFlight, waiting: make(map[*puller]struct{})}
		err = b.newPuller(info, sub, escapeName(sub.Group), sub.MaxInFlight, f).run(ctx, deliver)
	}
	if err != nil && ctx.Err() == nil && !b.isClosed() {
		err = fmt.Errorf("nats: subscribe %s to %s at %s: %w", sub.Group, sub.Topic, b.conn.url, err)
		if !errors.Is(err, errOtherKind) && b.reachable() == nil { // other reasons end by themselves
			b.working.Note(group, err)
		}
		return err
	}
	b.working.Note(group, nil)
	return nil
}

func (b *broker) isClosed() bool { return ended(b.done) }

// join makes sure that the group has its consumer or, with Ordered, its consumers.
func (b *broker) join(ctx context.Context, sub driver.Subscription) (topicInfo, error) {
	if err := b.reachable(); err != nil {
		return topicInfo{}, err
	}
	ctx, cancel := b.conn.bound(ctx)
	defer cancel()
	info, err := b.topic(ctx, sub.Topic, sub.Raw)
	if err != nil {
		return info, err
	}
	ctx, done := b.askAbout(ctx, info.stream)
	defer done()
	consumers := func(ctx context.Context) error { return b.consumers(ctx, info, sub) }
	err = insist(ctx, consumers)
	// It was deleted since this broker saw it, or is so new that not all of a cluster know it.
	for errors.Is(err, jetstream.ErrStreamNotFound) && steady.Sleep(ctx, minWait) {
		b.forget(sub.Topic)
		if info, err = b.topic(ctx, sub.Topic, sub.Raw); err == nil {
			err = insist(ctx, consumers)
		}
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.ErrorCode == consumerNotMade {
		err = fmt.Errorf("%w: does the server's log call its state corrupt? Then move obs/%s* of the stream's folder away and start the server again",
			err, escapeName(sub.Group))
	}
	if err != nil {
		return info, b.cause(ctx, err)
	}
	return info, nil
}

func (b *broker) newPuller(info topicInfo, sub driver.Subscription, consumer string, limit int, f *flight) *puller {
	return &puller{
		b: b, sub: sub, stream: info.stream, created: info.created, consumer: consumer, limit: limit, flight: f,
		wake: make(chan struct{}, 1), pending: make(map[*pending]struct{}),
	}
}

// consumers makes the missing consumers of a group, at sub.From or at the position of its consumers
// of the other kind. If this broker knew the group in a stream that was deleted, the group gets all
// of the new one, since everything there was published after the group began.
func (b *broker) consumers(ctx context.Context, info topicInfo, sub driver.Subscription) error {
	name := escapeName(sub.Group)
	b.mu.Lock()
	before, was := b.joined[info.stream+"/"+name]
	b.mu.Unlock()
	config := b.groupConfig(sub.Group)
	if sub.From == driver.FromBeginning || was && !before.Equal(info.created) {
		config.DeliverPolicy = jetstream.DeliverAllPolicy
	}
	var err error
	if sub.Ordered {
		err = b.partitionConsumers(ctx, info, sub, config)
	} else {
		err = b.wholeConsumer(ctx, info, sub, config)
	}
	if err == nil {
		b.mu.Lock()
		b.joined[info.stream+"/"+name] = info.created
		b.mu.Unlock()
	}
	return err
}

// groupConfig is the configuration of a group's consumer that starts from now.
func (b *broker) groupConfig(group string) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: escapeName(group), Description: "kaptar group " + group,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: b.set.ackWait, MaxAckPending: maxAckPending, MaxDeliver: -1,
		DeliverPolicy: jetstream.DeliverNewPolicy,
	}
}

// ensure makes a consumer, or sets the ack wait of an existing one.
func (b *broker) ensure(ctx context.Context, stream string, config jetstream.ConsumerConfig) error {
	have, err := b.conn.js.Consumer(ctx, stream, config.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		if config, err = b.fromHere(ctx, stream, config); err != nil {
			return err
		}
		if have, err = b.conn.js.CreateConsumer(ctx, stream, config); errors.Is(err, jetstream.ErrConsumerExists) {
			have, err = b.conn.js.Consumer(ctx, stream, config.Durable) // another member made it, with another start
		}
		// A server that lost a stream in a power cut can still have files of its consumers. It
		// gives them to consumers of the new stream, which would then skip messages.
		if err == nil && have.CachedInfo().Delivered.Consumer > 0 && have.CachedInfo().Delivered.Last == nil {
			if err = b.conn.js.DeleteConsumer(ctx, stream, config.Durable); err == nil {
				have, err = b.conn.js.CreateConsumer(ctx, stream, config)
			}
		}
	}
	if err != nil {
		return err
	}
	if current := have.CachedInfo().Config; current.AckWait != b.set.ackWait {
		current.AckWait = b.set.ackWait
		_, err = b.conn.js.UpdateConsumer(ctx, stream, current)
	}
	return err
}

// fromHere turns "from now" into a start at the next message: if the server loses the group's
// position, the group begins there again and not at a later now.
func (b *broker) fromHere(ctx context.Context, stream string, config jetstream.ConsumerConfig) (jetstream.ConsumerConfig, error) {
	if config.DeliverPolicy != jetstream.DeliverNewPolicy {
		return config, nil
	}
	s, err := b.conn.js.Stream(ctx, stream)
	if err != nil {
		return config, err
	}
	config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, s.CachedInfo().State.LastSeq+1
	return config, nil
}

// gone returns why the consumer will never answer, or nil if that is unknown.
func (p *puller) gone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := p.b.conn.js.Consumer(ctx, p.stream, p.consumer)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		p.b.forget(p.sub.Topic) // the stream may have been made again
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
