package natsdriver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/messaging/driver"
)

// callTimeout bounds each call whose context has no deadline.
const callTimeout = 10 * time.Second

var _ driver.Broker = (*Broker)(nil)
var _ driver.HealthReporter = (*Broker)(nil)

func init() {
	driver.Register("nats", func(ctx context.Context, url string) (driver.Broker, error) { return Open(ctx, url, nil) })
}

// A Broker implements driver.Broker with one connection to a NATS server or cluster. Make it with [Open]; all methods may
// be called concurrently.
type Broker struct {
	opts Options
	url  string // redacted
	nc   *nats.Conn
	js   jetstream.JetStream

	done  chan struct{} // closed by Close
	calls sync.WaitGroup
	idle  chan struct{} // closed when Close has ended everything

	mu      sync.Mutex
	closed  bool
	topics  map[string]topicInfo
	pullers map[*puller]struct{}
	since   time.Time // when the connection was lost
	lost    error     // why

	// link ends with the cause when the connection is lost, and is another one after each reconnection: an answer that was
	// awaited over the old connection will not come.
	link context.Context
	cut  context.CancelCauseFunc
}

// errLost is the cause of a call's end when the connection was lost under it.
var errLost = errors.New("connection lost")

// topicInfo is what the driver knows of a stream that exists.
type topicInfo struct {
	stream string
	atomic bool // takes atomic batches
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
		opts: o.withDefaults(), url: driver.Redact(servers),
		done: make(chan struct{}), idle: make(chan struct{}),
		topics: make(map[string]topicInfo), pullers: make(map[*puller]struct{}),
	}
	b.link, b.cut = context.WithCancelCause(context.Background())
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("natsdriver: connect to %s: %w", b.url, err)
	}
	timeout := 5 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	if b.nc, err = nats.Connect(servers, append(b.opts.Connect, b.connectOptions(timeout)...)...); err != nil {
		return nil, fmt.Errorf("natsdriver: connect to %s: %w", b.url, redacted(err))
	}
	// Only errors of whole calls matter here: the timeout just has to be longer than the wait for them.
	b.js, err = jetstream.New(b.nc, jetstream.WithPublishAsyncTimeout(2*callTimeout), jetstream.WithPublishAsyncMaxPending(1<<16))
	if err == nil {
		ctx, cancel := b.bound(ctx)
		defer cancel()
		_, err = b.js.AccountInfo(ctx)
	}
	if err != nil {
		b.nc.Close()
		return nil, fmt.Errorf("natsdriver: %s answers, but its JetStream does not (start it with --jetstream): %w", b.url, err)
	}
	return b, nil
}

func (b *Broker) connectOptions(timeout time.Duration) []nats.Option {
	return []nats.Option{
		nats.Name("kaptar"),
		nats.Timeout(timeout),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // a wrong password may be put right at the server
		nats.CustomReconnectDelay(func(attempts int) time.Duration {
			limit := min(5*time.Second, 50*time.Millisecond<<min(attempts, 10))
			return limit/2 + rand.N(limit/2+1)
		}),
		nats.ReconnectBufSize(-1), // a lost connection must fail a Publish now: later the message could overtake others
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.since, b.lost = time.Now(), err
			b.cut(errLost)
		}),
		nats.ReconnectHandler(func(*nats.Conn) { b.reconnected() }),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // the default one prints; callers get errors
	}
}

// reconnected tells all subscriptions that what they asked the server for is forgotten.
func (b *Broker) reconnected() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.link, b.cut = context.WithCancelCause(context.Background())
	for p := range b.pullers {
		p.restart()
	}
}

// Healthy implements driver.HealthReporter.
func (b *Broker) Healthy() error {
	b.mu.Lock()
	closed, since, lost := b.closed, b.since, b.lost
	b.mu.Unlock()
	switch {
	case closed:
		return fmt.Errorf("natsdriver: %w", driver.ErrClosed)
	case b.nc.IsConnected():
		return nil
	case lost == nil:
		return fmt.Errorf("natsdriver: no connection to %s since %s", b.url, since.Format(time.RFC3339))
	}
	return fmt.Errorf("natsdriver: no connection to %s since %s: %w", b.url, since.Format(time.RFC3339), lost)
}

// Declare implements driver.Broker.
func (b *Broker) Declare(ctx context.Context, topic string) error {
	if err := driver.ValidateTopic(topic); err != nil {
		return err
	}
	if err := b.Healthy(); err != nil {
		return err
	}
	ctx, cancel := b.bound(ctx)
	defer cancel()
	_, err := b.topic(ctx, topic)
	return err
}

// topic returns what is known of a topic, after making its stream if need be.
func (b *Broker) topic(ctx context.Context, topic string) (topicInfo, error) {
	b.mu.Lock()
	info, ok := b.topics[topic]
	b.mu.Unlock()
	if ok {
		return info, nil
	}
	name := escapeName(topic)
	stream, err := b.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = b.js.CreateStream(ctx, b.streamConfig(name, topic))
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another program was faster
			stream, err = b.js.Stream(ctx, name)
		}
	}
	if err != nil {
		return topicInfo{}, fmt.Errorf("natsdriver: declare topic %s: stream %s at %s: %w", topic, name, b.url, b.cause(ctx, err))
	}
	config := stream.CachedInfo().Config
	if len(config.Subjects) != 1 || config.Subjects[0] != topic+".*" {
		return topicInfo{}, fmt.Errorf("natsdriver: declare topic %s: stream %s at %s has subjects %q, want %q: it was not made by this driver",
			topic, name, b.url, config.Subjects, topic+".*")
	}
	info = topicInfo{stream: name, atomic: config.AllowAtomicPublish && !b.opts.NoAtomic}
	b.mu.Lock()
	b.topics[topic] = info
	b.mu.Unlock()
	return info, nil
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
				_ = b.nc.FlushTimeout(callTimeout) // acknowledgements; those lost make messages come again
			}
			b.nc.Close()
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
	if errors.Is(err, ctx.Err()) { // never when ctx goes on
		err = context.Cause(ctx)
	}
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, jetstream.ErrConnectionClosed) {
		return fmt.Errorf("%w: %w", driver.ErrClosed, err)
	}
	return err
}

// bound gives ctx a deadline if it has none, and ends it when the connection is lost.
func (b *Broker) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	b.mu.Lock()
	link := b.link
	b.mu.Unlock()
	stopTimer := func() {}
	if _, ok := ctx.Deadline(); !ok {
		ctx, stopTimer = context.WithTimeout(ctx, callTimeout)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stopWatch := context.AfterFunc(link, func() { cancel(context.Cause(link)) })
	return ctx, func() {
		stopWatch()
		cancel(nil)
		stopTimer()
	}
}

// redacted hides credentials in errors about URLs, which quote them.
func redacted(err error) error {
	if text := driver.Redact(err.Error()); text != err.Error() {
		return errors.New(text)
	}
	return err
}
