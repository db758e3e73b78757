package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

// Subscribe implements driver.Broker. It fails for good when the topic is deleted or must not be
// read. Subscribing again makes the topic anew, and the group then gets all of it. A member that
// dies loses its partitions after Options.AckWait, but not before 6 s and not after 5 minutes.
//
// Ack returns before the offset is committed. Offsets are committed ten times a second and before a
// partition is given up. A member whose Subscribe returned keeps its partitions until nothing is in
// flight, for at most 10 s or AckWait. Ack fails if the partition was given up by then.
func (b *Broker) Subscribe(ctx context.Context, sub driver.Subscription, deliver func(driver.Delivery)) error {
	if err := sub.Validate(); err != nil {
		return err
	}
	sub.MaxInFlight = cmp.Or(sub.MaxInFlight, driver.DefaultMaxInFlight)
	if err := b.begin(); err != nil {
		return err
	}
	defer b.calls.Done()
	ctx, stop := steady.Join(ctx, b.ctx)
	defer stop()
	healthy, begun := b.Healthy() == nil, time.Now()
	m, err := b.join(ctx, sub)
	for err != nil && healthy && !refused(err) && time.Since(begun) < callTimeout && steady.Sleep(ctx, pingAgain) {
		m, err = b.join(ctx, sub) // the connection has just broken
	}
	if err == nil {
		err = m.run(ctx, deliver)
	}
	if err != nil && ctx.Err() == nil && !b.isClosed() {
		return fmt.Errorf("kafka: subscribe %s to %s at %s: %w", sub.Group, sub.Topic, b.url, err)
	}
	return nil
}

// refused reports whether the cluster has given a final answer.
func refused(err error) bool {
	answer, ok := errors.AsType[*kerr.Error](err)
	return ok && !answer.Retriable
}

// join makes sure that the group has its offsets and makes a member of it.
func (b *Broker) join(ctx context.Context, sub driver.Subscription) (*member, error) {
	if err := b.Healthy(); err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	bounded, cancel := b.bound(ctx)
	defer cancel()
	topic, err := b.ensureGroup(bounded, sub)
	if err != nil {
		return nil, err
	}
	m := newMember(b, sub, topic)
	m.cl, err = kgo.NewClient(slices.Concat(b.base, m.options())...)
	return m, err
}

// ensureGroup makes sure that the topic exists and that the group has offsets in it, and returns
// Kafka's name of the topic.
func (b *Broker) ensureGroup(ctx context.Context, sub driver.Subscription) (string, error) {
	info, err := b.topic(ctx, sub.Topic, sub.Raw)
	if err != nil {
		return "", err
	}
	if err := b.pin(ctx, sub, info.name); err != nil {
		return "", b.lacks("Read", info.name, groupName(sub), b.cause(ctx, err))
	}
	return info.name, nil
}

// pin stores where a new group starts. Without it, a group "from now" whose member dies before its
// first commit would start at a later now. All partitions go in one request: a partition without an
// offset in a group that has others was added later and is read from its beginning. If this Broker
// knew the group on a topic that was deleted, the group starts at the beginning of the new topic,
// since everything there was published after the group began.
func (b *Broker) pin(ctx context.Context, sub driver.Subscription, topic string) error {
	b.pinning.Lock()
	defer b.pinning.Unlock()
	for {
		err := b.pinOnce(ctx, sub, topic)
		if err == nil || !errors.Is(err, kerr.UnknownMemberID) && !kerr.IsRetriable(err) {
			return err
		}
		// Another member has stored the offsets, or a topic or coordinator is not ready.
		if !steady.Sleep(ctx, declareAgain) {
			return fmt.Errorf("offsets of the new group: %w: %w", context.Cause(ctx), err)
		}
	}
}

func (b *Broker) pinOnce(ctx context.Context, sub driver.Subscription, topic string) error {
	list := b.adm.ListEndOffsets
	if sub.From == driver.FromBeginning || b.remade(sub) {
		list = b.adm.ListStartOffsets
	}
	starts, err := list(ctx, topic) // before the group's offsets are read, or a start could lie above what another member has stored meanwhile
	if err == nil {
		err = starts.Error()
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) { // deleted since this Broker saw it
		b.forget(sub.Topic)
		if _, err = b.topic(ctx, sub.Topic, sub.Raw); err == nil {
			err = kerr.UnknownTopicOrPartition // retriable: try once more
		}
	}
	if err != nil {
		return err
	}
	group := groupName(sub)
	have, err := b.adm.FetchOffsetsForTopics(ctx, group, topic)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return err
	}
	if slices.ContainsFunc(have.Sorted(), func(o kadm.OffsetResponse) bool { return o.At >= 0 }) {
		b.pinnedNow(sub)
		return nil
	}
	offsets := make(kadm.Offsets)
	starts.Each(func(o kadm.ListedOffset) { offsets.AddOffset(topic, o.Partition, o.Offset, -1) })
	if err = b.adm.CommitAllOffsets(ctx, group, offsets); err == nil {
		b.pinnedNow(sub)
	}
	return err
}

// remade reports whether this Broker last knew the group on another topic of this name.
func (b *Broker) remade(sub driver.Subscription) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	before, was := b.pinned[groupName(sub)]
	now, ok := b.topics[sub.Topic]
	return was && ok && now.id != before
}

func (b *Broker) pinnedNow(sub driver.Subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now, ok := b.topics[sub.Topic]; ok {
		b.pinned[groupName(sub)] = now.id
	}
}
