package messaging

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/lead"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

const (
	retryLease  = "retries"
	retryPoll   = 2 * time.Second       // how often the table is read without a signal
	retryPace   = 20 * time.Millisecond // between two starts, so at most 50 a second
	retryBatch  = 20
	retryWaits  = 100 * time.Millisecond // while everything due is being tried
	retryAtOnce = 4                      // limit for one subscription
)

// A retrier retries the events that the subscriptions of one service have set aside. Of the
// retriers on one database only the one with the lease works.
type retrier struct {
	bus    *bus
	db     *sql.DB
	signal *sqldb.Signal

	mu     sync.Mutex
	trying map[string]bool // what is being tried, by unitOf
}

type retrierKey struct{}

// retrierOf returns the retrier of the bus's service, which the first subscription starts.
func (b *bus) retrierOf(db *sql.DB) (*retrier, error) {
	return kaptar.Attach(b.app, retrierKey{}, func() (*retrier, error) {
		r := &retrier{bus: b, db: db, signal: sqldb.NewSignal(db, retryLease), trying: make(map[string]bool)}
		b.app.Go(retryLease, r.run)
		return r, nil
	})
}

// consumer returns the one that tries again what a group has set aside; nil if there is none.
func (b *bus) consumer(topic, group string) *consumer {
	group, _, _ = strings.Cut(group, "#") // the generation, after a reset
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.subscribed[[2]string{topic, group}]; c != nil && c.db != nil {
		return c
	}
	return nil
}

// run retries what is due whenever it has the lease, until stop ends.
func (r *retrier) run(stop context.Context) error {
	lead.Run(stop, r.db, retryLease, retryPoll, &steady.Outage{What: "retries of events", Log: r.bus.app.Logger()}, r.lead)
	return nil
}

// lead retries what is due until stop ends, the lease is lost or another version handles the
// events, and returns when the tries under way have ended. It calls well each time the database has
// answered.
func (r *retrier) lead(stop context.Context, lease *sqldb.Lease, well func()) error {
	var begun sync.WaitGroup
	defer begun.Wait()
	for stop.Err() == nil && !r.bus.share.none(stop) {
		var all []outbox.Due
		err := lease.Use(stop, func(ctx context.Context, conn *sql.Conn) (err error) {
			all, err = outbox.NextDue(ctx, conn)
			return err
		})
		if err != nil {
			return err
		}
		well()
		pause, some := retryPoll, false
		for _, due := range all {
			c := r.bus.consumer(due.Topic, due.Group)
			after := time.Until(due.At)
			if c != nil {
				after = max(after, c.circuit.wait())
			}
			switch {
			case c == nil: // the subscription was removed, or belongs to another version
			case after > 0:
				pause = min(pause, after)
			default:
				n, err := r.begin(stop, c, due, &begun)
				if err != nil {
					return err
				}
				some = some || n > 0
				pause = min(pause, retryWaits)
			}
		}
		if !some {
			r.signal.Wait(stop, pause)
		}
	}
	return nil
}

// begin retries events of c that are due and not being tried already, and returns how many it
// started.
func (r *retrier) begin(stop context.Context, c *consumer, due outbox.Due, begun *sync.WaitGroup) (n int, err error) {
	if len(c.retries) == cap(c.retries) {
		return 0, nil
	}
	letters, err := outbox.DueDeadLetters(stop, r.db, due.Group, due.Topic, retryBatch)
	if err != nil {
		return 0, err
	}
	for i := range letters {
		letter := &letters[i]
		probe, ok, _, _ := c.circuit.try()
		if !ok {
			break
		}
		select {
		case c.retries <- struct{}{}:
		default:
			ok = false
		}
		unit := unitOf(letter)
		if !ok || !r.take(unit) {
			c.circuit.note(stop, letter.Message.Key, probe, stopped, nil)
			if ok {
				<-c.retries
				continue
			}
			break
		}
		n++
		begun.Go(func() {
			defer func() {
				r.release(unit)
				<-c.retries
			}()
			for next := letter; next != nil; probe = false {
				next = c.tryAgain(stop, next, probe)
			}
		})
		if !steady.Sleep(stop, retryPace) {
			break
		}
	}
	return n, nil
}

// unitOf identifies what is tried by one goroutine at a time: a key of an ordered topic, or one
// event.
func unitOf(d *outbox.DeadLetter) string {
	name := d.Group + "\n" + d.Message.Topic + "\n" + d.Message.Headers.Get(driver.HeaderSource) + "\n"
	if d.Seq != 0 {
		return name + "key\n" + d.Message.Key
	}
	return name + d.Message.ID
}

func (r *retrier) take(unit string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trying[unit] {
		return false
	}
	r.trying[unit] = true
	return true
}

func (r *retrier) release(unit string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.trying, unit)
}

// tryAgain calls the handler for an event that was set aside. It returns the next event of its key,
// which may be tried now.
func (c *consumer) tryAgain(stop context.Context, letter *outbox.DeadLetter, probe bool) (next *outbox.DeadLetter) {
	ctx := context.WithoutCancel(stop)
	d := &driver.Delivery{Message: letter.Message, Attempt: letter.Attempts + 1}
	select {
	case c.running <- struct{}{}:
	case <-stop.Done():
		c.circuit.note(ctx, d.Key, probe, stopped, nil)
		return nil
	}
	ctx, span := c.span(ctx, d, trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: origin(d.Headers)}))
	defer span.End()
	begun := time.Now()
	result, err := c.call(ctx, d, func(ctx context.Context, tx *sql.Tx) (outcome, error) {
		return c.takeAgain(ctx, tx, letter)
	})
	<-c.running
	gone := errors.Is(err, outbox.ErrNoDeadLetter)
	if gone { // an operator has replayed or dropped it meanwhile
		result, err = duplicate, nil
	}
	c.circuit.note(ctx, d.Key, probe, result, err)
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
		if !isPermanent(err) && c.circuit.isOpen() {
			return nil // the try does not count
		}
		result = c.failedAgain(ctx, letter, err)
	}
	c.bus.metrics.processed.WithLabelValues(c.topic, string(result)).Inc()
	c.bus.metrics.duration.WithLabelValues(c.topic).Observe(time.Since(begun).Seconds())
	if err != nil || gone || letter.Seq == 0 || stop.Err() != nil || c.circuit.isOpen() {
		return nil
	}
	if next, err = letter.Next(ctx, c.db); err != nil {
		c.bus.app.Logger().WarnContext(ctx, "next event of a key not read, it will be tried later", "topic", c.topic, "key", d.Key, "error", err)
	}
	return next
}

// failedAgain records that an event which was set aside has failed again because of err.
func (c *consumer) failedAgain(ctx context.Context, letter *outbox.DeadLetter, err error) outcome {
	log := c.bus.app.Logger().With(slog.String("topic", c.topic), slog.String("group", c.opts.Group), slog.String("id", letter.Message.ID),
		slog.Int("attempts", letter.Attempts+1))
	waits := letter.Retries
	if letter.Attempts > letter.Retries { // it failed in place first, and has waited firstDelay since
		waits++
	}
	result, due := retrying, time.Now().Add(retryDelay(waits))
	if isPermanent(err) || letter.Retries+1 >= c.opts.Retries {
		result, due = dead, time.Time{}
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	failure := sqldb.InTx(ctx, c.db, func(ctx context.Context, tx *sql.Tx) error {
		return letter.Failed(ctx, tx, err.Error(), due)
	})
	switch {
	case failure != nil:
		log.WarnContext(ctx, "retry of an event not noted, it is tried again", "error", errors.Join(err, failure))
	case result == dead:
		log.ErrorContext(ctx, "event is a dead letter", "error", err)
	default:
		log.WarnContext(ctx, "event failed again, it will be tried again", "after_ms", time.Until(due).Milliseconds(), "error", err)
	}
	return result
}

// retryDelay is the wait after the given number of failed retries.
func retryDelay(retries int) time.Duration {
	delay := firstDelay
	for range retries {
		delay = min(delay*3, maxDelay)
	}
	return delay
}
