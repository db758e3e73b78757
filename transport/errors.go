package transport

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	// ErrOpen means that a call was not made because the breaker of its target is open. The error is
	// an *OpenError, for which errors.Is(err, ErrOpen) is true.
	ErrOpen = errors.New("transport: breaker open")
	// ErrNoInstances is wrapped by the error of a call for which there is no instance.
	ErrNoInstances = errors.New("transport: no instances")
	// ErrClosed is wrapped by the error of a call that was made after Close.
	ErrClosed = errors.New("transport: closed")
)

// OpenError means that no attempt was made, because the breaker of the target is open. Its gRPC
// status is Unavailable.
type OpenError struct {
	Target string
	// RetryAfter is the time until the target may be tried again: for a service the next health
	// check, which is once a second, and for an external target the rest of the recovery timeout.
	// It is 0 while a probe is in progress.
	RetryAfter time.Duration
}

func (e *OpenError) Error() string {
	if e.RetryAfter <= 0 {
		return fmt.Sprintf("transport: %s: breaker open, a probe is in progress", e.Target)
	}
	return fmt.Sprintf("transport: %s: breaker open, next probe in %v", e.Target, e.RetryAfter.Round(time.Millisecond))
}

// Is makes errors.Is find ErrOpen.
func (e *OpenError) Is(target error) bool { return target == ErrOpen }

// Dependency returns the target, see server.Problem.
func (e *OpenError) Dependency() string { return e.Target }

// GRPCStatus is for package status.
func (e *OpenError) GRPCStatus() *status.Status { return status.New(codes.Unavailable, e.Error()) }

// callError is the type of all other errors of this package about calls.
type callError struct {
	text  string
	cause error
	code  codes.Code
	away  string // the target, if it is at fault
}

func (e *callError) Error() string              { return e.text }
func (e *callError) Unwrap() error              { return e.cause }
func (e *callError) GRPCStatus() *status.Status { return status.New(e.code, e.text) }

// Dependency is for package dependency: a server can answer that the failure is not its own.
func (e *callError) Dependency() string { return e.away }

// Timeout lets url.Error, and with it the users of http.Client, recognise a deadline.
func (e *callError) Timeout() bool { return errors.Is(e.cause, context.DeadlineExceeded) }

// fail returns an error that wraps cause and names the target. what may be empty.
func (t *target) fail(code codes.Code, what string, cause error) *callError {
	if what != "" {
		what += ": "
	}
	e := &callError{text: fmt.Sprintf("transport: %s: %s%v", t.name, what, cause), cause: cause, code: code}
	if errors.Is(cause, ErrNoInstances) {
		e.away = t.name
	}
	return e
}

// ended returns the error for a call whose context is done or whose deadline has passed.
func (t *target) ended(ctx context.Context) *callError {
	if errors.Is(ctx.Err(), context.Canceled) {
		return t.fail(codes.Canceled, "", context.Cause(ctx))
	}
	return t.fail(codes.DeadlineExceeded, "", context.DeadlineExceeded)
}
