package messaging

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

const (
	retryLease  = "retries"
	retryPoll   = 2 * time.Second       // at least so often it is looked for what is due; a signal is faster
	retryPace   = 20 * time.Millisecond // between two that are begun, so at most 50 a second
	retryBatch  = 20
	retryWaits  = 100 * time.Millisecond // while all that is due is being tried
	retryAtOnce = 4                      // of one subscription
)

// A retrier tries again what the subscriptions of one service have set aside. Of all that are on one
// database one is at work.
type retrier struct {
	bus    *bus
	db     *sql.DB
	signal *sqldb.Signal

	mu        sync.Mutex
	consumers map[[2]string]*consumer // by topic and group
	trying    map[string]bool         // what is being tried, by its turn
}

type retrierKey struct{}

// retrierOf returns the retrier of the bus's service, which runs from the first subscription on.
func (b *bus) retrierOf(db *sql.DB) (*retrier, error) {
	return kaptar.Attach(b.app, retrierKey{}, func() (*retrier, error) {
		r := &retrier{
			bus: b, db: db, signal: sqldb.NewSignal(db, retryLease),
			consumers: make(map[[2]string]*consumer), trying: make(map[string]bool),
		}
		b.app.Go(retryLease, r.run)
		return r, nil
	})
}

func (r *retrier) add(c *consumer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.consumers[[2]string{c.topic, c.opts.Group}] = c
}

// consumer returns whose events a row is; of a group that was reset the name has a generation.
func (r *retrier) consumer(due outbox.Due) *consumer {
	r.mu.Lock()
	defer r.mu.Unlock()
	group, _, _ := strings.Cut(due.Group, "#")
	return r.consumers[[2]string{due.Topic, group}]
}

// run tries again what is due, whenever the lease is its own, until stop ends.
func (r *retrier) run(stop context.Context) error {
	outage := &steady.Outage{What: "retries of events", Log: r.bus.app.Logger()}
	backoff := &steady.Backoff{First: retryWaits, Max: maxBackoff}
	for stop.Err() == nil {
		if r.bus.turns.over(stop) { // another version handles the events
			steady.Sleep(stop, shareEvery)
			continue
		}
		lease, err := sqldb.TryLease(stop, r.db, retryLease)
		if err == nil && lease != nil {
			err = r.lead(stop, lease, func() {
				backoff.Reset()
				outage.Back(stop)
			})
			lease.Release()
		}
		switch {
		case stop.Err() != nil:
		case err != nil:
			outage.Lost(stop, err)
			steady.Sleep(stop, backoff.Next())
		case lease == nil:
			steady.Sleep(stop, retryPoll/2+rand.N(retryPoll/2))
		}
	}
	return nil
}

// lead tries what is due until stop ends, the lease is lost or the events are another version's, and
// returns when what it has begun has ended. It calls well whenever the database has answered.
func (r *retrier) lead(stop context.Context, lease *sqldb.Lease, well func()) error {
	var begun sync.WaitGroup
	defer begun.Wait()
	for stop.Err() == nil && !r.bus.turns.over(stop) {
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
			c := r.consumer(due)
			after := time.Until(due.At)
			switch {
			case c == nil: // a subscription that is no more, or of another version
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

// begin tries the events of c that are due, as many as are not tried already, and returns how many.
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
		turn := turnOf(letter)
		if !ok || !r.take(turn) {
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
				r.release(turn)
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

// turnOf names what may be tried once at a time: a key of an ordered topic, or one event.
func turnOf(d *outbox.DeadLetter) string {
	name := d.Group + "\n" + d.Message.Topic + "\n" + d.Message.Headers.Get(driver.HeaderSource) + "\n"
	if d.Seq != 0 {
		return name + "key\n" + d.Message.Key
	}
	return name + d.Message.ID
}

func (r *retrier) take(turn string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trying[turn] {
		return false
	}
	r.trying[turn] = true
	return true
}

func (r *retrier) release(turn string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.trying, turn)
}

// tryAgain calls the handler for an event that was set aside. It returns the next one of its key,
// which is to be tried then.
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
	if gone { // an operator was quicker
		result, err = duplicate, nil
	}
	c.circuit.note(ctx, d.Key, probe, result, err)
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
		if isPermanent(err) || !c.circuit.isOpen() {
			result = c.failedAgain(ctx, letter, err)
		}
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

// failedAgain notes that an event which was set aside has failed because of err.
func (c *consumer) failedAgain(ctx context.Context, letter *outbox.DeadLetter, err error) outcome {
	log := c.bus.app.Logger().With(slog.String("topic", c.topic), slog.String("group", c.opts.Group), slog.String("id", letter.Message.ID),
		slog.Int("attempts", letter.Attempts+1))
	waits := letter.Retries
	if letter.Attempts > letter.Retries { // it was tried in place, and has waited once since
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

// retryDelay is how long an event waits after so many failed retries.
func retryDelay(retries int) time.Duration {
	delay := firstDelay
	for range retries {
		delay = min(delay*3, maxDelay)
	}
	return delay
}
