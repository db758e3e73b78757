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
	// RetryAfter is the time until the next probe may be made; 0 while one is under way.
	RetryAfter time.Duration
}

func (e *OpenError) Error() string {
	if e.RetryAfter <= 0 {
		return fmt.Sprintf("transport: %s: breaker half-open, a probe is under way", e.Target)
	}
	return fmt.Sprintf("transport: %s: breaker open, next probe in %v", e.Target, e.RetryAfter.Round(time.Millisecond))
}

// Is makes errors.Is find ErrOpen.
func (e *OpenError) Is(target error) bool { return target == ErrOpen }

// GRPCStatus is for package status.
func (e *OpenError) GRPCStatus() *status.Status { return status.New(codes.Unavailable, e.Error()) }

// callError is every other error that the engine makes.
type callError struct {
	text  string
	cause error
	code  codes.Code
}

func (e *callError) Error() string              { return e.text }
func (e *callError) Unwrap() error              { return e.cause }
func (e *callError) GRPCStatus() *status.Status { return status.New(e.code, e.text) }

// Timeout lets url.Error, and with it the users of http.Client, recognise a deadline.
func (e *callError) Timeout() bool { return errors.Is(e.cause, context.DeadlineExceeded) }

// fail wraps cause with the target's name. what may be empty.
func (t *target) fail(code codes.Code, what string, cause error) *callError {
	if what != "" {
		what += ": "
	}
	return &callError{text: fmt.Sprintf("transport: %s: %s%v", t.name, what, cause), cause: cause, code: code}
}

// ended returns the error for a call whose context is done or whose deadline has passed.
func (t *target) ended(ctx context.Context) *callError {
	if errors.Is(ctx.Err(), context.Canceled) {
		return t.fail(codes.Canceled, "", context.Cause(ctx))
	}
	return t.fail(codes.DeadlineExceeded, "", context.DeadlineExceeded)
}
