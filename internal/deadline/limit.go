package deadline

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A Limit is a context whose deadline can move while it is in use. A call gets a deadline before
// anybody knows that its answer is a stream, which the deadline must not cut.
//
// It ends with the parent, with context.Canceled through Cancel, and with context.DeadlineExceeded
// at the deadline. It costs next to nothing until somebody waits for its end. The zero value is
// ready for one Start. Methods may be called concurrently after Start.
type Limit struct {
	parent context.Context
	owner  any
	values context.Context // of Carry; nil for none
	given  atomic.Pointer[given]

	mu      sync.Mutex
	at      time.Time // zero: no deadline of its own
	guard   time.Time // zero: none
	err     error
	ours    bool            // of Choose
	guarded bool            // it is the guard that has ended it
	awake   bool            // somebody waits for the end: the timer runs, the parent is followed
	ctx     context.Context // for waiting; nil until somebody waits or needs the cause
	cancel  context.CancelCauseFunc
	expire  func() // ends ctx for the reason err

	timer     *time.Timer
	above     *Limit      // that is followed; nil: none
	unfollow  func() bool // the same for another parent
	followers []Follower
	room      [1]Follower // for the first of them, mostly the only one
	ended     func()      // Ended, as timer and parent call it
}

type limitKey struct{}

// Of returns the innermost limit above ctx, nil if there is none.
func Of(ctx context.Context) *Limit {
	l, _ := ctx.Value(limitKey{}).(*Limit)
	return l
}

// Start returns the limit as a context that ends no later than at; the zero time sets no deadline.
// Cancel must be called in the end.
func (l *Limit) Start(parent context.Context, at time.Time) context.Context {
	l.parent, l.at = parent, at
	return l
}

// Move sets another deadline. The zero time removes it; one that has passed ends the context before
// Move returns. Move has no effect after the end.
func (l *Limit) Move(at time.Time) {
	if l.Err() != nil {
		return
	}
	l.mu.Lock()
	l.at = at
	l.arm()
	l.mu.Unlock()
	_ = l.Err()
}

// Guard makes the context end at the time at as well, with context.DeadlineExceeded. Deadline does
// not report it: it is not for those who work under the limit but for those who wait for them. It
// may be set once, before anybody waits.
func (l *Limit) Guard(at time.Time) { l.guard = at }

// Unguard removes the guard. It returns false if the guard has ended the context.
func (l *Limit) Unguard() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.guard = time.Time{}
		l.arm()
	}
	return !l.guarded
}

// Choose records whether the service itself chose the deadline, rather than its caller.
func (l *Limit) Choose(ours bool) { l.ours = ours }

// Chosen reports whether the service itself chose the deadline of ctx: it is that of the innermost
// limit, for which Choose was called with true, and not an earlier one of a context in between.
func Chosen(ctx context.Context) bool {
	l := Of(ctx)
	if l == nil || !l.ours {
		return false
	}
	at, ok := ctx.Deadline()
	ours, _ := l.Deadline()
	return ok && at.Equal(ours)
}

// Own makes Owner return v, so that the owner of a limit can be found through a context.
func (l *Limit) Own(v any) { l.owner = v }

// Carry adds the values of ctx to those of the parent, which saves a context below the limit. Call
// it before anybody else has the limit.
func (l *Limit) Carry(ctx context.Context) { l.values = ctx }

type given struct{ key, value any }

// Give adds one value to the context, in place of the last one that Give added. Unlike Carry it may
// be called at any time.
func (l *Limit) Give(key, value any) { l.given.Store(&given{key, value}) }

// Owner returns what Own was given.
func (l *Limit) Owner() any { return l.owner }

// Cancel ends the context, unless it has ended, with the given context.Cause; nil stands for
// context.Canceled. It frees what the limit holds.
func (l *Limit) Cancel(cause error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = context.Canceled
		if cause != nil {
			l.watch()
		}
	}
	cancel, above, told := l.cancel, Following{limit: l.above, who: l, stop: l.unfollow}, l.followers
	l.above, l.unfollow, l.followers = nil, nil, nil
	if l.timer != nil {
		l.timer.Stop()
	}
	l.mu.Unlock()
	above.Stop()
	if cancel != nil {
		cancel(cause)
	}
	tell(told)
}

// Done implements context.Context.
func (l *Limit) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx == nil {
		l.watch()
		if l.err != nil { // through Cancel, without a cause
			l.cancel(nil)
		}
	}
	l.wake()
	return l.ctx.Done()
}

// Err implements context.Context. It does not wait for a timer.
func (l *Limit) Err() error {
	l.mu.Lock()
	if l.err != nil {
		defer l.mu.Unlock()
		return l.err
	}
	l.err = l.parent.Err()
	if l.err == nil && !(l.at.IsZero() && l.guard.IsZero()) {
		l.guarded = !l.guard.IsZero() && time.Until(l.guard) <= 0
		if l.guarded || !l.at.IsZero() && time.Until(l.at) <= 0 {
			l.err = context.DeadlineExceeded
		}
	}
	err := l.err
	if err == nil {
		l.mu.Unlock()
		return nil
	}
	l.watch()
	expire, told := l.expire, l.followers
	l.followers = nil
	l.mu.Unlock()
	expire()
	tell(told)
	return err
}

// Deadline returns the deadline in force; ok is false if there is none.
func (l *Limit) Deadline() (at time.Time, ok bool) {
	l.mu.Lock()
	at = l.at
	l.mu.Unlock()
	if at.IsZero() {
		return l.parent.Deadline()
	}
	return at, true
}

// Value implements context.Context.
func (l *Limit) Value(key any) any {
	if key == (limitKey{}) {
		return l
	}
	if g := l.given.Load(); g != nil && g.key == key {
		return g.value
	}
	if l.values != nil {
		if v := l.values.Value(key); v != nil {
			return v
		}
	}
	l.mu.Lock()
	ctx := l.ctx
	l.mu.Unlock()
	if ctx == nil {
		ctx = l.parent
	}
	return ctx.Value(key)
}

// Ended implements Follower: the parent has ended or the timer has fired.
func (l *Limit) Ended() { _ = l.Err() }

// wake makes the limit end without anybody asking; the caller holds mu.
func (l *Limit) wake() {
	if l.awake || l.err != nil {
		return
	}
	l.awake = true
	l.ended = l.Ended
	l.arm()
	f := Follow(l.parent, l)
	l.above, l.unfollow = f.limit, f.stop
}

// arm sets the timer for those who wait; the caller holds mu.
func (l *Limit) arm() {
	if !l.awake || l.err != nil {
		return
	}
	at := l.at
	if at.IsZero() || !l.guard.IsZero() && l.guard.Before(at) {
		at = l.guard
	}
	switch {
	case l.timer == nil && at.IsZero():
	case l.timer == nil:
		l.timer = time.AfterFunc(time.Until(at), l.ended)
	case at.IsZero():
		l.timer.Stop()
	default:
		l.timer.Reset(time.Until(at))
	}
}

// watch makes ctx; the caller holds mu.
func (l *Limit) watch() {
	if l.ctx == nil {
		l.ctx, l.cancel = context.WithCancelCause(source{l}) // sets l.expire
	}
}

// source is the limit as the parent of its ctx. Package context asks it for the reason of the end,
// and leaves the moment to us through AfterFunc. So ctx, and every context below, ends with
// context.DeadlineExceeded although no timer of package context is involved.
type source struct{ *Limit }

var never = make(chan struct{})

func stopped() bool { return true }

// Done is never closed, since callers wait for ctx.
func (source) Done() <-chan struct{} { return never }

// AfterFunc is what package context calls in watch.
func (s source) AfterFunc(f func()) func() bool {
	s.expire = f
	return stopped
}

func (s source) Value(key any) any { return s.parent.Value(key) }
