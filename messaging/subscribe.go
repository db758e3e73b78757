package messaging

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// Limits of trying again. In place they cover a lost lock or a short outage
// (about 3 s in all); redelivery covers about an hour.
const (
	handlerTimeout = 30 * time.Second
	triesInPlace   = 5
	deliveries     = 10
	firstBackoff   = 100 * time.Millisecond
	maxBackoff     = 5 * time.Second
	firstDelay     = 10 * time.Second
	maxDelay       = 15 * time.Minute
)

// Subscribe makes the service handle the events of topic, during Setup. The
// consumer group has the service's name, so every instance of the service gets a
// share, and from says where the group starts when the broker does not know it.
//
// handler runs in a transaction of the service's database, one event per key and up
// to 16 in all at a time. When it returns nil, its effects and the mark that the event was handled
// are committed together, and then the broker is told; an event that was handled
// before is only acknowledged. handler must do everything through tx and ctx, may run again
// after its transaction was rolled back, and has 30 seconds.
//
// When handler fails or panics, its transaction is rolled back and it is tried 5 times in
// place (100 ms, doubled, jittered), then up to 10 times by redelivery (10 s, tripled,
// at most 15 min), while events of other keys go on; during redelivery, later events of its own key
// do too. After that, or at once when
// the error is Permanent or the event cannot be decoded, the event becomes a dead
// letter: a row in kaptar_dead_letters with the reason, written in the transaction
// that marks it handled.
func Subscribe[T any](app *kaptar.App, topic Topic[T], from Start, handler func(ctx context.Context, tx *sql.Tx, event Event[T]) error) error {
	b, err := busOf(app)
	if err != nil {
		return err
	}
	db, err := app.DB(nil)
	if err != nil {
		return err
	}
	c := &consumer{bus: b, topic: topic.Name, group: app.Name()}
	c.handle = func(ctx context.Context, d *driver.Delivery) (outcome, error) {
		event, err := decode[T](d)
		if err != nil {
			return "", err
		}
		result := handled
		err = sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
			first, err := outbox.Once(ctx, tx, c.group, d.ID)
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
	c.bury = func(ctx context.Context, d *driver.Delivery, reason error) error {
		return sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
			first, err := outbox.Once(ctx, tx, c.group, d.ID)
			if err != nil || !first {
				return err
			}
			return outbox.Bury(ctx, tx, outbox.DeadLetter{Group: c.group, Message: d.Message, Reason: reason.Error(), Attempts: d.Attempt})
		})
	}
	return c.start(from)
}

// SubscribeAutoAck is Subscribe without transaction, inbox, retries and dead
// letters: each event is acknowledged before handler runs, so it is handled at most
// once, and lost when handler fails (which is logged). Use it for what may be lost.
func SubscribeAutoAck[T any](app *kaptar.App, topic Topic[T], from Start, handler func(ctx context.Context, event Event[T]) error) error {
	b, err := busOf(app)
	if err != nil {
		return err
	}
	c := &consumer{bus: b, topic: topic.Name, group: app.Name(), autoAck: true}
	c.handle = func(ctx context.Context, d *driver.Delivery) (outcome, error) {
		event, err := decode[T](d)
		if err != nil {
			return "", err
		}
		return handled, handler(ctx, event)
	}
	return c.start(from)
}

// start declares the topic and registers the consuming task.
func (c *consumer) start(from Start) error {
	sub := driver.Subscription{Topic: c.topic, Group: c.group, From: from, MaxInFlight: maxInFlight}
	if err := sub.Validate(); err != nil {
		return fmt.Errorf("messaging: subscribe to %s: %w", c.topic, err)
	}
	br, err := c.bus.declare(c.topic)
	if err != nil {
		return err
	}
	c.tries = make(chan struct{}, maxTries)
	c.bus.app.Go("consume "+c.topic, func(ctx context.Context) error { return c.run(ctx, br, sub) })
	return nil
}

// run subscribes until stop ends, again and again if the driver gives up, and
// returns when what was delivered is settled or handed back.
func (c *consumer) run(stop context.Context, br driver.Broker, sub driver.Subscription) error {
	ctx := context.WithoutCancel(stop)
	lanes := openLanes(stop, func(d *driver.Delivery) bool { return c.settle(stop, d) },
		extendEvery, func(d *driver.Delivery) { c.tell(ctx, "extend", d, d.Extend) })
	defer func() { c.handBack(ctx, lanes.close()) }()
	told := trouble{topic: c.topic, log: c.bus.app.Logger()}
	defer told.end()
	for failures := 0; ; failures++ {
		begun := time.Now()
		err := br.Subscribe(stop, sub, told.watch(ctx, lanes.deliver))
		if stop.Err() != nil || errors.Is(err, driver.ErrClosed) {
			return nil
		}
		if errors.Is(err, errors.ErrUnsupported) { // no waiting will help
			return fmt.Errorf("messaging: subscribe to %s: %w", c.topic, err)
		}
		if time.Since(begun) > worksAfter { // this trouble has nothing to do with an earlier one
			failures = 0
		}
		wait := backoff(failures, time.Second, time.Minute)
		told.lost(ctx, err, wait)
		if !sleep(stop, wait) {
			return nil
		}
	}
}

// backoff is first doubled n times, at most limit, with full jitter of its upper half.
func backoff(n int, first, limit time.Duration) time.Duration {
	d := min(first<<min(n, 20), limit)
	return d/2 + rand.N(d/2+1)
}

// sleep waits for d and reports whether ctx was still going then.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
