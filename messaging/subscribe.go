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

	// Tries is how often one delivery is tried in place, after waits of 100 ms, doubled up to 5 s,
	// before the broker is asked to deliver the event again; default 5. Not used by
	// SubscribeAutoAck.
	Tries int

	// Deliveries is how often the broker delivers an event, after waits of 10 s, tripled up to
	// 15 min, before it becomes a dead letter; default 10. Not used by SubscribeAutoAck.
	Deliveries int

	// Concurrency is how many handlers of this instance run at the same time; default 16.
	Concurrency int

	// Unordered lets events of one key run side by side and overtake each other. The default is one
	// event of a key at a time, in the order of the broker.
	Unordered bool
}

// The defaults of SubscribeOptions. Tries in place cover a lost lock or a short outage, about 3 s
// in all; the deliveries cover about an hour and a half.
const (
	defaultTimeout     = 30 * time.Second
	defaultTries       = 5
	defaultDeliveries  = 10
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
	all.Deliveries = cmp.Or(all.Deliveries, defaultDeliveries)
	all.Concurrency = cmp.Or(all.Concurrency, defaultConcurrency)
	if all.Timeout < 0 || all.Tries < 0 || all.Deliveries < 0 || all.Concurrency < 0 {
		return all, fmt.Errorf("timeout %v, tries %d, deliveries %d, concurrency %d: expected none below 0, and 0 for the default",
			all.Timeout, all.Tries, all.Deliveries, all.Concurrency)
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
// When handler fails, panics or exceeds its timeout, its transaction is rolled back. It is tried
// again in place and then by redelivery, as the options say, while events of other keys go on;
// during redelivery later events of its own key go on too. After the last delivery, or at once when
// the error is Permanent or the event cannot be decoded, the event becomes a dead letter: a row in
// kaptar_dead_letters with the reason, written in the transaction that marks it as handled.
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
	c, err := newConsumer(app, version.topic, version.raw, opts)
	if err != nil {
		return err
	}
	s, err := c.bus.store()
	if err != nil {
		return err
	}
	c.handle = func(ctx context.Context, d *driver.Delivery) (outcome, error) {
		event, err := version.decode(d)
		if err != nil {
			return "", err
		}
		result := handled
		err = sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
			first, err := outbox.MarkHandled(ctx, tx, c.opts.Group, &d.Message)
			if err != nil {
				return err
			}
			if !first {
				result = duplicate
				return nil
			}
			result = handled
			return handler(ctx, tx, event)
		})
		return result, err
	}
	c.storeDeadLetter = func(ctx context.Context, d *driver.Delivery, reason error) error {
		return sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
			first, err := outbox.MarkHandled(ctx, tx, c.opts.Group, &d.Message)
			if err != nil || !first {
				return err
			}
			return outbox.AddDeadLetter(ctx, tx, outbox.DeadLetter{Group: c.opts.Group, Message: d.Message, Reason: reason.Error(), Attempts: d.Attempt})
		})
	}
	return c.start()
}

// SubscribeAutoAck is Subscribe without transaction, inbox, retries and dead letters: each event is
// acknowledged before handler runs, so it is handled at most once, and lost when handler fails,
// which is logged. Use it for what may be lost.
func SubscribeAutoAck[T any](app *kaptar.App, topic Topic[T], handler func(ctx context.Context, event Event[T]) error, opts *SubscribeOptions) error {
	for _, version := range topic.versions() {
		c, err := newConsumer(app, version.topic, version.raw, opts)
		if err != nil {
			return err
		}
		c.autoAck, c.opts.Tries = true, 1
		c.handle = func(ctx context.Context, d *driver.Delivery) (outcome, error) {
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

// newConsumer returns a consumer of topic without its handler. It refuses a second one in the same
// group: each event would reach one of the two at random.
func newConsumer(app *kaptar.App, topic string, raw bool, opts *SubscribeOptions) (*consumer, error) {
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
	if b.subscribed[key] {
		return nil, fmt.Errorf("messaging: %s subscribes to %s twice in group %s, so that each event would reach only one of the two handlers: "+
			"give one of them a group of its own (SubscribeOptions.Group, for example %q), or do both in one handler",
			app.Name(), topic, all.Group, all.Group+".second")
	}
	b.subscribed[key] = true
	if b.turns == nil {
		b.turns = newTurns(app)
		app.Go("events by version", b.turns.follow)
	}
	return &consumer{bus: b, topic: topic, raw: raw, opts: all, running: make(chan struct{}, all.Concurrency)}, nil
}
