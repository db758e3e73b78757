package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

const (
	// newLimit is max.message.bytes of a new topic: room for driver.MaxSize with Kafka's framing.
	newLimit = driver.MaxSize + 1<<20

	// usualLimit is Kafka's own default, for topics whose settings may not be read.
	usualLimit = 1<<20 + 12

	declareAgain = 25 * time.Millisecond
)

// topicInfo is what the driver knows of a topic that exists.
type topicInfo struct {
	name  string // Kafka's
	id    kadm.TopicID
	limit int32 // bytes of a batch
}

// Declare implements driver.Broker.
func (b *Broker) Declare(ctx context.Context, sub driver.Subscription) error {
	if err := sub.ValidateDeclare(); err != nil {
		return err
	}
	if err := b.begin(); err != nil {
		return err
	}
	defer b.calls.Done()
	if err := b.Healthy(); err != nil {
		return err
	}
	ctx, cancel := b.bound(ctx)
	defer cancel()
	if sub.Group == "" {
		_, err := b.topic(ctx, sub.Topic, sub.Raw)
		return err
	}
	if _, err := b.ensureGroup(ctx, sub); err != nil {
		return fmt.Errorf("kafka: declare group %s of topic %s at %s: %w", sub.Group, sub.Topic, b.url, err)
	}
	return nil
}

// topic returns what is known of a topic, after making it if needed.
func (b *Broker) topic(ctx context.Context, topic string, raw bool) (topicInfo, error) {
	if info, ok := b.known(topic); ok {
		return info, nil
	}
	b.declaring.Lock()
	defer b.declaring.Unlock()
	if info, ok := b.known(topic); ok {
		return info, nil
	}
	info, err := b.declare(ctx, topic, raw)
	if err != nil {
		return topicInfo{}, fmt.Errorf("kafka: declare topic %s at %s: %w", topic, b.url, b.cause(ctx, err))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.topics[topic] = info
	b.limits[info.name] = info.limit
	return info, nil
}

func (b *Broker) known(topic string) (topicInfo, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	info, ok := b.topics[topic]
	return info, ok
}

// forget makes the next call look for the topic again, since it seems to be deleted. The client has
// to forget it too, or it would produce to the old one for ever.
func (b *Broker) forget(topic string) {
	b.mu.Lock()
	info, ok := b.topics[topic]
	delete(b.topics, topic)
	b.mu.Unlock()
	if ok {
		b.cl.PurgeTopicsFromProducing(info.name)
	}
}

func (b *Broker) declare(ctx context.Context, topic string, raw bool) (topicInfo, error) {
	names := []string{topic, otherName(topic)}
	if raw {
		names = names[:1]
	}
	for _, name := range names {
		switch id, there, err := b.exists(ctx, name); {
		case there:
			return b.describe(ctx, name, id)
		case name != topic && errors.Is(err, kerr.TopicAuthorizationFailed): // the user may see the topic and no other
		case err != nil:
			return topicInfo{}, b.lacks("Describe", name, "", err)
		}
	}
	name := topic
	err := b.create(ctx, name)
	if errors.Is(err, kerr.InvalidTopicException) && !raw { // the name is valid, so it collides with another one
		name = otherName(topic)
		err = b.create(ctx, name)
	}
	if err != nil {
		return topicInfo{}, fmt.Errorf("it does not exist and cannot be made: %w", b.lacks("Create", name, "", err))
	}
	for { // the brokers learn of it with a delay
		if id, there, err := b.exists(ctx, name); err != nil {
			return topicInfo{}, err
		} else if there {
			return b.describe(ctx, name, id)
		}
		if !steady.Sleep(ctx, declareAgain) {
			return topicInfo{}, fmt.Errorf("made, but has no leaders yet: %w", context.Cause(ctx))
		}
	}
}

// exists reports whether a topic exists with leaders for all its partitions.
func (b *Broker) exists(ctx context.Context, name string) (id kadm.TopicID, there bool, err error) {
	found, err := b.adm.ListTopics(ctx, name)
	if err != nil {
		return id, false, err
	}
	detail := found[name]
	if detail.Err != nil {
		if errors.Is(detail.Err, kerr.UnknownTopicOrPartition) || kerr.IsRetriable(detail.Err) {
			return id, false, nil
		}
		return id, false, detail.Err
	}
	for _, p := range detail.Partitions {
		if p.Leader < 0 {
			return id, false, nil
		}
	}
	return detail.ID, len(detail.Partitions) > 0, nil
}

// create makes a topic. One that exists already is no error. In a cluster that starts, brokers that
// the controller has not heard of yet are waited for until ctx ends.
func (b *Broker) create(ctx context.Context, name string) error {
	replicas := b.opts.Replicas
	if replicas == 0 {
		meta, err := b.adm.BrokerMetadata(ctx)
		if err != nil {
			return err
		}
		replicas = max(1, min(3, len(meta.Brokers)))
	}
	config := map[string]*string{
		"retention.ms":                   new(strconv.FormatInt(b.opts.Retention.Milliseconds(), 10)),
		"max.message.bytes":              new(strconv.Itoa(newLimit)),
		"cleanup.policy":                 new("delete"),
		"unclean.leader.election.enable": new("false"),
	}
	if replicas >= 3 {
		config["min.insync.replicas"] = new("2")
	}
	create := func() (kadm.CreateTopicResponse, error) {
		return b.adm.CreateTopic(ctx, int32(b.opts.Partitions), int16(replicas), config, name) //nolint:gosec // at most 10 000 and 100
	}
	answer, err := create()
	for errors.Is(err, kerr.InvalidReplicationFactor) && strings.Contains(answer.ErrMessage, "fenced") && steady.Sleep(ctx, pingAgain) {
		answer, err = create()
	}
	if err == nil || errors.Is(err, kerr.TopicAlreadyExists) {
		return nil
	}
	if answer.ErrMessage != "" {
		return fmt.Errorf("%w: %s", err, answer.ErrMessage)
	}
	return err
}

// describe reads the largest batch that the topic takes.
func (b *Broker) describe(ctx context.Context, name string, id kadm.TopicID) (topicInfo, error) {
	info := topicInfo{name: name, id: id, limit: usualLimit}
	configs, err := b.adm.DescribeTopicConfigs(ctx, name)
	if err != nil {
		if ctx.Err() != nil {
			return info, err
		}
		return info, nil // not allowed, most likely
	}
	_, _ = configs.On(name, func(c *kadm.ResourceConfig) error {
		for _, entry := range c.Configs {
			if n, err := strconv.ParseInt(entry.MaybeValue(), 10, 32); entry.Key == "max.message.bytes" && err == nil {
				info.limit = min(int32(n), newLimit)
			}
		}
		return nil
	})
	return info, nil
}
