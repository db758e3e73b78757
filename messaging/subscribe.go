package messaging

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/messaging/schema"
	"github.com/kaptar/kaptar/sqldb"
)

// SubscribeOptions say how a subscription runs. nil and the zero value are the defaults.
type SubscribeOptions struct {
	// Group is the name of the consumer group; default the service's name. Every group gets every
	// event of the topic, and the members of a group, such as the instances of a service, share
	// them. A second subscription of a service to a topic therefore needs a group of its own, for
	// example "order-service.mail". A group under a new name begins at From, and handles again what
	// another group has handled. Letters, digits, '-', '_' and inner '.'.
	Group string

	// From is where a group starts that the broker does not know yet; default FromBeginning.
	// RabbitMQ keeps no history: there a new group must start FromNow. A group FromNow exists once
	// Subscribe returned, and gets whatever is published from then on.
	From Start

	// Timeout bounds each try of the handler; default 30 s. The handler's context ends with it.
	Timeout time.Duration

	// Tries is how often an event is tried in place, after waits of 100 ms, doubled up to 5 s, before
	// it is set aside; default 5, about 3 s in all. While 32 events of its key wait behind it, it is
	// set aside after the first. Not used by SubscribeAutoAck.
	Tries int

	// Retries is how often an event that was set aside is tried again, after waits of 1 s, tripled up
	// to 1 min, before it is a dead letter; default 6, about 2.5 min in all. Not used by
	// SubscribeAutoAck.
	Retries int

	// Concurrency is how many handlers of this instance run at the same time; default 16.
	Concurrency int

	// Unordered lets events of one key run side by side and overtake each other. The default is one
	// event of a key at a time, in the order of the broker. It has no effect on an ordered topic.
	Unordered bool
}

// The defaults of SubscribeOptions. Tries in place cover a lost lock or a short outage; the retries
// reach a decision before an operator would.
const (
	defaultTimeout     = 30 * time.Second
	defaultTries       = 5
	defaultRetries     = 6
	defaultConcurrency = 16
)

// withDefaults returns o with its zero fields filled in, or what is wrong with it.
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

// Subscribe makes the service handle the events of topic, during Setup. nil opts are the defaults.
//
// handler runs in a transaction of the service's database. When it returns nil, its effects and the
// mark that the event was handled are committed together, and then the broker is told; an event
// that the group handled before is only acknowledged. handler must do everything through tx and
// ctx, and may run again after its transaction was rolled back.
//
// When handler fails, panics or exceeds its timeout, its transaction is rolled back, and it is tried
// again in place, as the options say, while events of other keys go on. Then the event is set aside:
// it becomes a row of kaptar_dead_letters, in one transaction with the mark, and the broker is told
// that it is done. One of the service's instances tries it again from there; at last, or at once when
// the error is Permanent or the event cannot be decoded, it is a dead letter that waits for an
// operator. On an ordered topic the later events of its key wait with it, elsewhere they go on. An
// event that can neither be handled nor set aside, since the database is away, stays here and is
// tried again.
//
// While 10 of the last 20 tries fail, of 3 keys or more and not Permanent, the subscription stops its
// handlers and sets nothing aside: what they need is away. It tries one event at a time, after 1 s,
// doubled up to 30 s, until one succeeds.
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

// subscribe is Subscribe to one version of a topic.
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

// inTx is the consumer.handle of a handler that runs in a transaction of db.
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

// SubscribeAutoAck is Subscribe without transaction, inbox, retries and dead letters: each event is
// acknowledged before handler runs, so it is handled at most once, and lost when handler fails,
// which is logged. Use it for what may be lost.
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

// transactional gives c what keeps its events in db.
func (c *consumer) transactional(db *sql.DB) (err error) {
	c.db, c.circuit, c.retries = db, newCircuit(c), make(chan struct{}, retryAtOnce)
	c.inbox = outbox.Inbox{Group: c.opts.Group, Ordered: c.ordered, FromNow: c.opts.From == FromNow}
	if c.generations, err = c.bus.generationsOf(db); err != nil {
		return err
	}
	if c.retrier, err = c.bus.retrierOf(db); err == nil {
		c.retrier.add(c)
	}
	return err
}

// newConsumer returns a consumer of topic without its handler. It refuses a second one in the same
// group: each event would reach one of the two at random.
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
	if b.turns == nil {
		b.turns = newTurns(app)
		app.Go("events by version", b.turns.follow)
	}
	c := &consumer{
		bus: b, topic: topic, raw: version.raw, ordered: version.ordered && !version.raw, opts: all, running: make(chan struct{}, all.Concurrency),
	}
	b.subscribed[key] = c
	return c, nil
}
