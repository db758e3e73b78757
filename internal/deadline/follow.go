package deadline

import (
	"context"
	"slices"
	"time"
)

// A Follower is told, on a goroutine of its own, that a context has ended.
type Follower interface{ Ended() }

// Following is what Follow returns. The zero value follows nothing.
type Following struct {
	limit *Limit
	who   Follower
	stop  func() bool
}

// Follow tells f once that ctx has ended. It is like context.AfterFunc, but for a Limit, or a
// context with only values between itself and one (whose method Under returns its parent), it makes
// neither a channel nor a context and costs at most a timer.
func Follow(ctx context.Context, f Follower) Following {
	if l := under(ctx); l != nil {
		l.follow(f)
		return Following{limit: l, who: f}
	}
	if ctx.Done() == nil {
		return Following{}
	}
	ended := f.Ended
	if l, ok := f.(*Limit); ok && l.ended != nil {
		ended = l.ended // saves an allocation
	}
	return Following{stop: context.AfterFunc(ctx, ended)}
}

// Passed returns why ctx has ended, or nil. It does not wait for a timer.
func Passed(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if l := under(ctx); l != nil { // its Err has checked the clock
		return Passed(l.parent)
	}
	if at, ok := ctx.Deadline(); ok && !time.Now().Before(at) {
		return context.DeadlineExceeded
	}
	return nil
}

// under returns the limit that ctx ends with, or nil.
func under(ctx context.Context) *Limit {
	if l, ok := ctx.(*Limit); ok {
		return l
	}
	if values, ok := ctx.(interface{ Under() context.Context }); ok {
		return under(values.Under())
	}
	return nil
}

// Stop ends the following. If the context ends at the same time, the follower may still be told.
func (f Following) Stop() {
	switch {
	case f.stop != nil:
		f.stop()
	case f.limit != nil:
		f.limit.mu.Lock()
		if i := slices.Index(f.limit.followers, f.who); i >= 0 {
			f.limit.followers = slices.Delete(f.limit.followers, i, i+1)
		}
		f.limit.mu.Unlock()
	}
}

func (l *Limit) follow(f Follower) {
	l.mu.Lock()
	ended := l.err != nil // if it is about to be, wake finds out
	if !ended {
		if l.followers == nil {
			l.followers = l.room[:0]
		}
		l.followers = append(l.followers, f)
		l.wake()
	}
	l.mu.Unlock()
	if ended {
		go f.Ended()
	}
}

func tell(followers []Follower) {
	for _, f := range followers {
		go f.Ended()
	}
}
