package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/kaptar/kaptar/messaging/driver"
)

// errNoSuch is for a topic or group that the first Publish or Subscribe makes.
var errNoSuch = errors.New("there is no such topic or group yet: it is made when the service first starts")

// Lag implements driver.LagReporter. It counts from the committed offset to the end of each
// partition, so acknowledged messages above an unacknowledged one count too. The age of the oldest
// message is not known.
func (b *Broker) Lag(ctx context.Context, sub driver.Subscription) (list []driver.PartitionLag, err error) {
	err = b.about(ctx, "lag", sub, func(ctx context.Context, topic string) error {
		have, err := b.offsets(ctx, groupName(sub), topic)
		if err != nil {
			return err
		}
		starts, err := b.adm.ListStartOffsets(ctx, topic)
		if err != nil {
			return err
		}
		ends, err := b.adm.ListEndOffsets(ctx, topic)
		if err != nil {
			return err
		}
		for _, end := range ends.Offsets().Sorted() {
			at := int64(0)
			if o, ok := have.Lookup(topic, end.Partition); ok {
				at = o.At
			}
			if start, ok := starts.Lookup(topic, end.Partition); ok { // what was dropped does not wait
				at = max(at, start.Offset)
			}
			list = append(list, driver.PartitionLag{Partition: strconv.Itoa(int(end.Partition)), Waiting: max(end.At-at, 0)})
		}
		return errors.Join(starts.Error(), ends.Error())
	})
	return list, err
}

// offsets returns the offsets of a group, or errNoSuch if it has none.
func (b *Broker) offsets(ctx context.Context, group, topic string) (kadm.OffsetResponses, error) {
	have, err := b.adm.FetchOffsetsForTopics(ctx, group, topic)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, errNoSuch
	}
	if err != nil {
		return nil, err
	}
	known := false
	have.Each(func(o kadm.OffsetResponse) { known = known || o.At >= 0 })
	if !known {
		return nil, errNoSuch
	}
	return have, nil
}

// Reset implements driver.Resetter. Kafka refuses it while the group has members, which includes
// one that was killed less than its session timeout ago: AckWait, but 6 s to 5 minutes. A group
// that does not exist is made.
func (b *Broker) Reset(ctx context.Context, sub driver.Subscription, to time.Time) error {
	return b.about(ctx, "reset", sub, func(ctx context.Context, topic string) error {
		list, err := b.adm.ListStartOffsets(ctx, topic)
		if !to.IsZero() && err == nil {
			list, err = b.adm.ListOffsetsAfterMilli(ctx, to.UnixMilli(), topic)
		}
		if err == nil {
			err = list.Error()
		}
		if err != nil {
			return err
		}
		err = b.adm.CommitAllOffsets(ctx, groupName(sub), list.Offsets())
		if errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.NonEmptyGroup) || errors.Is(err, kerr.RebalanceInProgress) {
			return fmt.Errorf("the group has members: stop them, and wait %v after one that was killed: %w", b.opts.sessionTimeout(), err)
		}
		return err
	})
}

// Retention implements driver.Retainer: the topic's retention.ms, which needs DescribeConfigs.
func (b *Broker) Retention(ctx context.Context, topic string) (keeps time.Duration, err error) {
	err = b.about(ctx, "retention", driver.Subscription{Topic: topic}, func(ctx context.Context, topic string) error {
		configs, err := b.adm.DescribeTopicConfigs(ctx, topic)
		if err != nil {
			return err
		}
		_, err = configs.On(topic, func(c *kadm.ResourceConfig) error {
			if c.Err != nil {
				return b.lacks("DescribeConfigs", topic, "", c.Err)
			}
			for _, entry := range c.Configs {
				if entry.Key == "retention.ms" {
					ms, err := strconv.ParseInt(entry.MaybeValue(), 10, 64)
					keeps = time.Duration(max(ms, 0)) * time.Millisecond // -1 is for ever
					return err
				}
			}
			return errors.New("the broker does not tell retention.ms")
		})
		return err
	})
	return keeps, err
}

// about calls do with Kafka's name of a topic that exists.
func (b *Broker) about(ctx context.Context, verb string, sub driver.Subscription, do func(ctx context.Context, topic string) error) error {
	if err := b.begin(); err != nil {
		return err
	}
	defer b.calls.Done()
	if err := b.Healthy(); err != nil {
		return err
	}
	ctx, cancel := b.bound(ctx)
	defer cancel()
	name, err := b.find(ctx, sub.Topic)
	if err == nil {
		err = do(ctx, name)
	}
	if err != nil {
		what := "topic " + sub.Topic
		if sub.Group != "" {
			what = "group " + sub.Group + " in " + what
		}
		return fmt.Errorf("kafka: %s of %s at %s: %w", verb, what, b.url, b.lacks("Read", sub.Topic, groupName(sub), b.cause(ctx, err)))
	}
	return nil
}

// find returns Kafka's name of a topic that exists.
func (b *Broker) find(ctx context.Context, topic string) (string, error) {
	if info, ok := b.known(topic); ok {
		return info.name, nil
	}
	for _, name := range []string{topic, otherName(topic)} {
		if _, there, err := b.exists(ctx, name); err != nil || there {
			return name, err
		}
	}
	return "", errNoSuch
}
