package messaging

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/telemetry"
)

// outcome is what became of a delivery, as the metric names it.
type outcome string

const (
	handled   outcome = "ok"
	duplicate outcome = "duplicate"
	retried   outcome = "retry"
	dead      outcome = "dead"
	dropped   outcome = "dropped"
	passed    outcome = "passed" // given back, as another version of the service is to handle it
	stopped   outcome = ""       // the service stops: to be handed back, and not counted
)

const (
	// minInFlight is what the broker gives, at least, before something is acknowledged.
	minInFlight = 256

	// extendEvery keeps a broker from redelivering what is here, handled or waiting for its turn;
	// drivers' ack wait is 30 s by default.
	extendEvery = 10 * time.Second

	// worksAfter is how long a subscription runs before it counts as one that works although
	// nothing has come: longer than a driver tries to join the group.
	worksAfter = 15 * time.Second

	firstBackoff = 100 * time.Millisecond // between tries in place
	maxBackoff   = 5 * time.Second
	firstDelay   = 10 * time.Second // between deliveries
	maxDelay     = 15 * time.Minute
)

// A consumer handles the deliveries of one topic for one group.
type consumer struct {
	bus     *bus
	topic   string
	raw     bool
	opts    SubscribeOptions // without zero values
	autoAck bool
	running chan struct{} // holds a value for each handler that runs
	shares  bool          // the broker gives what is given back to any member of the group

	passed   atomic.Bool // versions have shared the events, so the broker counts more than attempts
	mu       sync.Mutex
	failures map[string]int // of events, by ID, since then

	handle          func(context.Context, *driver.Delivery) (outcome, error)
	storeDeadLetter func(ctx context.Context, d *driver.Delivery, reason error) error // nil with autoAck
}

// start declares the topic and the group, and registers the consuming task.
func (c *consumer) start() error {
	sub := driver.Subscription{
		Topic: c.topic, Raw: c.raw, Group: c.opts.Group, From: c.opts.From, MaxInFlight: max(minInFlight, 2*c.opts.Concurrency),
	}
	if err := sub.Validate(); err != nil {
		return fmt.Errorf("messaging: subscribe to %s: %w", c.topic, err)
	}
	br, err := c.bus.declare(sub)
	if err != nil {
		return err
	}
	_, shares := br.(driver.Sharer)
	c.shares = shares && !sub.Ordered
	c.bus.app.Go("consume "+c.topic, func(ctx context.Context) error { return c.run(ctx, br, sub) })
	return nil
}

// consume subscribes until stop ends, again and again if the driver gives up, and returns when what was
// delivered is acknowledged or handed back. It reports whether the broker was closed.
func (c *consumer) consume(stop context.Context, br driver.Broker, sub driver.Subscription) (over bool) {
	ctx := context.WithoutCancel(stop)
	lanes := &lanes{
		stop: stop, process: func(d *driver.Delivery) bool { return c.process(stop, d) },
		unordered: c.opts.Unordered, room: make(chan struct{}, 2*sub.MaxInFlight),
	}
	lanes.open(extendEvery, func(d *driver.Delivery) { c.tell(ctx, "extend", d, d.Extend) })
	defer func() { // after the subscription has ended, which would get them again
		for _, d := range lanes.close() {
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
		if time.Since(begun) > worksAfter { // this failure has nothing to do with an earlier one
			failures = 0
		}
		outage.Lost(ctx, err)
		if !steady.Sleep(stop, steady.Delay(failures, time.Second, 10*time.Second)) {
			return false
		}
	}
}

// process handles d until the broker is told what became of it. stop ends waiting for the next try,
// and then process returns false; a try that has begun may finish.
func (c *consumer) process(stop context.Context, d *driver.Delivery) bool {
	begun := time.Now()
	ctx := context.WithoutCancel(stop)
	if c.passOn(ctx, d) {
		c.bus.metrics.processed.WithLabelValues(c.topic, string(passed)).Inc()
		return true
	}
	c.count(d)
	if parent := telemetry.ParseTraceparent(d.Headers.Get(driver.HeaderTraceParent), d.Headers.Get(driver.HeaderTraceState)); parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	ctx, span := c.bus.app.Tracer().Start(ctx, "process "+c.topic, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		telemetry.MessagingOperation.String("process"), telemetry.MessagingTopic.String(c.topic), telemetry.MessagingGroup.String(c.opts.Group),
		telemetry.MessagingID.String(d.ID), telemetry.DeliveryAttempt.Int(d.Attempt)))
	defer span.End()

	result, err := c.try(stop, ctx, d)
	switch {
	case err == nil && !c.autoAck:
		c.tell(ctx, "ack", d, d.Ack)
	case err != nil:
		result, err = c.failed(stop, ctx, d, err)
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	c.counted(d, result)
	if result == stopped {
		return false
	}
	c.bus.metrics.processed.WithLabelValues(c.topic, string(result)).Inc()
	c.bus.metrics.duration.WithLabelValues(c.topic).Observe(time.Since(begun).Seconds())
	return true
}

// errStopped is the error of a delivery whose handler was not called, since the service stops.
var errStopped = errors.New("messaging: the service stops")

// try calls the handler until it succeeds, fails for good or has used up its tries in place.
func (c *consumer) try(stop, ctx context.Context, d *driver.Delivery) (result outcome, err error) {
	for try := range c.opts.Tries {
		if try > 0 && !steady.Sleep(stop, steady.Delay(try-1, firstBackoff, maxBackoff)) {
			return "", errors.Join(errStopped, err)
		}
		select {
		case c.running <- struct{}{}:
		case <-stop.Done():
			return "", errors.Join(errStopped, err)
		}
		if c.autoAck {
			c.tell(ctx, "ack", d, d.Ack)
		}
		result, err = c.call(ctx, d)
		<-c.running
		if err == nil || isPermanent(err) {
			break
		}
	}
	return result, err
}

// call calls the handler once, bound in time and with panics turned into errors.
func (c *consumer) call(ctx context.Context, d *driver.Delivery) (result outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("messaging: handler of %s panicked: %v\n%s", c.topic, p, debug.Stack())
		}
	}()
	result = handled // what middleware takes care of itself
	err = c.bus.wrap(func(ctx context.Context, d *driver.Delivery) (err error) {
		result, err = c.handle(ctx, d)
		return err
	})(ctx, d)
	return result, err
}

// failed does with d what is to be done after err, the error of its last try.
func (c *consumer) failed(stop, ctx context.Context, d *driver.Delivery, err error) (outcome, error) {
	log := c.bus.app.Logger().With("topic", c.topic, "group", c.opts.Group, "id", d.ID, "attempt", d.Attempt)
	switch {
	case errors.Is(err, errStopped):
		return stopped, err
	case c.autoAck:
		log.ErrorContext(ctx, "event dropped", "error", err)
		return dropped, err
	case d.Attempt < c.opts.Deliveries && !isPermanent(err):
		if stop.Err() != nil {
			return stopped, err
		}
		delay := redeliveryDelay(d.Attempt)
		log.WarnContext(ctx, "event failed, it will be delivered again", "after_ms", delay.Milliseconds(), "error", err)
		c.tell(ctx, "nack", d, func(ctx context.Context) error { return d.Nack(ctx, delay) })
		return retried, err
	}
	if failure := c.storeDeadLetter(ctx, d, err); failure != nil { // then it comes again
		log.ErrorContext(ctx, "dead letter not written", "error", failure)
		c.tell(ctx, "nack", d, func(ctx context.Context) error { return d.Nack(ctx, firstDelay) })
		return retried, errors.Join(err, failure)
	}
	log.ErrorContext(ctx, "event is a dead letter", "error", err)
	c.tell(ctx, "ack", d, d.Ack)
	return dead, err
}

// redeliveryDelay is how long to wait after the delivery of that number failed.
func redeliveryDelay(attempt int) time.Duration {
	delay := firstDelay
	for range attempt - 1 {
		delay = min(delay*3, maxDelay)
	}
	return delay
}

// tell tells the broker what became of d. A failure is only logged: the event comes again and the
// inbox knows it.
func (c *consumer) tell(ctx context.Context, what string, d *driver.Delivery, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := f(ctx); err != nil {
		c.bus.app.Logger().WarnContext(ctx, "broker not told", "what", what, "topic", c.topic, "id", d.ID, "error", err)
	}
}
