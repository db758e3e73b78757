package deadline

import (
	"context"
	"sync"
	"time"
)

// A Limit is a context whose deadline can move while it is in use. An answer is given a deadline
// before anybody knows that it is a stream, which the deadline must not cut.
//
// The context that Start returns, and all made of it, end with the parent, with context.Canceled
// through Cancel, and with context.DeadlineExceeded at the deadline.
// The zero value is ready for one Start. Methods may be called concurrently after Start.
type Limit struct {
	parent context.Context
	owner  any

	mu       sync.Mutex
	at       time.Time // zero: no deadline of its own
	timer    *time.Timer
	unfollow func() bool
	end      func() // ends what Start has returned, for the reason err
	err      error
	cancel   context.CancelCauseFunc
}

type limitKey struct{}

// Of returns the innermost limit that ctx stands under, nil when there is none.
func Of(ctx context.Context) *Limit {
	l, _ := ctx.Value(limitKey{}).(*Limit)
	return l
}

// Start returns a context that ends at the latest at the time at; the zero time sets no deadline.
// Cancel must be called in the end.
func (l *Limit) Start(parent context.Context, at time.Time) context.Context {
	l.parent, l.at = parent, at
	ctx, cancel := context.WithCancelCause((*source)(l)) // sets l.end
	l.cancel = cancel
	if parent.Err() != nil || !at.IsZero() && !time.Now().Before(at) {
		l.check()
		return ctx
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	check := l.check
	if !at.IsZero() {
		l.timer = time.AfterFunc(time.Until(at), check)
	}
	if parent.Done() != nil {
		l.unfollow = context.AfterFunc(parent, check)
	}
	return ctx
}

// Move sets another deadline; the zero time lifts it, and one that has passed ends the context
// before Move returns. It has no effect after the end.
func (l *Limit) Move(at time.Time) {
	l.mu.Lock()
	earlier := l.err == nil && !at.IsZero() && (l.at.IsZero() || at.Before(l.at))
	l.at = at
	left := time.Until(at)
	switch {
	case !earlier || left <= 0: // otherwise the timer finds out when it fires
	case l.timer == nil:
		l.timer = time.AfterFunc(left, l.check)
	default:
		l.timer.Reset(left)
	}
	l.mu.Unlock()
	if earlier && left <= 0 {
		l.check()
	}
}

// Deadline is the deadline in force, ok false when there is none.
func (l *Limit) Deadline() (at time.Time, ok bool) { return (*source)(l).Deadline() }

// Own makes Owner return v: who works under the limit can be found again through a context.
func (l *Limit) Own(v any) { l.owner = v }

// Owner returns what Own was given.
func (l *Limit) Owner() any { return l.owner }

// Cancel ends the context, unless it has ended, for the reason that context.Cause then tells; nil
// stands for context.Canceled. It frees what the limit holds.
func (l *Limit) Cancel(cause error) {
	l.cancel(cause)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
	if l.unfollow != nil {
		l.unfollow()
	}
}

// check ends the context if it is time.
func (l *Limit) check() {
	l.mu.Lock()
	err := l.parent.Err()
	if err == nil && !l.at.IsZero() {
		if left := time.Until(l.at); left <= 0 {
			err = context.DeadlineExceeded
		} else if l.timer != nil { // the deadline has moved
			l.timer.Reset(left)
		}
	}
	if err == nil || l.err != nil {
		l.mu.Unlock()
		return
	}
	l.err = err
	l.mu.Unlock()
	l.end()
}

// source is the limit as the parent of the context that Start returns. Package context asks it for
// the reason of the end, and through AfterFunc leaves it to us when that is: this is what makes
// every context below end with context.DeadlineExceeded though no timer of package context is
// involved.
type source Limit

var never = make(chan struct{})

func stopped() bool { return true }

// Done is never closed: who waits, waits for the context that Start has returned.
func (s *source) Done() <-chan struct{} { return never }

// AfterFunc is what package context calls in Start.
func (s *source) AfterFunc(f func()) func() bool {
	s.end = f
	return stopped
}

func (s *source) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *source) Deadline() (time.Time, bool) {
	s.mu.Lock()
	at := s.at
	s.mu.Unlock()
	if at.IsZero() {
		return s.parent.Deadline()
	}
	return at, true
}

func (s *source) Value(key any) any {
	if key == (limitKey{}) {
		return (*Limit)(s)
	}
	return s.parent.Value(key)
}
