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
	// ErrOpen is found by errors.Is in the error of a call that was not made because the
	// target's breaker is open. The error is an *OpenError.
	ErrOpen = errors.New("transport: breaker open")
	// ErrNoInstances is found in the error of a call for which there is no instance to call.
	ErrNoInstances = errors.New("transport: no instances")
	// ErrClosed is found in the error of a call made after Close.
	ErrClosed = errors.New("transport: closed")
)

// OpenError says that a target's breaker is open, so that no attempt was made. Over gRPC its status
// is Unavailable.
type OpenError struct {
	Target string
	// RetryAfter is the time until the target may be tried again: the instances of a service are asked
	// for their health once a second, and what only DNS knows is tried after the recovery timeout. It
	// is 0 while a probe is under way.
	RetryAfter time.Duration
}

func (e *OpenError) Error() string {
	if e.RetryAfter <= 0 {
		return fmt.Sprintf("transport: %s: breaker open, a probe is under way", e.Target)
	}
	return fmt.Sprintf("transport: %s: breaker open, next probe in %v", e.Target, e.RetryAfter.Round(time.Millisecond))
}

// Is makes errors.Is find ErrOpen.
func (e *OpenError) Is(target error) bool { return target == ErrOpen }

// Dependency returns the target, for an answer that says why it fails.
func (e *OpenError) Dependency() string { return e.Target }

// GRPCStatus is for package status.
func (e *OpenError) GRPCStatus() *status.Status { return status.New(codes.Unavailable, e.Error()) }

// callError is every other error that the engine makes.
type callError struct {
	text  string
	cause error
	code  codes.Code
	away  string // the target, if it is at fault
}

func (e *callError) Error() string              { return e.text }
func (e *callError) Unwrap() error              { return e.cause }
func (e *callError) GRPCStatus() *status.Status { return status.New(e.code, e.text) }

// Dependency is for package dependency: a server tells by it that the failure is not its own.
func (e *callError) Dependency() string { return e.away }

// Timeout lets url.Error, and with it the users of http.Client, recognise a deadline.
func (e *callError) Timeout() bool { return errors.Is(e.cause, context.DeadlineExceeded) }

// fail wraps cause with the target's name. what may be empty.
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
