package deadline_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/internal/deadline"
)

type name struct{}

// ends reports when and why ctx and a context far below it end.
func ends(t *testing.T, ctx context.Context) (after time.Duration, err, cause error) {
	t.Helper()
	began := time.Now()
	below, cancel := context.WithCancel(context.WithValue(ctx, name{}, 1))
	defer cancel()
	<-below.Done()
	synctest.Wait()
	if !errors.Is(below.Err(), ctx.Err()) || !errors.Is(context.Cause(below), context.Cause(ctx)) {
		t.Errorf("below: %v (%v), above: %v (%v)", below.Err(), context.Cause(below), ctx.Err(), context.Cause(ctx))
	}
	return time.Since(began), ctx.Err(), context.Cause(ctx)
}

func TestLimitEnds(t *testing.T) {
	t.Parallel()
	why := errors.New("why")
	for what, tt := range map[string]struct {
		do    func(l *deadline.Limit, cancelParent context.CancelCauseFunc)
		after time.Duration
		err   error
		cause error
	}{
		"deadline": {func(*deadline.Limit, context.CancelCauseFunc) {}, 5 * time.Second, context.DeadlineExceeded, context.DeadlineExceeded},
		"later": {func(l *deadline.Limit, _ context.CancelCauseFunc) {
			time.Sleep(time.Second)
			l.Move(time.Now().Add(8 * time.Second))
		}, 9 * time.Second, context.DeadlineExceeded, context.DeadlineExceeded},
		"earlier": {func(l *deadline.Limit, _ context.CancelCauseFunc) { l.Move(time.Now().Add(time.Second)) }, time.Second, context.DeadlineExceeded, context.DeadlineExceeded},
		"lifted, then the parent ends": {func(l *deadline.Limit, cancelParent context.CancelCauseFunc) {
			l.Move(time.Time{})
			time.Sleep(time.Hour)
			cancelParent(why)
		}, time.Hour, context.Canceled, why},
		"lifted and set again": {func(l *deadline.Limit, _ context.CancelCauseFunc) {
			l.Move(time.Time{})
			time.Sleep(time.Minute)
			l.Move(time.Now().Add(time.Second))
		}, 61 * time.Second, context.DeadlineExceeded, context.DeadlineExceeded},
		"cancelled": {func(l *deadline.Limit, _ context.CancelCauseFunc) { l.Cancel(why) }, 0, context.Canceled, why},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				parent, cancelParent := context.WithCancelCause(context.WithValue(t.Context(), name{}, "v"))
				defer cancelParent(nil)
				var l deadline.Limit
				ctx := l.Start(parent, time.Now().Add(5*time.Second))
				defer l.Cancel(nil)
				if deadline.Of(context.WithValue(ctx, name{}, 2)) != &l || ctx.Value(name{}) != "v" {
					t.Error("the limit or the parent's value is not found")
				}
				go tt.do(&l, cancelParent)
				after, err, cause := ends(t, ctx)
				if after != tt.after || !errors.Is(err, tt.err) || !errors.Is(cause, tt.cause) {
					t.Errorf("ended after %v with %v (%v), want %v with %v (%v)", after, err, cause, tt.after, tt.err, tt.cause)
				}
			})
		})
	}
}

func TestLimitThatHasPassed(t *testing.T) {
	t.Parallel()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	var moved deadline.Limit
	ctx := moved.Start(t.Context(), time.Time{})
	moved.Move(time.Now())
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Errorf("moved to now: %v", ctx.Err())
	}
	moved.Cancel(nil)
	for want, start := range map[error]func(l *deadline.Limit) context.Context{
		context.DeadlineExceeded: func(l *deadline.Limit) context.Context {
			return l.Start(t.Context(), time.Now().Add(-time.Second))
		},
		context.Canceled: func(l *deadline.Limit) context.Context {
			return l.Start(gone, time.Now().Add(time.Hour))
		},
	} {
		var l deadline.Limit
		if ctx := start(&l); !errors.Is(ctx.Err(), want) {
			t.Errorf("at once: %v, want %v", ctx.Err(), want)
		}
		l.Cancel(nil)
	}
}

func TestLimitDeadline(t *testing.T) {
	t.Parallel()
	parent, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	at := time.Now().Add(time.Minute)
	var l deadline.Limit
	ctx := l.Start(parent, at)
	defer l.Cancel(nil)
	if got, ok := ctx.Deadline(); !ok || got != at {
		t.Errorf("Deadline = %v, %v, want its own", got, ok)
	}
	l.Move(time.Time{})
	if got, _ := ctx.Deadline(); time.Until(got) < 59*time.Minute {
		t.Errorf("lifted: %v, want the parent's", got)
	}
}

// TestLimitThatNobodyWaitedFor looks at a limit for the first time after its end.
func TestLimitThatNobodyWaitedFor(t *testing.T) {
	t.Parallel()
	why := errors.New("why")
	for what, tt := range map[string]struct {
		end        func(l *deadline.Limit)
		err, cause error
	}{
		"cancelled":             {func(l *deadline.Limit) { l.Cancel(nil) }, context.Canceled, context.Canceled},
		"cancelled for a cause": {func(l *deadline.Limit) { l.Cancel(why) }, context.Canceled, why},
		"deadline, then lifted": {func(l *deadline.Limit) { time.Sleep(2 * time.Second); l.Move(time.Time{}) }, context.DeadlineExceeded, context.DeadlineExceeded},
		"deadline, then cancelled": {func(l *deadline.Limit) {
			time.Sleep(2 * time.Second)
			_ = l.Err()
			l.Cancel(why)
		}, context.DeadlineExceeded, context.DeadlineExceeded},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var l deadline.Limit
				ctx := l.Start(t.Context(), time.Now().Add(time.Second))
				tt.end(&l)
				_, err, cause := ends(t, ctx)
				if !errors.Is(err, tt.err) || !errors.Is(cause, tt.cause) {
					t.Errorf("ended with %v (%v), want %v (%v)", err, cause, tt.err, tt.cause)
				}
			})
		})
	}
}

// TestLimitCostsNothing shows that a limit that nobody waits for allocates nothing more.
func TestLimitCostsNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun does not allow it
	parent, cancel := context.WithCancel(t.Context())
	defer cancel()
	if n := testing.AllocsPerRun(100, func() {
		l := new(deadline.Limit)
		if ctx := l.Start(parent, time.Now().Add(time.Hour)); ctx.Err() != nil {
			t.Error(ctx.Err())
		}
		l.Cancel(nil)
	}); n > 1 {
		t.Errorf("%v allocations, want no more than the limit itself", n)
	}
}

func TestCarriedValuesComeFirst(t *testing.T) {
	t.Parallel()
	var l deadline.Limit
	parent := context.WithValue(context.WithValue(t.Context(), name{}, "parent"), other{}, "parent")
	ctx := l.Start(parent, time.Time{})
	defer l.Cancel(nil)
	l.Carry(context.WithValue(context.Background(), name{}, "carried"))
	if got, rest := ctx.Value(name{}), ctx.Value(other{}); got != "carried" || rest != "parent" || deadline.Of(ctx) != &l {
		t.Errorf("values %v and %v, limit %p; want carried, parent, %p", got, rest, deadline.Of(ctx), &l)
	}
}

type other struct{}
