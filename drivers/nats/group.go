package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/internal/partition"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

// errOtherKind is why a member cannot join now.
var errOtherKind = errors.New("the group has members with another value of Ordered: stop them before this one joins")

// partitionConsumers makes the consumers of a group with Ordered, one for each partition. If the
// group had a single consumer, they continue at its position and it is deleted.
func (b *broker) partitionConsumers(ctx context.Context, info topicInfo, sub driver.Subscription, config jetstream.ConsumerConfig) error {
	if sub.Raw {
		return fmt.Errorf("subject %s of a raw topic has no partitions to share out: subscribe without Ordered: %w", sub.Topic, errors.ErrUnsupported)
	}
	whole, err := b.conn.js.Consumer(ctx, info.stream, config.Durable)
	switch {
	case err == nil:
		now := whole.CachedInfo()
		if now.NumWaiting > 0 {
			return errOtherKind
		}
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, now.AckFloor.Stream+1
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return err
	}
	for p := range partition.Count {
		config.Durable, config.FilterSubject = partitionConsumer(sub.Group, p), sub.Topic+"."+partition.Name(p)
		if err := b.ensure(ctx, info.stream, config); err != nil {
			return err
		}
	}
	if whole == nil {
		return nil
	}
	return ignoring(jetstream.ErrConsumerNotFound, b.conn.js.DeleteConsumer(ctx, info.stream, escapeName(sub.Group)))
}

// wholeConsumer makes the consumer of a group without Ordered. If the group had one for each
// partition, it continues at the position of the one furthest behind, and they are deleted.
func (b *broker) wholeConsumer(ctx context.Context, info topicInfo, sub driver.Subscription, config jetstream.ConsumerConfig) error {
	if sub.Raw {
		return b.ensure(ctx, info.stream, config)
	}
	_, err := b.conn.js.Consumer(ctx, info.stream, config.Durable)
	if err == nil {
		return b.ensure(ctx, info.stream, config)
	}
	if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return err
	}
	stream, err := b.conn.js.Stream(ctx, info.stream)
	if err != nil {
		return err
	}
	start, found := stream.CachedInfo().State.LastSeq+1, false
	for p := range partition.Count {
		one, err := b.conn.js.Consumer(ctx, info.stream, partitionConsumer(sub.Group, p))
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if p == 0 {
			if err := b.noneOrdered(ctx, info, sub); err != nil {
				return err
			}
		}
		found = true
		if now := one.CachedInfo(); now.NumPending > 0 || now.NumAckPending > 0 {
			start = min(start, now.AckFloor.Stream+1)
		}
	}
	if found {
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, start
	}
	if err := b.ensure(ctx, info.stream, config); err != nil || !found {
		return err
	}
	return b.deletePartitions(ctx, info.stream, sub.Group)
}

func (b *broker) deletePartitions(ctx context.Context, stream, group string) error {
	for p := range partition.Count {
		err := b.conn.js.DeleteConsumer(ctx, stream, partitionConsumer(group, p))
		if err := ignoring(jetstream.ErrConsumerNotFound, err); err != nil {
			return err
		}
	}
	return nil
}

// noneOrdered returns an error while a group has members with Ordered.
func (b *broker) noneOrdered(ctx context.Context, info topicInfo, sub driver.Subscription) error {
	r, _, err := rosterKey{b.groups, info.stream + "." + escapeName(sub.Group)}.read(ctx)
	if err != nil {
		return err
	}
	for _, m := range r.all() {
		if !errors.Is(b.call(ctx, m), nats.ErrNoResponders) {
			return errOtherKind
		}
	}
	return nil
}

// takeOver makes what is in flight of a partition's consumer come again before all else: its owner
// died or took too long. If the server cannot do that, or forbids it, it comes after the ack wait.
func (b *broker) takeOver(ctx context.Context, stream, consumer string) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	ctx, done := b.askAbout(ctx, stream)
	defer done()
	late := false
	_ = insist(ctx, func(ctx context.Context) error {
		have, err := b.conn.js.Consumer(ctx, stream, consumer)
		if err == nil && have.CachedInfo().NumAckPending > 0 && !late { // the owner's last acknowledgements may be on their way
			late = true
			steady.Sleep(ctx, ackTravel)
			have, err = b.conn.js.Consumer(ctx, stream, consumer)
		}
		if err != nil || have.CachedInfo().NumAckPending == 0 {
			return err
		}
		answer, err := b.conn.RequestWithContext(ctx, "$JS.API.CONSUMER.RESET."+stream+"."+consumer, nil)
		if err != nil {
			return err
		}
		var result struct {
			Error *jetstream.APIError `json:"error"`
		}
		if err := json.Unmarshal(answer.Data, &result); err != nil || result.Error == nil {
			return err
		}
		return result.Error
	})
}

// Lag implements driver.LagReporter.
func (b *broker) Lag(ctx context.Context, sub driver.Subscription) (list []driver.PartitionLag, err error) {
	if err := sub.Validate(); err != nil {
		return nil, err
	}
	err = b.about(ctx, "lag of group "+sub.Group+" in", sub.Topic, func(ctx context.Context) error {
		stream, err := b.conn.js.Stream(ctx, escapeName(sub.Topic))
		if err != nil {
			return err
		}
		list = make([]driver.PartitionLag, 1)
		if !sub.Ordered {
			list[0], err = lagOf(ctx, stream, escapeName(sub.Group), "")
			return err
		}
		list = make([]driver.PartitionLag, partition.Count)
		for p := range list {
			if list[p], err = lagOf(ctx, stream, partitionConsumer(sub.Group, p), partition.Name(p)); err != nil {
				return err
			}
		}
		return nil
	})
	return list, err
}

// about calls do, which asks about the stream of a topic.
func (b *broker) about(ctx context.Context, what, topic string, do func(ctx context.Context) error) error {
	if err := b.reachable(); err != nil {
		return err
	}
	ctx, cancel := b.conn.bound(ctx)
	defer cancel()
	ctx, done := b.askAbout(ctx, escapeName(topic))
	defer done()
	if err := do(ctx); err != nil {
		return fmt.Errorf("nats: %s topic %s at %s: %w", what, topic, b.conn.url, b.cause(ctx, err))
	}
	return nil
}

// lagOf returns what waits for a consumer.
func lagOf(ctx context.Context, stream jetstream.Stream, consumer, name string) (driver.PartitionLag, error) {
	lag := driver.PartitionLag{Partition: name}
	c, err := stream.Consumer(ctx, consumer)
	if err != nil {
		return lag, err
	}
	now := c.CachedInfo()
	lag.Waiting = int64(now.NumPending) + int64(now.NumAckPending) //nolint:gosec // no stream has so many
	if lag.Waiting == 0 {
		return lag, nil
	}
	var opts []jetstream.GetMsgOpt
	if now.Config.FilterSubject != "" {
		opts = append(opts, jetstream.WithGetMsgSubject(now.Config.FilterSubject))
	} else {
		opts = append(opts, jetstream.WithGetMsgSubject(">"))
	}
	if oldest, err := stream.GetMsg(ctx, now.AckFloor.Stream+1, opts...); err == nil { // else it was handled or dropped meanwhile
		lag.Oldest = oldest.Time
	}
	return lag, nil
}

// Reset implements driver.Resetter. It makes the group's consumers anew, or makes them if there are
// none. It fails while members with Ordered are there. Subscribe calls of others end with an error,
// and should begin again only after Reset.
func (b *broker) Reset(ctx context.Context, sub driver.Subscription, to time.Time) error {
	if err := sub.Validate(); err != nil {
		return err
	}
	return b.about(ctx, "reset of group "+sub.Group+" in", sub.Topic, func(ctx context.Context) error {
		info, err := b.topic(ctx, sub.Topic, sub.Raw)
		if err != nil {
			return err
		}
		return b.reset(ctx, info, sub, to)
	})
}

func (b *broker) reset(ctx context.Context, info topicInfo, sub driver.Subscription, to time.Time) error {
	if err := b.noneOrdered(ctx, info, sub); err != nil {
		return err
	}
	config := b.groupConfig(sub.Group)
	config.DeliverPolicy = jetstream.DeliverAllPolicy
	if !to.IsZero() {
		config.DeliverPolicy, config.OptStartTime = jetstream.DeliverByStartTimePolicy, &to
	}
	err := ignoring(jetstream.ErrConsumerNotFound, b.conn.js.DeleteConsumer(ctx, info.stream, config.Durable))
	if err == nil {
		err = b.deletePartitions(ctx, info.stream, sub.Group)
	}
	if err != nil {
		return err
	}
	if sub.Ordered {
		return b.partitionConsumers(ctx, info, sub, config)
	}
	return b.ensure(ctx, info.stream, config)
}

// Retention implements driver.Retainer.
func (b *broker) Retention(ctx context.Context, topic string) (keeps time.Duration, err error) {
	err = b.about(ctx, "retention of", topic, func(ctx context.Context) error {
		stream, err := b.conn.js.Stream(ctx, escapeName(topic))
		if err == nil {
			keeps = stream.CachedInfo().Config.MaxAge
		}
		return err
	})
	return keeps, err
}

// ignoring returns nil for an error of the given kind.
func ignoring(kind, err error) error {
	if errors.Is(err, kind) {
		return nil
	}
	return err
}
