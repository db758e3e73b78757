package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

var _ driver.Broker = (*broker)(nil)
var _ driver.HealthReporter = (*broker)(nil)
var _ driver.LagReporter = (*broker)(nil)
var _ driver.Resetter = (*broker)(nil)
var _ driver.Retainer = (*broker)(nil)

// A broker is the side of a backend for events: it implements driver.Broker. Its methods may be
// called concurrently.
type broker struct {
	set  settings
	conn *connection

	atomicMin  int           // the constant; lower in benchmarks
	ackTimeout time.Duration // callTimeout; shorter in tests

	ending sync.Once
	done   chan struct{} // closed by Close, under mu
	calls  sync.WaitGroup
	idle   chan struct{} // closed when Close has ended everything

	mu      sync.Mutex
	topics  map[string]topicInfo
	pullers map[*puller]struct{}
	free    []*replyInbox            // for the next calls
	inboxes map[*replyInbox]struct{} // all of them

	questions map[*question]struct{}

	working steady.Health // of topics and groups, while the server can be reached

	groups  *bucket   // who has which partition of the groups with Ordered
	changed time.Time // time of the last reconnection

	// joined has the creation time of a group's stream, by stream and consumer.
	joined map[string]time.Time
}

// topicInfo is what the driver knows of a stream that exists.
type topicInfo struct {
	stream  string
	created time.Time // one that was deleted and made again is another
	atomic  bool      // takes atomic batches
}

func newBroker(conn *connection, set settings) *broker {
	return &broker{
		set: set, conn: conn, atomicMin: atomicMin, ackTimeout: callTimeout, done: make(chan struct{}), idle: make(chan struct{}),
		topics: make(map[string]topicInfo), pullers: make(map[*puller]struct{}), joined: make(map[string]time.Time),
		inboxes: make(map[*replyInbox]struct{}), questions: make(map[*question]struct{}),
		groups: &bucket{conn: conn, cfg: bucketConfig{name: groupsBucket, description: "kaptar groups", replicas: set.replicas, check: checkEvery}},
	}
}

// reconnected tells all subscriptions that what they asked the server for is forgotten.
func (b *broker) reconnected() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed = time.Now()
	for p := range b.pullers {
		p.restart()
	}
}

// SharesMessages implements driver.Sharer: the server gives a message to the member that asks next.
func (b *broker) SharesMessages() {}

// Healthy implements driver.HealthReporter. It also reports a topic whose last Publish the server
// left unanswered or refused for lack of space, and a group whose last Subscribe failed.
func (b *broker) Healthy() error { return cmp.Or(b.reachable(), b.working.Err()) }

func (b *broker) reachable() error {
	if b.isClosed() {
		return fmt.Errorf("nats: %w", driver.ErrClosed)
	}
	return b.conn.healthy()
}

// Declare implements driver.Broker.
func (b *broker) Declare(ctx context.Context, sub driver.Subscription) error {
	if err := sub.ValidateDeclare(); err != nil {
		return err
	}
	if sub.Group != "" {
		if _, err := b.join(ctx, sub); err != nil && !errors.Is(err, errOtherKind) { // the group is there
			return fmt.Errorf("nats: declare group %s of topic %s at %s: %w", sub.Group, sub.Topic, b.conn.url, err)
		}
		return nil
	}
	if err := b.reachable(); err != nil {
		return err
	}
	ctx, cancel := b.conn.bound(ctx)
	defer cancel()
	_, err := b.topic(ctx, sub.Topic, sub.Raw)
	return err
}

// topic returns what is known of a topic, after making its stream if needed.
func (b *broker) topic(ctx context.Context, topic string, raw bool) (topicInfo, error) {
	info, ok := b.known(topic)
	if ok {
		return info, nil
	}
	subjects := topic + ".*"
	if raw {
		subjects = topic
		if err := (driver.Subscription{Topic: topic}).ValidateDeclare(); err != nil { // it may be a wildcard
			return topicInfo{}, fmt.Errorf("nats: subject of a raw topic: %w", err)
		}
	}
	name := escapeName(topic)
	ctx, done := b.askAbout(ctx, name)
	defer done()
	var stream jetstream.Stream
	// In a cluster nobody answers for a stream while its leader is elected, which includes the time
	// of its creation.
	err := insist(ctx, func(ctx context.Context) (err error) {
		stream, err = b.conn.stream(ctx, b.streamConfig(name, topic, subjects))
		return err
	})
	if err != nil {
		return topicInfo{}, fmt.Errorf("nats: declare topic %s: stream %s at %s: %w", topic, name, b.conn.url, b.cause(ctx, err))
	}
	config := stream.CachedInfo().Config
	if len(config.Subjects) != 1 || config.Subjects[0] != subjects {
		return topicInfo{}, fmt.Errorf("nats: declare topic %s: stream %s at %s has subjects %q, expected %q: it was not made by this driver",
			topic, name, b.conn.url, config.Subjects, subjects)
	}
	info = topicInfo{stream: name, created: stream.CachedInfo().Created, atomic: config.AllowAtomicPublish && b.set.atomic}
	b.mu.Lock()
	b.topics[topic] = info
	b.mu.Unlock()
	return info, nil
}

// known returns what is known of a topic without asking the server.
func (b *broker) known(topic string) (info topicInfo, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	info, ok = b.topics[topic]
	return info, ok
}

func (b *broker) streamConfig(name, topic, subjects string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: name, Description: "kaptar topic " + topic, Subjects: []string{subjects},
		Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld,
		MaxAge: b.set.maxAge, Replicas: b.set.replicas, Duplicates: b.set.duplicateWindow,
		AllowAtomicPublish: true, // servers before 2.12 ignore it, and say so in their answer
	}
}

// forget makes the next call look for the topic's stream again.
func (b *broker) forget(topic string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.topics, topic)
}

// Close implements driver.Broker. It leaves the connection to the backend.
func (b *broker) Close(ctx context.Context) error {
	b.ending.Do(func() {
		b.mu.Lock()
		close(b.done)
		b.mu.Unlock()
		go func() {
			defer close(b.idle)
			b.calls.Wait()
			if b.conn.IsConnected() {
				_ = b.conn.FlushTimeout(callTimeout) // acknowledgements; those lost make messages come again
			}
		}()
	})
	select {
	case <-b.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("nats: close: cut, a deliver function or the server still kept it: %w", context.Cause(ctx))
	}
}

// cause translates the error of a call with ctx into package driver's, or the reason why ctx ended.
func (b *broker) cause(ctx context.Context, err error) error {
	err = b.conn.cause(ctx, err)
	if errors.Is(err, errClosed) {
		return fmt.Errorf("%w: %w", driver.ErrClosed, err)
	}
	return err
}
