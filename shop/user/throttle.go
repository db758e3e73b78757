package user

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/kaptar/kaptar/server"
)

const (
	// mostTallies is how many are kept; of more, those used longest ago are forgotten.
	mostTallies = 10_000
	// forgotten is how long after the last failed login, and its delay, none counts any more.
	forgotten = time.Hour
	// sharedEvery is how often a login may fail, after those that are free, on all instances together.
	sharedEvery = time.Minute
)

// A bound is what a try to log in counts for: some may fail, and each further one makes the next wait,
// for a second first, and then each time twice as long, up to most. A bound that forgives begins anew
// with a success.
type bound struct {
	key      string
	free     int
	most     time.Duration
	forgives bool
}

// boundsOf are those of a client, an account, and the two together. Without the last a stranger could
// lock a user out; without the first two a stranger with many accounts or addresses had no limit.
// client is "" for a caller within the process, which is not bounded as one. The account's own bound
// does not hold for a client that the user is known to use.
func boundsOf(client, username string, known bool) []bound {
	bounds := []bound{{"both:" + client + " " + username, 5, 15 * time.Minute, true}}
	if client != "" {
		bounds = append(bounds, bound{"client:" + client, 30, time.Minute, false})
	}
	if !known {
		bounds = append(bounds, bound{"account:" + username, 100, time.Minute, false})
	}
	return bounds
}

// A throttle makes who fails to log in wait before the next try. It counts in this process; with a
// Counter, those that are free are free once for all instances. Its methods may be called
// concurrently.
type throttle struct {
	counter server.Counter

	mu     sync.Mutex
	known  map[string]*list.Element // of *tally
	recent list.List                // those used last in front
}

type tally struct {
	key    string
	failed int       // logins in a row, or since the bound was last free
	trying int       // logins that have begun
	next   time.Time // when the next may begin
}

func newThrottle(counter server.Counter) *throttle {
	return &throttle{counter: counter, known: map[string]*list.Element{}}
}

// begin lets a login begin, and returns 0, or says after what time one may. Once the free ones have
// failed, one is tried at a time.
func (t *throttle) begin(now time.Time, bounds []bound) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range bounds {
		y := t.tally(b.key)
		if now.Sub(y.next) > forgotten {
			y.failed = 0
		}
		wait = max(wait, y.next.Sub(now))
		if y.trying > 0 && y.failed+y.trying >= b.free {
			wait = max(wait, time.Second)
		}
	}
	if wait > 0 {
		return wait
	}
	for _, b := range bounds {
		t.tally(b.key).trying++
	}
	return 0
}

// end says what became of a login that has begun: whether it failed because of the password, whether
// it succeeded, or neither.
func (t *throttle) end(ctx context.Context, now time.Time, bounds []bound, failed, succeeded bool) {
	shared := make([]time.Duration, len(bounds))
	for i, b := range bounds {
		if failed && t.counter != nil {
			if wait, err := t.counter.Take(ctx, "login:"+b.key, sharedEvery, b.free); err == nil { // else each counts alone
				shared[i] = wait
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, b := range bounds {
		y := t.tally(b.key)
		y.trying = max(0, y.trying-1)
		switch {
		case succeeded && b.forgives:
			y.failed, y.next = 0, now
		case failed:
			y.failed++
			if shared[i] > 0 {
				y.failed = max(y.failed, b.free)
			}
			y.next = now
			if over := y.failed - b.free; over >= 0 {
				y.next = now.Add(min(b.most, time.Second<<min(over, 20)))
			}
		}
	}
}

// tally returns the one with that key, which becomes the one used last.
func (t *throttle) tally(key string) *tally {
	e := t.known[key]
	if e == nil {
		if t.recent.Len() >= mostTallies {
			if old, ok := t.recent.Remove(t.recent.Back()).(*tally); ok {
				delete(t.known, old.key)
			}
		}
		e = t.recent.PushFront(&tally{key: key})
		t.known[key] = e
	}
	t.recent.MoveToFront(e)
	y, _ := e.Value.(*tally)
	return y
}
