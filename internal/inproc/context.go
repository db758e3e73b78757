package inproc

import (
	"context"
	"errors"
	"time"
)

// address is the network address of both ends of a call that stays in the process.
type address struct{}

func (address) Network() string { return "inproc" }
func (address) String() string  { return "in-process" }

// serverContext returns the context for a handler: it has the deadline of the caller's context but
// none of its values. It does not follow the caller's cancellation by itself, see [cancelFor].
func serverContext(caller context.Context) (context.Context, context.CancelFunc) {
	if d, ok := caller.Deadline(); ok {
		return context.WithDeadline(context.Background(), d)
	}
	return context.WithCancel(context.Background())
}

// cancelFor ends a handler's context because the caller's has ended. A deadline is left to the
// handler's own timer, so that the handler always finds context.DeadlineExceeded and not, when the
// caller's timer fires first, context.Canceled.
func cancelFor(caller context.Context, cancel context.CancelFunc) {
	_, timed := caller.Deadline()
	if !timed || !errors.Is(caller.Err(), context.DeadlineExceeded) {
		cancel()
	}
}

// ended returns why ctx has ended, nil when it has not. It does not wait for the timer of a
// deadline that has passed.
func ended(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		return context.DeadlineExceeded
	}
	return nil
}
