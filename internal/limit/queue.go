package limit

import (
	"context"
	"slices"
	"time"
)

// Header marks a 503 answer as a refusal for overload, before anything was done. The server is
// healthy, and the call may go to another instance at once. The value is the Refusal.
const Header = "Kaptar-Overload"

// Trailer is the same for gRPC, in the trailer of a call that failed with Unavailable.
const Trailer = "kaptar-overload"

// A waiter is a call in the queue.
type waiter struct {
	ctx    context.Context
	since  time.Time
	slot   *Slot
	result chan Refusal // has room for one: gets it when the call is taken out of the queue
}

// enqueue makes a call wait that could not be admitted at once.
func (l *Limiter) enqueue(ctx context.Context, s *Slot, p Priority) Refusal {
	w := &waiter{ctx: ctx, since: time.Now(), slot: s, result: make(chan Refusal, 1)}
	if r, in := l.join(w, p); !in {
		return r
	}
	timer := time.NewTimer(l.wait)
	defer timer.Stop()
	r := Late
	select {
	case r = <-w.result:
		return w.checked(r)
	case <-timer.C:
	case <-ctx.Done():
		r = Expired
	}
	l.mu.Lock()
	left := l.leave(w)
	if left && r == Late {
		l.stuck(time.Now())
	}
	l.mu.Unlock()
	if !left { // it was admitted or dropped at the same moment
		return w.checked(<-w.result)
	}
	return r
}

// checked returns r, but releases the slot of an admitted call whose context has ended.
func (w *waiter) checked(r Refusal) Refusal {
	if r == "" && w.ctx.Err() != nil {
		w.slot.Release(time.Now(), nil, false)
		return Expired
	}
	return r
}

// join puts w into the queue. A Sheddable call is admitted or refused at once instead. If the queue
// is full, the oldest of the least important calls is refused, unless w is less important still.
func (l *Limiter) join(w *waiter, p Priority) (Refusal, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p == Sheddable {
		if l.waiting.Load() > 0 || l.inFlight.Load() >= l.limit.Load() {
			return Shed, false
		}
		w.admit(l)
		return "", false
	}
	full := func() bool { return l.waiting.Load() >= max(2*l.limit.Load(), burst) }
	if full() {
		l.stuck(w.since)
	}
	if full() {
		q := Normal
		if len(l.queue[Normal]) == 0 {
			q = Critical
		}
		if q > p {
			return Full, false
		}
		l.queue[q][0].result <- Full
		l.drop(q, 0)
	}
	l.queue[p] = append(l.queue[p], w)
	l.waiting.Add(1)
	l.letIn(w.since) // somebody may have left between Acquire and here
	return "", true
}

// letIn admits calls from the queue while the limit allows it; mu is held.
func (l *Limiter) letIn(now time.Time) {
	for l.waiting.Load() > 0 && l.inFlight.Load() < l.limit.Load() {
		q := Critical
		if len(l.queue[Critical]) == 0 {
			q = Normal
		}
		i := 0
		if now.Sub(l.queue[q][0].since) > l.wait/4 {
			i = len(l.queue[q]) - 1 // the queue is late: the client of the newest call is most likely still there
		}
		w := l.queue[q][i]
		l.drop(q, i)
		if now.Sub(w.since) > l.wait {
			w.result <- Late
			continue
		}
		w.admit(l)
		w.result <- ""
	}
}

// admit gives w its slot.
func (w *waiter) admit(l *Limiter) {
	w.slot.take(l, time.Now(), l.inFlight.Add(1))
}

// leave removes w from the queue, and reports whether it was there; mu is held.
func (l *Limiter) leave(w *waiter) bool {
	for q := range l.queue {
		if i := slices.Index(l.queue[q], w); i >= 0 {
			l.drop(Priority(q), i)
			return true
		}
	}
	return false
}

func (l *Limiter) drop(q Priority, i int) {
	l.queue[q] = slices.Delete(l.queue[q], i, i+1)
	l.waiting.Add(-1)
}
