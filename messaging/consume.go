package messaging

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/telemetry"
)

// outcome is what became of a delivery. Its value is a label of the metric.
type outcome string

const (
	handled   outcome = "ok"
	duplicate outcome = "duplicate"
	retrying  outcome = "retrying" // set aside, to be retried
	dead      outcome = "dead"     // set aside for an operator
	parked    outcome = "parked"   // set aside behind an earlier one of its key
	dropped   outcome = "dropped"
	passed    outcome = "passed" // given back for another version of the service
	stopped   outcome = ""       // given back because the service stops; not counted
	waits     outcome = "-"      // earlier events of its key are missing; not counted
	held      outcome = "held"   // neither handled nor set aside; not counted
)

const (
	// minInFlight is the lower limit of how many events the broker delivers before one is
	// acknowledged.
	minInFlight = 256

	// extendEvery is how often the ack wait of the deliveries here is extended, so that the broker
	// does not redeliver them. Drivers wait 30 s by default.
	extendEvery = 10 * time.Second

	// worksAfter is how long a subscription must run without an error to count as working when no
	// event comes. It is longer than a driver tries to join the group.
	worksAfter = 15 * time.Second

	firstBackoff = 100 * time.Millisecond // between tries in place
	maxBackoff   = 5 * time.Second
	firstDelay   = time.Second // before the first retry of an event that was set aside
	maxDelay     = time.Minute

	// maxWaiting is how many events of a key may wait behind one that is tried in place. Then that
	// one is set aside, to leave room for other keys.
	maxWaiting = 32

	// maxEarly is how many events, of all keys, may wait for earlier ones of their key.
	maxEarly = 64
)

// A consumer handles the deliveries of one topic for one group.
type consumer struct {
	bus     *bus
	topic   string
	raw     bool
	ordered bool
	opts    SubscribeOptions // with defaults filled in
	autoAck bool
	running chan struct{} // one value for each handler that runs
	shares  bool          // the broker gives a nacked delivery to any member of the group

	// These are zero with autoAck.
	db      *sql.DB
	inbox   outbox.Inbox // changes only while nothing is consumed
	circuit *circuit
	retrier *retrier
	retries chan struct{} // one value for each event that is being retried

	generations *generations

	check check // of the data; nil with autoAck
	// handle decodes d and calls the handler, in the transaction in which enter has returned
	// handled.
	handle func(ctx context.Context, d *driver.Delivery, enter func(ctx context.Context, tx *sql.Tx) (outcome, error)) (outcome, error)
}

// start declares the topic and the group, and starts consuming once Setup is over.
func (c *consumer) start() error {
	sub := c.subscription()
	if err := sub.Validate(); err != nil {
		return fmt.Errorf("messaging: subscribe to %s: %w", c.topic, err)
	}
	br, err := c.bus.declare(declaration{sub, !c.autoAck})
	if err != nil {
		return err
	}
	_, shares := br.(driver.Sharer)
	c.shares = shares && !sub.Ordered
	c.bus.app.Go("lag of "+c.topic, c.followLag)
	c.bus.app.Go("consume "+c.topic, func(ctx context.Context) error {
		for backoff := (steady.Backoff{Max: time.Second}); c.bus.declareLate(ctx, br) != nil; {
			if !steady.Sleep(ctx, backoff.Next()) {
				return nil
			}
		}
		return c.runGenerations(ctx, br, sub)
	})
	return nil
}

// consume subscribes until stop ends, and again whenever the driver gives up. It returns when all
// deliveries are acknowledged or given back, and reports whether the broker was closed.
func (c *consumer) consume(stop context.Context, br driver.Broker, sub driver.Subscription) (over bool) {
	ctx := context.WithoutCancel(stop)
	lanes := &lanes{
		stop: stop, process: func(w *work, waiting func() int) progress { return c.process(stop, w, waiting) },
		unordered: c.opts.Unordered && !c.ordered, room: make(chan struct{}, 2*sub.MaxInFlight), maxEarly: maxEarly,
	}
	lanes.open(extendEvery, func(d *driver.Delivery) { c.tell(ctx, "extend", d, d.Extend) })
	defer func() { // after the subscription has ended, which would get them again
		undone := lanes.close()
		c.bus.metrics.gaps.WithLabelValues(c.topic, c.opts.Group).Set(0)
		if c.ordered {
			slices.Reverse(undone) // drivers want the last one of a key first
		}
		for _, d := range undone {
			c.tell(ctx, "nack", d, func(ctx context.Context) error { return d.Nack(ctx, 0) })
		}
	}()
	outage := steady.Outage{What: "subscription", Log: c.bus.app.Logger(), Attrs: []slog.Attr{
		slog.String("topic", c.topic), slog.String("group", c.opts.Group),
	}}
	for failures := 0; ; failures++ {
		begun := time.Now()
		works := time.AfterFunc(worksAfter, func() { outage.Back(ctx) })
		err := br.Subscribe(stop, sub, func(d driver.Delivery) {
			outage.Back(ctx)
			arrive(&d, c.raw)
			lanes.deliver(d)
		})
		works.Stop()
		if stop.Err() != nil || errors.Is(err, driver.ErrClosed) {
			return stop.Err() == nil
		}
		if time.Since(begun) > worksAfter { // unrelated to earlier failures
			failures = 0
		}
		outage.Lost(ctx, err)
		if !steady.Sleep(stop, steady.Delay(failures, time.Second, 10*time.Second)) {
			return false
		}
	}
}

// process handles w until it is acknowledged, or until it turns out to be early. The end of stop
// ends the wait for the next try; a try that has begun may finish. waiting returns how many events
// wait behind w.
func (c *consumer) process(stop context.Context, w *work, waiting func() int) progress {
	begun := time.Now()
	ctx := context.WithoutCancel(stop)
	if w.tries == 0 && c.passOn(ctx, w.Delivery) {
		c.bus.metrics.processed.WithLabelValues(c.topic, string(passed)).Inc()
		return done
	}
	w.Attempt = w.tries + 1 // the broker counts deliveries, not tries
	if parent := origin(w.Headers); parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	ctx, span := c.span(ctx, w.Delivery)
	defer span.End()

	result, err := c.finish(stop, ctx, w, waiting)
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	c.noteGap(ctx, w, result == waits)
	switch result {
	case stopped:
		return undone
	case waits:
		return early
	}
	if !c.autoAck {
		c.tell(ctx, "ack", w.Delivery, w.Ack)
	}
	c.bus.metrics.processed.WithLabelValues(c.topic, string(result)).Inc()
	c.bus.metrics.duration.WithLabelValues(c.topic).Observe(time.Since(begun).Seconds())
	return done
}

// origin is the span in which an event was published.
func origin(h driver.Headers) trace.SpanContext {
	return telemetry.ParseTraceparent(h.Get(driver.HeaderTraceParent), h.Get(driver.HeaderTraceState))
}

// span starts the span in which an event is handled.
func (c *consumer) span(ctx context.Context, d *driver.Delivery, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	return c.bus.app.Tracer().Start(ctx, "process "+c.topic, append(opts, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		telemetry.MessagingOperation.String("process"), telemetry.MessagingTopic.String(c.topic), telemetry.MessagingGroup.String(c.opts.Group),
		telemetry.MessagingID.String(d.ID), telemetry.DeliveryAttempt.Int(d.Attempt)))...)
}

// finish tries w and sets it aside if that fails. While neither works, for example because the
// database is away, it holds w and tries again.
func (c *consumer) finish(stop, ctx context.Context, w *work, waiting func() int) (outcome, error) {
	for failures := 0; ; failures++ {
		result, err := c.try(stop, ctx, w, waiting)
		if err != nil {
			result, err = c.failed(stop, ctx, w, err)
		}
		if result != held {
			return result, err
		}
		if !steady.Sleep(stop, steady.Delay(failures, firstBackoff, 2*maxBackoff)) {
			return stopped, err
		}
	}
}

// errStopped is the error of a delivery whose handler was not called because the service stops.
var errStopped = errors.New("messaging: the service stops")

// try calls the handler until it succeeds, fails permanently or has used up its tries in place.
// Tries while the circuit is open do not count.
func (c *consumer) try(stop, ctx context.Context, w *work, waiting func() int) (result outcome, err error) {
	for failures := 0; ; {
		probe, ok := c.circuit.enter(stop)
		if !ok {
			return "", errors.Join(errStopped, err)
		}
		select {
		case c.running <- struct{}{}:
		case <-stop.Done():
			c.circuit.note(ctx, w.Key, probe, stopped, nil)
			return "", errors.Join(errStopped, err)
		}
		if c.autoAck && !c.tell(ctx, "ack", w.Delivery, w.Ack) {
			<-c.running
			return "", errors.New("messaging: not acknowledged: it may come again, so it is not handled now")
		}
		w.Attempt = w.tries + 1
		result, err = c.call(ctx, w.Delivery, func(ctx context.Context, tx *sql.Tx) (outcome, error) {
			turn, err := c.inbox.Take(ctx, tx, &w.Message, w.waited())
			return outcomeOf(turn), c.current(ctx, tx, turn, err)
		})
		<-c.running
		c.circuit.note(ctx, w.Key, probe, result, err)
		if err == nil || isPermanent(err) || errors.Is(err, errStopped) {
			return result, err
		}
		if w.tries++; w.failed.IsZero() {
			w.failed = time.Now()
		}
		if c.circuit.isOpen() {
			continue
		}
		if failures++; failures >= c.opts.Tries {
			return result, err
		}
		switch waited, full := pause(stop, steady.Delay(failures-1, firstBackoff, maxBackoff), waiting); {
		case !waited:
			return "", errors.Join(errStopped, err)
		case full:
			return result, err
		}
	}
}

// pause waits for d, or until so many events wait behind this one that it must be set aside. waited
// is false when stop ended.
func pause(stop context.Context, d time.Duration, waiting func() int) (waited, full bool) {
	const look = 50 * time.Millisecond
	for ; d > 0; d -= look {
		if waiting() >= maxWaiting {
			return true, true
		}
		if !steady.Sleep(stop, min(d, look)) {
			return false, false
		}
	}
	return true, waiting() >= maxWaiting
}

// call calls the handler once, with its timeout. A panic becomes an error.
func (c *consumer) call(
	ctx context.Context, d *driver.Delivery, enter func(context.Context, *sql.Tx) (outcome, error),
) (result outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("messaging: handler of %s panicked: %v\n%s", c.topic, p, debug.Stack())
		}
	}()
	result = handled // if middleware does not call the handler
	err = c.bus.wrap(func(ctx context.Context, d *driver.Delivery) (err error) {
		result, err = c.handle(ctx, d, enter)
		return err
	})(ctx, d)
	return result, err
}

// tell sends an acknowledgement, nack or extension. A failure is only logged, and reported as false:
// the event is redelivered and the inbox, if there is one, recognises it.
func (c *consumer) tell(ctx context.Context, what string, d *driver.Delivery, f func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := f(ctx)
	if err != nil {
		c.bus.app.Logger().WarnContext(ctx, "broker not told", "what", what, "topic", c.topic, "id", d.ID, "error", err)
	}
	return err == nil
}
