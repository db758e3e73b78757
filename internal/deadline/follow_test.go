package deadline_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/internal/deadline"
)

// told counts how often it is told, and when.
type told struct {
	times int
	after time.Duration
	began time.Time
}

func (f *told) Ended() { f.times, f.after = f.times+1, time.Since(f.began) }

// values is a context that only adds values.
type values struct{ context.Context }

func (v values) Under() context.Context { return v.Context }

func TestFollow(t *testing.T) {
	t.Parallel()
	for what, tt := range map[string]struct {
		do    func(parent context.CancelFunc, above, l *deadline.Limit, f deadline.Following)
		times int
		after time.Duration
	}{
		"deadline":    {func(context.CancelFunc, *deadline.Limit, *deadline.Limit, deadline.Following) {}, 1, 5 * time.Second},
		"cancel":      {func(_ context.CancelFunc, _, l *deadline.Limit, _ deadline.Following) { l.Cancel(nil); l.Cancel(nil) }, 1, 0},
		"limit above": {func(_ context.CancelFunc, above, _ *deadline.Limit, _ deadline.Following) { above.Cancel(nil) }, 1, 0},
		"far above":   {func(parent context.CancelFunc, _, _ *deadline.Limit, _ deadline.Following) { parent() }, 1, 0},
		"above, later": {func(_ context.CancelFunc, above, l *deadline.Limit, _ deadline.Following) {
			above.Move(time.Now().Add(time.Second))
		}, 1, time.Second},
		"stopped": {func(_ context.CancelFunc, _, l *deadline.Limit, f deadline.Following) { f.Stop(); l.Cancel(nil) }, 0, 0},
		"moved": {func(_ context.CancelFunc, _, l *deadline.Limit, _ deadline.Following) {
			l.Move(time.Now().Add(time.Minute))
		}, 1, time.Minute},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				parent, cancel := context.WithCancel(t.Context())
				defer cancel()
				var above, l deadline.Limit
				ctx := l.Start(values{values{above.Start(parent, time.Time{})}}, time.Now().Add(5*time.Second))
				f, other := &told{began: time.Now()}, &told{began: time.Now()}
				following := deadline.Follow(values{ctx}, f)
				defer deadline.Follow(ctx, other).Stop()
				tt.do(cancel, &above, &l, following)
				time.Sleep(time.Hour)
				synctest.Wait()
				if f.times != tt.times || f.after != tt.after {
					t.Errorf("told %d times, after %v, want %d, after %v", f.times, f.after, tt.times, tt.after)
				}
				if other.times != 1 {
					t.Errorf("the other follower was told %d times, want once", other.times)
				}
				late := &told{began: time.Now()}
				deadline.Follow(ctx, late)
				synctest.Wait()
				if late.times != 1 {
					t.Errorf("a follower that came after the end was told %d times, want once", late.times)
				}
				l.Cancel(nil)
				above.Cancel(nil)
			})
		})
	}
}

func TestFollowOtherContexts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		deadline.Follow(context.Background(), nil).Stop()
		ctx, cancel := context.WithCancel(t.Context())
		a, b := &told{}, &told{}
		deadline.Follow(ctx, a)
		deadline.Follow(ctx, b).Stop()
		cancel()
		synctest.Wait()
		if a.times != 1 || b.times != 0 {
			t.Errorf("told %d and, stopped, %d times, want 1 and 0", a.times, b.times)
		}
	})
}

func TestGuard(t *testing.T) {
	t.Parallel()
	for _, waited := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var l, lifted deadline.Limit
			began := time.Now()
			ctx := l.Start(t.Context(), began.Add(time.Minute))
			l.Guard(began.Add(time.Second))
			if at, _ := ctx.Deadline(); at != began.Add(time.Minute) {
				t.Errorf("Deadline tells %v, want its own and not the guard's", at)
			}
			kept := lifted.Start(t.Context(), began.Add(time.Minute))
			lifted.Guard(began.Add(time.Second))
			if waited {
				_, _ = ctx.Done(), kept.Done()
			}
			if !lifted.Unguard() {
				t.Error("Unguard in time: false")
			}
			time.Sleep(time.Second)
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) || l.Unguard() {
				t.Errorf("after the guard: %v, unguarded %v", ctx.Err(), l.Unguard())
			}
			if kept.Err() != nil {
				t.Errorf("without its guard the limit has ended: %v", kept.Err())
			}
			time.Sleep(time.Minute)
			if !errors.Is(kept.Err(), context.DeadlineExceeded) {
				t.Errorf("at the deadline: %v", kept.Err())
			}
			if !lifted.Unguard() {
				t.Error("the deadline counts as the guard")
			}
		})
	}
}

// TestFollowCostsATimer: no channel, no goroutine and no context.
func TestFollowCostsATimer(t *testing.T) { //nolint:paralleltest // AllocsPerRun does not allow it
	var above deadline.Limit
	parent := above.Start(context.Background(), time.Time{})
	f := new(told)
	if n := testing.AllocsPerRun(100, func() {
		l := new(deadline.Limit)
		following := deadline.Follow(values{l.Start(parent, time.Now().Add(time.Hour))}, f)
		following.Stop()
		l.Cancel(nil)
	}); n > 5 {
		t.Errorf("%v allocations, want those of the limit, values, the timer, its function and the list of followers", n)
	}
}

func TestPassed(t *testing.T) {
	t.Parallel()
	past, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	var above, open, over deadline.Limit
	defer open.Cancel(nil)
	why := errors.New("why")
	cancelled, end := context.WithCancelCause(context.Background())
	end(why)
	for what, tt := range map[string]struct {
		ctx  context.Context
		want error
	}{
		"open":                   {values{open.Start(context.Background(), time.Now().Add(time.Hour))}, nil},
		"limit over":             {values{over.Start(context.Background(), time.Now().Add(-time.Second))}, context.DeadlineExceeded},
		"limit under a deadline": {above.Start(late{past}, time.Time{}), context.DeadlineExceeded},
		"cancelled":              {cancelled, why},
		"its timer is late":      {late{past}, context.DeadlineExceeded},
	} {
		if got := deadline.Passed(tt.ctx); !errors.Is(got, tt.want) {
			t.Errorf("%s: %v, want %v", what, got, tt.want)
		}
	}
}

// late is a context whose timer has not run yet.
type late struct{ context.Context }

func (late) Err() error { return nil }
