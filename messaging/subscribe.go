package messaging

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/schema"
	"github.com/kaptar/kaptar/sqldb"
)

// SubscribeOptions are the options of a subscription. nil and the zero value are the defaults.
type SubscribeOptions struct {
	// Group is the name of the consumer group; default the service's name. Every group gets every
	// event of the topic, and the members of a group, such as the instances of a service, share
	// them. A second subscription of a service to a topic therefore needs a group of its own, for
	// example "order-service.mail". A new name is a new group: it begins at From, and may handle
	// events that another group has handled. Allowed are letters, digits, '-', '_' and inner '.'.
	Group string

	// From is where a group begins that the broker does not know yet; default FromBeginning.
	// RabbitMQ keeps no history, so there a new group must be FromNow. A group FromNow exists when
	// Subscribe returns and gets what is published from then on; if its broker is away then, it
	// exists once that is back, before this service publishes there what waited in its outbox.
	From Start

	// Timeout limits each try of the handler, by its context; default 30 s.
	Timeout time.Duration

	// Tries is the number of tries in place before an event is set aside, default 5. The waits
	// between them are 100 ms, doubled up to 5 s: about 3 s in all. When 32 events of its key wait
	// behind it, an event is set aside after the first failure. SubscribeAutoAck does not use it.
	Tries int

	// Retries is the number of later tries of an event that was set aside, before it becomes a dead
	// letter; default 6. The waits before them are 1 s, tripled up to 1 min: about 2.5 min in all.
	// SubscribeAutoAck does not use it.
	Retries int

	// Concurrency is the number of handlers that run at the same time in this instance; default 16.
	Concurrency int

	// Unordered lets events of one key run concurrently and overtake each other. By default the
	// events of a key are handled one at a time, in the order of the broker. It has no effect on an
	// ordered topic.
	Unordered bool
}

// The defaults of SubscribeOptions. Tries in place cover a lost lock or a short outage. The retries
// end before an operator would have decided.
const (
	defaultTimeout     = 30 * time.Second
	defaultTries       = 5
	defaultRetries     = 6
	defaultConcurrency = 16
)

// withDefaults returns o with the defaults filled in, or an error that says what is wrong with it.
func (o *SubscribeOptions) withDefaults(service string) (SubscribeOptions, error) {
	var all SubscribeOptions
	if o != nil {
		all = *o
	}
	all.Group = cmp.Or(all.Group, service)
	all.From = cmp.Or(all.From, FromBeginning)
	all.Timeout = cmp.Or(all.Timeout, defaultTimeout)
	all.Tries = cmp.Or(all.Tries, defaultTries)
	all.Retries = cmp.Or(all.Retries, defaultRetries)
	all.Concurrency = cmp.Or(all.Concurrency, defaultConcurrency)
	if all.Timeout < 0 || all.Tries < 0 || all.Retries < 0 || all.Concurrency < 0 {
		return all, fmt.Errorf("timeout %v, tries %d, retries %d, concurrency %d: expected none below 0, and 0 for the default",
			all.Timeout, all.Tries, all.Retries, all.Concurrency)
	}
	return all, nil
}

// Subscribe makes the service handle the events of topic. Call it during Setup.
//
// handler runs in a transaction of the service's database. When it returns nil, its effects are
// committed together with the mark that the event was handled, and then the event is acknowledged.
// An event that the group has handled before is acknowledged without calling handler. handler must
// do all its work through tx and ctx, and may be called again after its transaction was rolled
// back.
//
// When handler returns an error, panics or exceeds its timeout, the transaction is rolled back and
// the event is tried again in place, while events of other keys go on. After SubscribeOptions.Tries
// failures it is set aside: it becomes a row of kaptar_dead_letters, in one transaction with the
// mark, and is acknowledged. From there one of the service's instances retries it
// SubscribeOptions.Retries times. Then it is a dead letter that waits for an operator, and so it is
// at once if the error is [Permanent] or the event cannot be decoded. On an ordered topic the later
// events of its key wait for it; elsewhere they go on. An event that can be neither handled nor set
// aside, because the database is away, is held and tried again.
//
// When 10 of the last 20 tries have failed, with 3 or more keys among them, something that the
// handler needs is probably away. The subscription then stops its handlers, sets nothing aside and
// probes with one event at a time, after 1 s, doubled up to 30 s, until one succeeds. Permanent
// errors do not count.
func Subscribe[T any](
	app *kaptar.App, topic Topic[T], handler func(ctx context.Context, tx *sql.Tx, event Event[T]) error, opts *SubscribeOptions,
) error {
	for _, version := range topic.versions() {
		if err := subscribe(app, version, handler, opts); err != nil {
			return err
		}
	}
	return nil
}

// subscribe is Subscribe for one version of a topic.
func subscribe[T any](
	app *kaptar.App, version Older[T], handler func(ctx context.Context, tx *sql.Tx, event Event[T]) error, opts *SubscribeOptions,
) error {
	c, err := newConsumer(app, version, opts)
	if err != nil {
		return err
	}
	s, err := c.bus.store()
	if err != nil {
		return err
	}
	if err := c.transactional(s.db); err != nil {
		return err
	}
	c.check = checkOf(version.decode)
	c.handle = inTx(s.db, version.decode, handler)
	return c.start()
}

// inTx returns the consumer.handle of a handler that runs in a transaction of db.
func inTx[T any](
	db *sql.DB, decode func(*driver.Delivery) (Event[T], error), handler func(ctx context.Context, tx *sql.Tx, event Event[T]) error,
) func(context.Context, *driver.Delivery, func(context.Context, *sql.Tx) (outcome, error)) (outcome, error) {
	return func(ctx context.Context, d *driver.Delivery, enter func(context.Context, *sql.Tx) (outcome, error)) (result outcome, err error) {
		event, err := decode(d)
		if err != nil {
			return "", err
		}
		err = sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
			var err error
			if result, err = enter(ctx, tx); err != nil || result != handled {
				return err
			}
			return handler(ctx, tx, event)
		})
		return result, err
	}
}

// SubscribeAutoAck is Subscribe without transaction, inbox, retries and dead letters. Each event is
// acknowledged before handler runs, so it is handled at most once, except that a crash can lose the
// acknowledgement. When handler fails, the event is lost and the error logged. Use it only for
// events that may be lost.
func SubscribeAutoAck[T any](app *kaptar.App, topic Topic[T], handler func(ctx context.Context, event Event[T]) error, opts *SubscribeOptions) error {
	for _, version := range topic.versions() {
		c, err := newConsumer(app, version, opts)
		if err != nil {
			return err
		}
		c.autoAck, c.opts.Tries = true, 1
		c.handle = func(ctx context.Context, d *driver.Delivery, _ func(context.Context, *sql.Tx) (outcome, error)) (outcome, error) {
			event, err := version.decode(d)
			if err != nil {
				return "", err
			}
			return handled, handler(ctx, event)
		}
		if err := c.start(); err != nil {
			return err
		}
	}
	return nil
}

// transactional sets up the parts of c that keep its events in db.
func (c *consumer) transactional(db *sql.DB) (err error) {
	c.db, c.circuit, c.retries = db, newCircuit(c), make(chan struct{}, retryAtOnce)
	if c.generations, err = c.bus.generationsOf(db); err != nil {
		return err
	}
	c.retrier, err = c.bus.retrierOf(db)
	return err
}

// newConsumer returns a consumer of version whose handler is not set yet. It refuses a second one
// in the same group, because each event would reach one of the two at random.
func newConsumer[T any](app *kaptar.App, version Older[T], opts *SubscribeOptions) (*consumer, error) {
	topic := version.topic
	b, err := busOf(app)
	if err != nil {
		return nil, err
	}
	all, err := opts.withDefaults(app.Name())
	if err != nil {
		return nil, fmt.Errorf("messaging: subscribe to %s: %w", topic, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	key := [2]string{topic, all.Group}
	if b.subscribed[key] != nil {
		return nil, fmt.Errorf("messaging: %s subscribes to %s twice in group %s, so that each event would reach only one of the two handlers: "+
			"give one of them a group of its own (SubscribeOptions.Group, for example %q), or do both in one handler",
			app.Name(), topic, all.Group, all.Group+".second")
	}
	if err := note(app, schema.Use{Topic: topic, Group: all.Group, Ordered: version.ordered, Raw: version.raw}, version.schema); err != nil {
		return nil, err
	}
	if b.share == nil {
		b.share = newShare(app)
		app.Go("events by version", b.share.follow)
	}
	c := &consumer{
		bus: b, topic: topic, raw: version.raw, ordered: version.ordered && !version.raw, opts: all, running: make(chan struct{}, all.Concurrency),
	}
	b.subscribed[key] = c
	return c, nil
}
