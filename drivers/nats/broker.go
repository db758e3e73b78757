package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/drivers/nats/internal/conn"
	"github.com/kaptar/kaptar/messaging/driver"
)

var _ driver.Broker = (*Broker)(nil)
var _ driver.HealthReporter = (*Broker)(nil)

// A Broker implements driver.Broker with one connection to a NATS server or cluster. Make it with [Open]; all methods may
// be called concurrently.
type Broker struct {
	opts Options
	url  string // redacted
	conn *natsconn.Conn
	nc   *nats.Conn // of conn
	js   jetstream.JetStream

	atomicMin int           // the constant, but for measurements below it
	patience  time.Duration // natsconn.CallTimeout, but for tests

	done  chan struct{} // closed by Close
	calls sync.WaitGroup
	idle  chan struct{} // closed when Close has ended everything

	mu      sync.Mutex
	closed  bool
	topics  map[string]topicInfo
	pullers map[*puller]struct{}
	boxes   []*ackBox // at rest
	out     map[*ackBox]struct{}

	questions map[*question]struct{}

	// joined has when the stream was made in which a group was found or made, by stream and consumer.
	joined map[string]time.Time
}

// topicInfo is what the driver knows of a stream that exists.
type topicInfo struct {
	stream  string
	created time.Time // one that was deleted and made again is another
	atomic  bool      // takes atomic batches
}

// Open connects to the servers of a URL as described at the package. nil options are the zero Options. The first connection
// must succeed, within 5 s or the deadline of ctx, and the server must have JetStream; once open, the Broker reconnects for ever,
// after 50 ms to 5 s.
func Open(ctx context.Context, url string, opts *Options) (*Broker, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	o, servers, err := o.withQuery(url)
	if err != nil {
		return nil, err
	}
	b := &Broker{
		opts: o.withDefaults(), atomicMin: atomicMin, patience: natsconn.CallTimeout, done: make(chan struct{}), idle: make(chan struct{}),
		topics: make(map[string]topicInfo), pullers: make(map[*puller]struct{}), joined: make(map[string]time.Time),
		out: make(map[*ackBox]struct{}), questions: make(map[*question]struct{}),
	}
	b.conn, err = natsconn.Connect(ctx, natsconn.Config{
		Package: "natsdriver", Servers: servers, Options: o.Connect, Reconnected: b.reconnected, Denied: b.denied,
	})
	if err != nil {
		return nil, err
	}
	b.url, b.nc, b.js = b.conn.URL, b.conn.Conn, b.conn.JS
	bounded, cancel := b.bound(ctx)
	defer cancel()
	if _, err := b.js.AccountInfo(bounded); err != nil {
		b.nc.Close()
		return nil, fmt.Errorf("natsdriver: %s answers, but its JetStream does not (start it with --jetstream): %w", b.url, err)
	}
	return b, nil
}

// SetLogger says where the loss of the connection and its return are logged, once each; at first nowhere.
func (b *Broker) SetLogger(log *slog.Logger) { b.conn.SetLogger(log) }

// reconnected tells all subscriptions that what they asked the server for is forgotten.
func (b *Broker) reconnected() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for p := range b.pullers {
		p.restart()
	}
}

// Healthy implements driver.HealthReporter.
func (b *Broker) Healthy() error {
	b.mu.Lock()
	closed := b.closed
	b.mu.Unlock()
	if closed {
		return fmt.Errorf("natsdriver: %w", driver.ErrClosed)
	}
	return b.conn.Healthy()
}

// Declare implements driver.Broker.
func (b *Broker) Declare(ctx context.Context, sub driver.Subscription) error {
	if err := sub.ValidateDeclare(); err != nil {
		return err
	}
	if sub.Group != "" {
		if _, err := b.join(ctx, sub); err != nil {
			return fmt.Errorf("natsdriver: declare group %s of topic %s at %s: %w", sub.Group, sub.Topic, b.url, err)
		}
		return nil
	}
	if err := b.Healthy(); err != nil {
		return err
	}
	ctx, cancel := b.bound(ctx)
	defer cancel()
	_, err := b.topic(ctx, sub.Topic)
	return err
}

// topic returns what is known of a topic, after making its stream if need be.
func (b *Broker) topic(ctx context.Context, topic string) (topicInfo, error) {
	info, ok := b.known(topic)
	if ok {
		return info, nil
	}
	name := escapeName(topic)
	ctx, done := b.askAbout(ctx, name)
	defer done()
	var stream jetstream.Stream
	// In a cluster nobody answers for a stream while its leader is elected, also when it is just being made.
	err := natsconn.Insist(ctx, func(ctx context.Context) (err error) {
		stream, err = b.js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			stream, err = b.js.CreateStream(ctx, b.streamConfig(name, topic))
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another program was faster
				stream, err = b.js.Stream(ctx, name)
			}
		}
		return err
	})
	if err != nil {
		return topicInfo{}, fmt.Errorf("natsdriver: declare topic %s: stream %s at %s: %w", topic, name, b.url, b.cause(ctx, err))
	}
	config := stream.CachedInfo().Config
	if len(config.Subjects) != 1 || config.Subjects[0] != topic+".*" {
		return topicInfo{}, fmt.Errorf("natsdriver: declare topic %s: stream %s at %s has subjects %q, want %q: it was not made by this driver",
			topic, name, b.url, config.Subjects, topic+".*")
	}
	info = topicInfo{stream: name, created: stream.CachedInfo().Created, atomic: config.AllowAtomicPublish && b.opts.Atomic}
	b.mu.Lock()
	b.topics[topic] = info
	b.mu.Unlock()
	return info, nil
}

// known returns what is known of a topic without asking the server.
func (b *Broker) known(topic string) (info topicInfo, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	info, ok = b.topics[topic]
	return info, ok
}

func (b *Broker) streamConfig(name, topic string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: name, Description: "kaptar topic " + topic, Subjects: []string{topic + ".*"},
		Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld,
		MaxAge: b.opts.MaxAge, Replicas: b.opts.Replicas, Duplicates: b.opts.DuplicateWindow,
		AllowAtomicPublish: true, // servers before 2.12 ignore it, and say so in their answer
	}
}

// forget makes the next call look for the topic's stream again.
func (b *Broker) forget(topic string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.topics, topic)
}

// Close implements driver.Broker.
func (b *Broker) Close(ctx context.Context) error {
	b.mu.Lock()
	first := !b.closed
	b.closed = true
	b.mu.Unlock()
	if first {
		close(b.done)
		go func() {
			defer close(b.idle)
			b.calls.Wait()
			if b.nc.IsConnected() {
				_ = b.nc.FlushTimeout(natsconn.CallTimeout) // acknowledgements; those lost make messages come again
			}
			b.conn.Close()
		}()
	}
	select {
	case <-b.idle:
		return nil
	case <-ctx.Done():
		b.nc.Close()
		return fmt.Errorf("natsdriver: close: cut, a deliver function or the server still kept it: %w", context.Cause(ctx))
	}
}

// cause gives the error of a call with ctx the name it has in package driver, or that of what ended ctx.
func (b *Broker) cause(ctx context.Context, err error) error {
	err = b.conn.Cause(ctx, err)
	if errors.Is(err, natsconn.ErrClosed) {
		return fmt.Errorf("%w: %w", driver.ErrClosed, err)
	}
	return err
}

// bound gives ctx a deadline if it has none, and ends it when the connection is lost.
func (b *Broker) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return b.conn.Bound(ctx)
}
