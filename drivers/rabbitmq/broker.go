package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

// callTimeout bounds each call whose context has no deadline.
const callTimeout = 10 * time.Second

// ErrNoGroup is in the chain of Publish's error for a topic that has no group, if Options.Mandatory
// is set or the topic's exchange was deleted a moment ago.
var ErrNoGroup = errors.New("topic has no group, so nobody would get the message")

var (
	errLost   = errors.New("connection lost")
	errRefuse = errors.New("the server refused the message")

	errNoQueue = errors.New("it does not exist: declare it in one of its programs, or add the parameter make_queues=true to the broker's URL")
)

var _ driver.Broker = (*Broker)(nil)
var _ driver.HealthReporter = (*Broker)(nil)
var _ driver.LagReporter = (*Broker)(nil)
var _ driver.Resetter = (*Broker)(nil)
var _ driver.Retainer = (*Broker)(nil)

func init() {
	drivers.Register("amqp", open)
	drivers.Register("amqps", open)
}

func open(ctx context.Context, url string, opts *drivers.Options) (drivers.Backend, error) {
	return Open(ctx, url, &Options{Client: opts.Client})
}

// A Broker implements driver.Broker with two connections to a RabbitMQ server or cluster, one to
// publish and one to consume. Make it with [Open]; all methods may be called concurrently.
type Broker struct {
	opts    Options
	url     string   // redacted
	servers []string // one URL for each host

	pub, sub *link
	turns    chan struct{} // has a value for each channel that publishes

	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	calls sync.WaitGroup // of Publish, Subscribe, Nack
	work  sync.WaitGroup // everything else
	idle  chan struct{}  // closed when Close has ended everything

	mu    sync.Mutex     // held by Close while ctx ends
	sizes map[string]int // how many queues the groups have, by their exchange

	members map[*member]struct{} // that have a session
}

// Open connects to the servers of a URL as described at the package. opts may be nil. If no server
// can be reached, or none answers within 5 s each or by ctx's deadline, that is no error: it is
// retried every 50 ms to 2 s. Refused credentials and invalid certificates are errors.
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
		opts: o.withDefaults(), url: redact.URL(servers), turns: make(chan struct{}, maxChannels), idle: make(chan struct{}),
		sizes: make(map[string]int), members: make(map[*member]struct{}),
	}
	if b.servers, err = splitHosts(servers); err != nil {
		return nil, err
	}
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.pub, b.sub = newLink(b), newLink(b)
	for _, l := range []*link{b.pub, b.sub} {
		if err := l.open(ctx); err != nil {
			_ = b.Close(context.Background())
			return nil, fmt.Errorf("rabbitmq: connect to %s: %w", b.url, err)
		}
	}
	return b, nil
}

// Broker returns b, as package drivers asks for it.
func (b *Broker) Broker() (driver.Broker, error) { return b, nil }

// As sets *target to the present connection for publishing, if it is a **amqp.Connection and there
// is one. Open your own channels on it, and do not close it. A reconnection makes another one.
func (b *Broker) As(target any) bool {
	t, ok := target.(**amqp.Connection)
	if !ok {
		return false
	}
	conn, err := b.pub.current()
	if err == nil {
		*t = conn.Connection
	}
	return err == nil
}

// Healthy implements driver.HealthReporter. It also reports a server that is short of memory or
// disk and takes no messages.
func (b *Broker) Healthy() error {
	if err := b.pub.taking(); err != nil {
		return err
	}
	_, err := b.sub.current()
	return err
}

// Declare implements driver.Broker.
func (b *Broker) Declare(ctx context.Context, sub driver.Subscription) error {
	topic := sub.Topic
	if err := sub.ValidateDeclare(); err != nil {
		return err
	}
	if err := b.supports(sub); err != nil {
		return err
	}
	if !b.enter() {
		return fmt.Errorf("rabbitmq: declare topic %s: %w", topic, driver.ErrClosed)
	}
	defer b.calls.Done()
	ctx, cancel := steady.Bound(ctx, callTimeout)
	defer cancel()
	if sub.Raw && !b.opts.MakeQueues { // its programs make the queue
		return nil
	}
	if sub.Group != "" {
		if _, err := b.join(ctx, sub); err != nil {
			return fmt.Errorf("rabbitmq: declare group %s of topic %s at %s: %w", sub.Group, topic, b.url, err)
		}
		return nil
	}
	c, err := b.acquire(ctx)
	if err != nil {
		return fmt.Errorf("rabbitmq: declare topic %s: %w", topic, err)
	}
	err = b.topic(ctx, c, topic, sub.Raw)
	b.release(c, err == nil)
	return err
}

// topic makes sure that the exchange of a topic exists, or with raw its queue.
func (b *Broker) topic(ctx context.Context, c *channel, topic string, raw bool) error {
	if raw {
		return b.makeQueue(ctx, topic)
	}
	if b.pub.isKnown(topic) {
		return nil
	}
	err := b.await(ctx, func() error { return c.ch.ExchangeDeclare(topic, amqp.ExchangeFanout, true, false, false, false, nil) })
	if err != nil {
		return fmt.Errorf("rabbitmq: declare topic %s: exchange at %s: %w", topic, b.url, lacks("configure it", b.cause(err)))
	}
	b.pub.learn(topic, true)
	return nil
}

// enter counts a call that Close waits for. It returns false after Close.
func (b *Broker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	open := !b.isClosed()
	if open {
		b.calls.Add(1)
	}
	return open
}

// Close implements driver.Broker.
func (b *Broker) Close(ctx context.Context) error {
	b.mu.Lock()
	first := !b.isClosed()
	b.stop()
	b.mu.Unlock()
	if first {
		go func() {
			defer close(b.idle)
			b.calls.Wait()
			b.work.Go(b.pub.close)
			b.work.Go(b.sub.close)
			b.work.Wait()
		}()
	}
	select {
	case <-b.idle:
		return nil
	case <-ctx.Done():
		b.pub.cut()
		b.sub.cut()
		return fmt.Errorf("rabbitmq: close: cut, a deliver function or the server still kept it: %w", context.Cause(ctx))
	}
}

// forget removes a member that has no session left.
func (b *Broker) forget(m *member) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.members, m)
}

func (b *Broker) isClosed() bool { return b.ctx.Err() != nil }

// cause marks the error of a broken connection with driver.ErrClosed if Close broke it.
func (b *Broker) cause(err error) error {
	if b.isClosed() && errors.Is(err, amqp.ErrClosed) {
		return fmt.Errorf("%w: %w", driver.ErrClosed, err)
	}
	return err
}

// await runs a call of the client library, which takes no contexts. If ctx ends first, the channel
// of the call must not be used again; the call itself ends with the connection at the latest.
func (b *Broker) await(ctx context.Context, call func() error) error {
	result := make(chan error, 1)
	b.work.Go(func() { result <- call() })
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lacks says which permission the user needs, if err is about that (servers before 3.12 omit it).
func lacks(permission string, err error) error {
	if code(err) == amqp.AccessRefused {
		return fmt.Errorf("the user lacks the permission to %s: %w", permission, err)
	}
	return err
}

// code returns the AMQP code of an error, 0 if it has none.
func code(err error) int {
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return e.Code
	}
	return 0
}
