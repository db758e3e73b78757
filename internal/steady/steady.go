// Package steady has the toolkit's waiting and its reports of outages: one sleep, one backoff, and
// one wording for "lost" and "back".
package steady

import (
	"context"
	"math/rand/v2"
	"time"
)

// Sleep waits for d, if it is above 0, and reports whether ctx has not ended.
func Sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Jitter spreads d by ± 20 %, so that many that wait do not come together.
func Jitter(d time.Duration) time.Duration { return d*4/5 + rand.N(d*2/5+1) }

// Join returns a copy of ctx that also ends with each of others, for the same cause.
func Join(ctx context.Context, others ...context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stops := make([]func() bool, len(others))
	for i, other := range others {
		stops[i] = context.AfterFunc(other, func() { cancel(context.Cause(other)) })
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(nil)
	}
}

// Bound returns ctx, if it has a deadline, or else a copy of it that ends after d.
func Bound(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// Signal leaves a value in c, which has room for one, unless there is one: who waits for c wakes up
// once, however often it was called.
func Signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// A Backoff says how long to wait before the next attempt. First doubles with each failure up to
// Max. The upper half of each wait is random, so that many that failed together do not come back
// together. A zero First is 100 ms, a zero Max 10 s. It may not be used concurrently.
type Backoff struct {
	First, Max time.Duration

	failures int
}

// Next returns the wait after one more failure.
func (b *Backoff) Next() time.Duration {
	d := Delay(b.failures, b.First, b.Max)
	b.failures++
	return d
}

// Reset makes the next wait a first one again, after a success.
func (b *Backoff) Reset() { b.failures = 0 }

// Delay returns the wait after n earlier failures, for callers that keep the count themselves.
func Delay(n int, first, limit time.Duration) time.Duration {
	if first <= 0 {
		first = 100 * time.Millisecond
	}
	if limit <= 0 {
		limit = 10 * time.Second
	}
	d := first
	for ; n > 0 && d < limit; n-- {
		d *= 2
	}
	d = min(d, limit)
	return d/2 + rand.N(d/2+1)
}
