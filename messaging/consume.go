package messaging

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

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
	stopped   outcome = "" // the service stops: to be handed back, and not counted
)

const (
	// maxInFlight is what the broker gives before something is settled, maxTries how
	// many handlers of a subscription run at the same time.
	maxInFlight = 256
	maxHeld     = 2 * maxInFlight
	maxTries    = 16
	// extendEvery keeps a broker from redelivering what is here, handled or waiting
	// for its turn; drivers' ack wait is 30 s by default.
	extendEvery = 10 * time.Second
)

// A consumer handles the deliveries of one topic for one service.
type consumer struct {
	bus     *bus
	topic   string
	group   string
	autoAck bool
	tries   chan struct{} // holds a value for each handler that runs
	handle  func(context.Context, *driver.Delivery) (outcome, error)
	bury    func(ctx context.Context, d *driver.Delivery, reason error) error // nil with autoAck
}

// settle handles d until the broker is told what came of it. stop ends waiting for
// the next try, and then settle returns false; a try that has begun may finish.
func (c *consumer) settle(stop context.Context, d *driver.Delivery) bool {
	begun := time.Now()
	databaseID(d)
	ctx := telemetry.Extract(context.WithoutCancel(stop), d.Headers.Get)
	ctx, span := c.bus.app.Tracer().Start(ctx, "process "+c.topic, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("messaging.destination.name", c.topic), attribute.String("messaging.consumer.group.name", c.group),
		attribute.String("messaging.message.id", d.ID), attribute.Int("messaging.delivery.attempt", d.Attempt)))
	defer span.End()

	result, err := c.decide(stop, ctx, d)
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	if result == stopped {
		return false
	}
	c.bus.metrics.processed.WithLabelValues(c.topic, string(result)).Inc()
	c.bus.metrics.duration.WithLabelValues(c.topic).Observe(time.Since(begun).Seconds())
	return true
}

// decide tries d and tells the broker what came of it, unless that is stopped.
func (c *consumer) decide(stop, ctx context.Context, d *driver.Delivery) (result outcome, err error) {
	for try := range c.triesInPlace() {
		if try > 0 && !sleep(stop, backoff(try-1, firstBackoff, maxBackoff)) {
			return stopped, err
		}
		select {
		case c.tries <- struct{}{}:
		case <-stop.Done():
			return stopped, err
		}
		if c.autoAck {
			c.tell(ctx, "ack", d, d.Ack)
		}
		result, err = c.try(ctx, d)
		<-c.tries
		if err == nil {
			c.tell(ctx, "ack", d, d.Ack)
			return result, nil
		}
		if _, permanent := errors.AsType[*permanentError](err); permanent && !c.autoAck {
			return c.giveUp(ctx, d, err)
		}
	}
	switch {
	case c.autoAck:
		c.bus.app.Logger().ErrorContext(ctx, "event dropped", "topic", c.topic, "id", d.ID, "error", err)
		return dropped, err
	case d.Attempt >= deliveries:
		return c.giveUp(ctx, d, err)
	case stop.Err() != nil:
		return stopped, err
	}
	delay := redeliveryDelay(d.Attempt)
	c.bus.app.Logger().WarnContext(ctx, "event failed", "topic", c.topic, "id", d.ID, "attempt", d.Attempt, "error", err, "again_in", delay)
	c.tell(ctx, "nack", d, func(ctx context.Context) error { return d.Nack(ctx, delay) })
	return retried, err
}

func (c *consumer) triesInPlace() int {
	if c.autoAck {
		return 1
	}
	return triesInPlace
}

// redeliveryDelay is how long to wait after the delivery of that number failed.
func redeliveryDelay(attempt int) time.Duration {
	delay := firstDelay
	for range attempt - 1 {
		delay = min(delay*3, maxDelay)
	}
	return delay
}

// handBack returns what was not settled before the service stopped to the group,
// to come at the next start. It must run after the subscription has ended,
// which would get it again.
func (c *consumer) handBack(ctx context.Context, undone []*driver.Delivery) {
	for _, d := range undone {
		c.tell(ctx, "nack", d, func(ctx context.Context) error { return d.Nack(ctx, 0) })
	}
}

// giveUp makes d a dead letter; should that fail, it comes again.
func (c *consumer) giveUp(ctx context.Context, d *driver.Delivery, reason error) (outcome, error) {
	if err := c.bury(ctx, d, reason); err != nil {
		c.bus.app.Logger().ErrorContext(ctx, "dead letter not written", "topic", c.topic, "id", d.ID, "error", err)
		c.tell(ctx, "nack", d, func(ctx context.Context) error { return d.Nack(ctx, firstDelay) })
		return retried, errors.Join(reason, err)
	}
	c.bus.app.Logger().ErrorContext(ctx, "event is a dead letter", "topic", c.topic, "id", d.ID, "attempts", d.Attempt, "error", reason)
	c.tell(ctx, "ack", d, d.Ack)
	return dead, reason
}

// try runs the handler once, bound in time and with panics turned into errors.
func (c *consumer) try(ctx context.Context, d *driver.Delivery) (result outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, handlerTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("messaging: handler of %s panicked: %v\n%s", c.topic, p, debug.Stack())
		}
	}()
	return c.handle(ctx, d)
}

// tell settles d at the broker. A failure is only logged: the event comes again
// and the inbox knows it.
func (c *consumer) tell(ctx context.Context, what string, d *driver.Delivery, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := f(ctx); err != nil {
		c.bus.app.Logger().WarnContext(ctx, "broker not told", "what", what, "topic", c.topic, "id", d.ID, "error", err)
	}
}
