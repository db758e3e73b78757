// Package limit bounds how many calls a server works on at a time and finds the bound by itself,
// from how long calls take: more calls at once than a server has room for make each of them slower
// and none of them done sooner.
package limit

import (
	"context"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// The models are Netflix's concurrency-limits and Envoy's adaptive concurrency, with two differences.
// Latency is compared for each route with that of the same route at rest, so that a server may have
// handlers of very different latency; and what decides is how many calls of a window were slow, not
// their mean, so that one slow dependency among several does not close the server.
//
// When most calls are slow the limit is halved. If that does not make them faster, what they wait for
// is not for want of room here: the limit returns to what it was, and the latency is the new measure.
const (
	initial    = 20
	least      = 4
	tolerance  = 3                     // times its latency at rest makes a call a slow one,
	slack      = time.Millisecond      // if it is more than that beside: schedulers are not exact
	windowTime = 50 * time.Millisecond // of calls that are looked at together, at least,
	windowSize = 64                    // with so many calls,
	windowMost = time.Second           // or that long
	fewest     = 8                     // calls that say anything
	testEvery  = 30 * time.Second      // it is halved to see what comes of it while calls wait
	helped     = 0.8                   // of the latency must remain at most
	known      = 32                    // calls after which a route's latency at rest is known
	burst      = 128                   // calls may wait however low the limit is
)

// Options configure a Limiter. The zero value is ready to use.
type Options struct {
	Max  int           // the limit never grows above; default 1,000, negative means no limit at all
	Wait time.Duration // that a call may spend in the queue; default 100 ms
}

// A Priority says who waits behind whom.
type Priority int

// The priorities.
const (
	Normal    Priority = iota
	Critical           // waits before all others
	Sheddable          // does not wait: it is refused when there is no room
)

// A Refusal is why a call was not let in; "" means that it was.
type Refusal string

// The reasons.
const (
	Full    Refusal = "queue_full" // there is no room in the queue, or somebody newer took it
	Late    Refusal = "queue_time" // its turn did not come in time
	Shed    Refusal = "sheddable"  // it is Sheddable, and there is no room
	Expired Refusal = "expired"    // its context ended before its turn came
)

// A Limiter lets calls in. Its methods may be called concurrently.
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
	high   int64  // the limit then; 0: it was not
	tested time.Time
	scale  float64   // how often its latency at rest a call takes that is not held up here
	fast   bool      // until the limit was first found to be too high, it grows with each call
	last   time.Time // a call was measured
}

// A window is what is known of the calls since it began that had more than half of the limit.
type window struct {
	began       time.Time
	calls, slow int
	times       float64 // how often its latency at rest each took, in all
}

// mean is how often its latency at rest a call took.
func (w *window) mean() float64 { return w.times / float64(max(w.calls, 1)) }

// New returns a Limiter.
func New(opts Options) *Limiter {
	l := &Limiter{min: max(least, int64(2*runtime.GOMAXPROCS(0))), max: int64(opts.Max), wait: opts.Wait, epoch: time.Now(), scale: 1, fast: true}
	if l.max == 0 {
		l.max = 1000
	}
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

// Limit is how many calls may be worked on at the moment.
func (l *Limiter) Limit() float64 { return float64(l.limit.Load()) }

// Waiting is how many calls wait for their turn.
func (l *Limiter) Waiting() float64 { return float64(l.waiting.Load()) }

// A Slot is a call that was let in. The zero value is none. Its methods may be called concurrently.
type Slot struct {
	limiter *Limiter
	state   atomic.Int32
	began   atomic.Int64 // when it was let in, or had all it needs, after Limiter.epoch
	beside  int64        // calls that were worked on then, this one included
}

// The states of a Slot.
const (
	none   = iota
	taken  // counts
	paused // waits for its client, and does not count
)

// A Latency is how long the calls of one route take while few are worked on. The zero value knows
// nothing yet. It belongs to one Limiter.
type Latency struct {
	typical time.Duration // the median
	calls   uint32        // that it was learnt from, up to known
}

// Acquire lets a call in that came at now, at once or when its turn has come. Only when there is no
// room at once does it ask for the priority. Unless it refuses, Release must be called on s.
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

// Release ends a call at now. With a Latency, that of its route, the call counts as a measurement;
// a call that failed, which may have taken any time, should not, and neither should a stream. ok is
// false for one that ran out of time: it was slow, but is not how long calls take. A call that was
// released before or was not let in is left alone.
func (s *Slot) Release(now time.Time, route *Latency, ok bool) {
	was := s.state.Swap(none)
	if was == none {
		return
	}
	l := s.limiter
	if was == taken {
		// When somebody else measures, theirs will do.
		if route != nil && s.matters() && l.mu.TryLock() {
			l.measure(s, now, route, ok)
			l.mu.Unlock()
		}
		l.giveBack()
	}
}

// matters reports whether the call can tell anything: one that had many beside it, whether the
// limit is too high; some of those that had few, how long calls take.
func (s *Slot) matters() bool {
	l := s.limiter
	return 2*s.beside > l.limit.Load() || s.beside <= l.min && s.began.Load()>>10&3 == 0
}

// Pause says that the call waits for its client, who may be slow or hostile: until Resume it does
// not count.
func (s *Slot) Pause() {
	if s.state.CompareAndSwap(taken, paused) {
		s.limiter.giveBack()
	}
}

// Resume ends Pause. It does not wait for a turn, so there can be some calls more than the limit
// for a moment. A time other than zero says that the call has all it needs: it is measured from
// then on.
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

// measure looks at one call that ended; mu is held.
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
		return // the limit has no part in what it took, or another one had
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

// learn moves the median by a step towards took, by a large one at first.
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

// adjust ends a window.
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

// stuck lets more calls in when none has ended for as long as one may wait: their slowness, or that
// of what they wait for, is not for want of room here. mu is held.
func (l *Limiter) stuck(now time.Time) {
	if limit := l.limit.Load(); now.Sub(l.last) > l.wait {
		l.last = now
		l.limit.Store(min(limit+limit/4, l.max))
		l.letIn(now)
	}
}
