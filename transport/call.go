package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/internal/deadline"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/internal/wanted"
	"github.com/kaptar/kaptar/telemetry"
)

// call is one call over HTTP or gRPC. It has a deadline and makes attempts one after another. Times
// are durations since the transport was made.
type call struct {
	t         *Transport
	tg        *target
	proto     protocol
	ctx       context.Context // the caller's, with the span
	span      telemetry.Span
	began     time.Duration
	deadline  time.Duration // 0: none
	inherited bool          // the deadline is that of ctx
	again     bool          // may be repeated even if the target may have worked on it
	principal string        // of Options.Principal; "" for none
	wants     *wanted.Set   // nil for nothing
	alone     bool          // a call with WithInstance: one attempt, not counted anywhere
	attempts  int
	first     *call // for the second of two concurrent attempts: the first one, which has the span
	attempt
}

func (c *call) spanOf() *telemetry.Span {
	if c.first != nil {
		return &c.first.span
	}
	return &c.span
}

// attempt is the state of one attempt.
type attempt struct {
	in       *instance // nil before the first; then of the last attempt
	local    localEntry
	external bool // goes to the host as written, through DNS
	permit   permit
	recorded bool // the outcome has been recorded
	started  time.Duration
	until    time.Duration // when it is given up; 0: never
	// away is the failed dependency that the answer names, if it does. Then the target is not at
	// fault, and it has already made the retries.
	away string
	full bool // the instance refused the call for overload: it is not at fault, and another may accept it
}

// answerTime is how much earlier the callee's deadline is than the caller's, so that the callee's
// timeout error still arrives.
const answerTime = 5 * time.Millisecond

// open sets the deadline. A stream has only that of its context.
func (c *call) open(stream bool) {
	c.began = c.t.now()
	if c.began-time.Duration(c.tg.used.Load()) > time.Second { // it need not be exact
		c.tg.used.Store(int64(c.began))
	}
	if d, ok := c.ctx.Deadline(); ok {
		c.deadline, c.inherited = c.began+max(time.Until(d), 1), true
	}
	switch own := c.tg.set.Timeout; {
	case stream:
	case own > 0 && (c.deadline == 0 || c.began+own < c.deadline):
		c.deadline, c.inherited = c.began+own, false
	case own == 0 && c.deadline == 0:
		c.deadline = c.began + defaultTimeout
	}
	if !c.alone {
		c.tg.budget.deposit(c.began)
	}
}

// left is the time until the deadline; ok is false when there is none.
func (c *call) left(now time.Duration) (d time.Duration, ok bool) {
	return c.deadline - now, c.deadline != 0
}

// begin chooses an instance and acquires the breaker's permit; record and release must follow.
func (c *call) begin() error {
	if c.ctx.Err() != nil {
		return c.tg.ended(c.ctx)
	}
	now, limit := c.t.now(), firstInstance
	if left, ok := c.left(now); ok {
		if left <= 0 {
			return c.tg.ended(c.ctx)
		}
		limit = left
	}
	if len(c.tg.instances()) == 0 {
		if err := c.tg.await(c.ctx, limit); err != nil {
			return err
		}
		now = c.t.now()
	}
	in := c.choose(now)
	switch {
	case in == nil && c.alone:
		return c.tg.fail(codes.Unavailable, fmt.Sprintf("instance %s is not listed, or does not serve %s", c.wants.Instance, c.proto), ErrNoInstances)
	case in == nil:
		return c.tg.fail(codes.Unavailable, "no instance serves "+c.proto.String(), ErrNoInstances)
	}
	p, wait, ok := permit{}, time.Duration(0), true
	if !c.alone {
		p, wait, ok = c.tg.breaker.acquire(now)
	}
	if !ok {
		return &OpenError{Target: c.tg.name, RetryAfter: wait}
	}
	in.inFlight.Add(1)
	c.attempts++
	if c.attempts > 1 {
		c.tg.metrics.inc(c.t.metrics.retries)
	}
	c.attempt = attempt{in: in, local: c.tg.local.table()[in.ID], external: c.tg.isExternal(in), permit: p, started: now, until: c.deadline}
	return nil
}

// record passes the outcome of an attempt to the breaker and the balancer. took is 0 if unknown.
func (c *call) record(out outcome, took time.Duration) {
	now := c.t.now()
	c.recorded = true
	if c.alone {
		return
	}
	switch c.tg.breaker.record(c.permit, out, now) {
	case opened:
		c.in.metrics.seldom(c.t.metrics.openings)
		c.tg.log.LogAttrs(c.ctx, slog.LevelWarn, "breaker opened", slog.String("target", c.tg.name),
			slog.Int("failures", c.tg.breaker.threshold), slog.Duration("recovery_timeout", c.tg.breaker.recovery))
		c.t.probe(c.tg)
	case reopened:
		c.in.metrics.seldom(c.t.metrics.openings)
		c.t.probe(c.tg)
	case closed:
		c.tg.log.LogAttrs(c.ctx, slog.LevelInfo, "breaker closed", slog.String("target", c.tg.name))
	}
	switch {
	case c.full:
		c.in.refused(now)
	case out == success:
		c.in.succeeded(now, took)
	case out == failure:
		if c.in.failed(now, took) && c.tg.maybeEject(c.in, now) {
			c.in.metrics.seldom(c.t.metrics.ejections)
			c.t.probe(c.tg)
		}
	}
}

// tooShort reports whether the attempt failed at a deadline that came from outside and gave the
// target much less time than the settings do. A service that was itself called with a deadline has
// a little less time than its settings say, so three quarters count as enough.
func (c *call) tooShort(now time.Duration) bool {
	// The callee knows of a deadline that is a little earlier, and in whole milliseconds.
	if left, ok := c.left(now); !c.inherited || !ok || left > answerTime+time.Millisecond {
		return false
	}
	own := c.tg.set.Timeout
	if own <= 0 {
		own = defaultTimeout
	}
	return 4*(now-c.started) < 3*own && !deadline.Chosen(c.ctx)
}

// stoodStill reports whether an attempt was given up too late: then this process, with all its calls,
// stood still, which says nothing about their targets.
func (c *call) stoodStill() bool { return c.until > 0 && c.t.now() > c.until+100*time.Millisecond }

// exhausted reports whether an attempt failed because this machine has run out of file descriptors
// or ports. grpc-go keeps only the text of the error.
func exhausted(err error) bool {
	return slices.ContainsFunc([]error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL}, func(own error) bool {
		return errors.Is(err, own) || status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), own.Error())
	})
}

// answered returns the outcome of a failure for which the target is not at fault: neutral, or
// success for a probe, since the target did answer.
func (c *call) answered() outcome {
	if c.permit.probe {
		return success
	}
	return neutral
}

// mayRepeat reports whether there may be another attempt if this one takes too long.
func (c *call) mayRepeat(now time.Duration) bool {
	return c.again && c.attempts <= c.tg.set.Retry.Max && c.tg.budget.affords(now)
}

// repeat decides whether another attempt is made, and after which pause. asked is the pause that
// the server asks for; negative means none. There is none if the call's time was over at its start.
func (c *call) repeat(asked time.Duration) (pause time.Duration, ok bool) {
	set := c.tg.set.Retry
	if c.alone || c.attempts == 0 || c.attempts > set.Max || c.away != "" || c.ctx.Err() != nil {
		return 0, false
	}
	now := c.t.now()
	pause = asked
	if asked < 0 {
		pause = rand.N(max(min(set.Backoff<<(c.attempts-1), set.MaxBackoff), 1))
	}
	if left, ok := c.left(now); ok && pause >= left {
		return 0, false // it would only time out: return the error of this attempt
	}
	if c.tg.breaker.state(now) != Closed || !c.tg.budget.withdraw(now) {
		return 0, false
	}
	return pause, true
}

func (c *call) wait(pause time.Duration) error {
	if !steady.Sleep(c.ctx, pause) {
		return c.tg.ended(c.ctx)
	}
	return nil
}

// cancelled reports whether the caller has cancelled the call.
func (c *call) cancelled() bool { return errors.Is(c.ctx.Err(), context.Canceled) }

// reason returns a word for why a call got no answer, for metrics and spans.
func reason(err error) string {
	switch {
	case errors.Is(err, ErrOpen):
		return "open"
	case errors.Is(err, ErrNoInstances):
		return "no_instances"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "canceled"
	}
	return "error"
}
