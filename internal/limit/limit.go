// Package limit bounds how many calls a server works on at a time. It finds the bound by itself
// from the latency of calls: beyond its capacity, more concurrent calls make each call slower and
// none finish sooner.
package limit

import (
	"cmp"
	"context"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// The models are Netflix's concurrency-limits and Envoy's adaptive concurrency, with two
// differences. The latency of a call is compared with that of the same route at low load, so that a
// server may have handlers of very different latency. And the share of slow calls in a window
// decides, not their mean, so that one slow dependency among several does not close the server.
//
// When most calls are slow the limit is halved. If that does not make them faster, they do not wait
// for capacity here: the limit returns to what it was, and the latency becomes the new reference.
const (
	initial    = 20
	least      = 4
	tolerance  = 3                     // a call is slow if it takes so many times its latency at low load
	slack      = time.Millisecond      // and at least this much longer: schedulers are not exact
	windowTime = 50 * time.Millisecond // a window of calls lasts at least this long
	windowSize = 64                    // and has so many calls,
	windowMost = time.Second           // unless it has lasted this long
	fewest     = 8                     // and has at least so many
	testEvery  = 30 * time.Second      // while calls wait the limit is halved this often, as a test
	helped     = 0.8                   // halving helped if the latency fell to this share or less
	known      = 32                    // calls after which a route's latency at low load is known
	burst      = 128                   // calls may wait, however low the limit is
)

// Options configure a Limiter. The zero value is ready to use.
type Options struct {
	Max  int           // upper bound of the limit; default 1,000, negative means no limit
	Wait time.Duration // longest time in the queue; default 100 ms
}

// A Priority is the rank of a call in the queue.
type Priority int

// The priorities.
const (
	Normal    Priority = iota
	Critical           // waits before all others
	Sheddable          // does not wait: it is refused when there is no room
)

// A Refusal is the reason why a call was not admitted; "" means that it was.
type Refusal string

// The reasons.
const (
	Full    Refusal = "queue_full" // the queue is full, or a newer or more important call took its slot
	Late    Refusal = "queue_time" // its turn did not come in time
	Shed    Refusal = "sheddable"  // it is Sheddable, and there is no room
	Expired Refusal = "expired"    // its context ended before its turn came
)

// A Limiter admits calls. Make it with New. Its methods may be called concurrently.
type Limiter struct {
	min, max int64
	wait     time.Duration
	epoch    time.Time

	inFlight atomic.Int64
	limit    atomic.Int64
	waiting  atomic.Int64 // length of the queues; changed under mu

	mu    sync.Mutex
	queue [2][]*waiter // Normal and Critical, the oldest first

	window window // of the calls that began since it did
	before window // the one before the limit was halved
	high   int64  // the limit before it was halved; 0: it is not halved
	tested time.Time
	scale  float64   // how many times its latency at low load a call takes that does not wait for capacity here
	fast   bool      // the limit grows with each call, until it is first found to be too high
	last   time.Time // when a call was last measured
}

// A window is statistics of the calls since it began, of those that ran while more than half of the
// limit was in use.
type window struct {
	began       time.Time
	calls, slow int
	times       float64 // sum of how many times its latency at low load each call took
}

// mean returns how many times its latency at low load a call took on average.
func (w *window) mean() float64 { return w.times / float64(max(w.calls, 1)) }

// New returns a Limiter.
func New(opts Options) *Limiter {
	l := &Limiter{min: max(least, int64(2*runtime.GOMAXPROCS(0))), max: int64(cmp.Or(opts.Max, 1000)), wait: opts.Wait, epoch: time.Now(), scale: 1, fast: true}
	if l.wait <= 0 {
		l.wait = 100 * time.Millisecond
	}
	l.limit.Store(min(max(initial, l.min), l.max))
	if l.max < 0 {
		l.limit.Store(math.MaxInt64)
	}
	l.min, l.tested = min(l.min, l.limit.Load()), l.epoch
	return l
}

// Limit returns the current limit.
func (l *Limiter) Limit() float64 { return float64(l.limit.Load()) }

// Waiting returns how many calls are in the queue.
func (l *Limiter) Waiting() float64 { return float64(l.waiting.Load()) }

// A Slot is an admitted call; the zero value is none. Its methods may be called concurrently.
type Slot struct {
	limiter *Limiter
	state   atomic.Int32
	began   atomic.Int64 // when it was admitted, or had its whole request, since Limiter.epoch
	beside  int64        // calls in flight then, including this one
}

// The states of a Slot.
const (
	none   = iota
	taken  // counts against the limit
	paused // waits for its client and does not count
)

// A Latency is how long calls of one route take at low load. The zero value has not learned yet.
// Use it with one Limiter only.
type Latency struct {
	typical time.Duration // the median
	calls   uint32        // number of calls learned from, up to known
}

// Acquire admits a call that arrived at now, at once or after it has waited in the queue. It calls
// priority only if the call has to wait. Unless it refuses the call, s.Release must be called.
func (l *Limiter) Acquire(ctx context.Context, now time.Time, s *Slot, priority func() Priority) Refusal {
	n := l.inFlight.Add(1)
	if n <= l.limit.Load() && l.waiting.Load() == 0 {
		s.take(l, now, n)
		return ""
	}
	l.inFlight.Add(-1)
	return l.enqueue(ctx, s, priority())
}

func (s *Slot) take(l *Limiter, now time.Time, beside int64) {
	s.limiter, s.beside = l, beside
	s.began.Store(int64(now.Sub(l.epoch)))
	s.state.Store(taken)
}

// Release ends a call at now. If route is not nil the call is measured with the Latency of its
// route. Pass nil for a stream, and for a call that failed, since that may have taken any time. ok
// is false for a call that timed out: it counts as slow, but its latency is not learned. Release
// does nothing for a call that was not admitted or is already released.
func (s *Slot) Release(now time.Time, route *Latency, ok bool) {
	was := s.state.Swap(none)
	if was == none {
		return
	}
	l := s.limiter
	if was == taken {
		// If another call is being measured at this moment, skip this one.
		if route != nil && s.matters() && l.mu.TryLock() {
			l.measure(s, now, route, ok)
			l.mu.Unlock()
		}
		l.giveBack()
	}
}

// matters reports whether the call is worth measuring. A call with many others in flight shows
// whether the limit is too high; a sample of those with few shows the latency at low load.
func (s *Slot) matters() bool {
	l := s.limiter
	return 2*s.beside > l.limit.Load() || s.beside <= l.min && s.began.Load()>>10&3 == 0
}

// Pause tells that the call waits for its client, who may be slow or hostile. Until Resume it does
// not count against the limit.
func (s *Slot) Pause() {
	if s.state.CompareAndSwap(taken, paused) {
		s.limiter.giveBack()
	}
}

// Resume ends Pause. It does not wait, so the limit can be exceeded for a moment. If now is not
// zero the call has its whole request, and is measured from then on.
func (s *Slot) Resume(now time.Time) {
	if s.state.Load() != paused {
		return
	}
	if !now.IsZero() {
		s.began.Store(int64(now.Sub(s.limiter.epoch)))
	}
	s.limiter.inFlight.Add(1)
	if !s.state.CompareAndSwap(paused, taken) {
		s.limiter.giveBack() // it was released at the same moment
	}
}

func (l *Limiter) giveBack() {
	l.inFlight.Add(-1)
	if l.waiting.Load() > 0 {
		l.mu.Lock()
		l.letIn(time.Now())
		l.mu.Unlock()
	}
}

// measure takes the measurement of a call that has ended; mu is held.
func (l *Limiter) measure(s *Slot, now time.Time, route *Latency, ok bool) {
	began := l.epoch.Add(time.Duration(s.began.Load()))
	took := now.Sub(began)
	l.last = now
	low := s.beside <= l.min
	if low {
		l.scale += (1 - l.scale) / known
	}
	if ok && (low || route.calls < known) {
		route.learn(took)
	}
	limit := l.limit.Load()
	if route.calls < known || 2*s.beside <= limit || began.Before(l.window.began) {
		return // the limit did not affect its latency, or an earlier limit did
	}
	times := float64(took) / float64(max(route.typical, 1))
	slow := times > tolerance*l.scale && took > route.typical+slack
	l.window.calls++
	l.window.times += min(times, 100)
	if slow {
		l.window.slow++
	} else if l.fast && l.waiting.Load() > 0 {
		l.limit.Store(min(limit+1, l.max))
	}
	if age := now.Sub(l.window.began); age >= windowTime && l.window.calls >= windowSize || age >= windowMost && l.window.calls >= fewest {
		l.adjust(now)
	}
}

// learn moves the median a step towards took. The first steps are large.
func (t *Latency) learn(took time.Duration) {
	t.calls = min(t.calls+1, known)
	switch step := t.typical/(2+time.Duration(t.calls)) + 1; {
	case t.calls == 1:
		t.typical = took
	case took > t.typical:
		t.typical += step
	case took < t.typical:
		t.typical -= step
	}
}

// adjust ends a window and sets the limit; mu is held.
func (l *Limiter) adjust(now time.Time) {
	w := l.window
	l.window = window{began: now}
	limit := l.limit.Load()
	switch {
	case l.high > 0 && w.mean() > helped*l.before.mean():
		limit, l.high = l.high, 0
		l.scale = max(l.scale, l.before.mean())
	case l.high > 0:
		l.high = 0
		l.scale = max(1, min(l.scale, w.mean()))
	case 2*w.slow > w.calls, l.waiting.Load() > 0 && now.Sub(l.tested) > testEvery:
		l.before, l.high, l.tested, l.fast = w, limit, now, false
		limit = max(limit/2, l.min)
	case 4*w.slow <= w.calls:
		limit = min(limit+max(1, int64(math.Sqrt(float64(limit)))), l.max)
	}
	l.limit.Store(limit)
}

// stuck raises the limit when no call has been measured for as long as one may wait: the calls in
// flight wait for something else than capacity here. mu is held.
func (l *Limiter) stuck(now time.Time) {
	if limit := l.limit.Load(); now.Sub(l.last) > l.wait {
		l.last = now
		l.limit.Store(min(limit+limit/4, l.max))
		l.letIn(now)
	}
}
