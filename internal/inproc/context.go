package inproc

import (
	"context"
	"errors"
	"time"

	"github.com/kaptar/kaptar/internal/deadline"
)

// address is the network address of both ends of a call that stays in the process.
type address struct{}

func (address) Network() string { return "inproc" }
func (address) String() string  { return "in-process" }

// start starts the limit of a handler and returns its context: it has the deadline of the caller's,
// but none of its values.
func start(limit *deadline.Limit, caller context.Context) context.Context {
	at, _ := caller.Deadline()
	return limit.Start(context.Background(), at)
}

// endLike ends the context of a handler for the reason for which the caller's has ended.
func endLike(limit *deadline.Limit, caller context.Context) {
	if _, timed := limit.Deadline(); timed && errors.Is(caller.Err(), context.DeadlineExceeded) {
		limit.Move(time.Now())
	} else {
		limit.Cancel(nil)
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
