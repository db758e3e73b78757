package messaging

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// A work is a delivery that is here.
type work struct {
	*driver.Delivery

	tries   int       // of its handler
	failed  time.Time // when the first of them failed
	early   time.Time // since when it waits for earlier ones of its key; zero: it does not
	forced  bool      // there is no room for it to wait any longer
	counted bool      // as one of a key with a gap
}

// seq is the number of w in the order of its key, 0 for none.
func (w *work) seq() int64 {
	n, _ := strconv.ParseInt(w.Headers.Get(driver.HeaderSequence), 10, 64)
	return n
}

// progress is what process has done with a delivery.
type progress int

const (
	done   progress = iota // the broker was told
	undone                 // stop ended before
	early                  // its turn has not come
)

// lanes keep the deliveries of one key in order and those of different keys side by side: each key
// that has any is worked on by one goroutine. They hold a bounded number of deliveries, and keep
// the broker from giving those to somebody else.
//
// One that is early stands aside until the number before its own is done, and is looked at again
// with each tick.
type lanes struct {
	stop      context.Context // no delivery is begun after its end
	process   func(w *work, waiting func() int) progress
	unordered bool          // each delivery has a lane of its own
	room      chan struct{} // holds a value for each delivery here
	maxEarly  int           // so many may be early at the same time

	work   sync.WaitGroup
	closed chan struct{}

	mu      sync.Mutex
	closing bool
	lanes   map[laneKey]*lane
	held    map[*work]struct{}
	undone  []*driver.Delivery // begun or not, in order per key
	early   int
}

// A laneKey names what is in order: a key, or with unordered one delivery.
type laneKey struct {
	key  string
	only *work
}

// A lane has the deliveries of a key. It is there while it has any.
type lane struct {
	busy    bool
	look    bool    // at the first of early, before waiting
	waiting []*work // as they came
	early   []*work // by number
}

// open makes the lanes ready. They call extend for each delivery they hold, again and again.
func (l *lanes) open(again time.Duration, extend func(*driver.Delivery)) {
	l.closed = make(chan struct{})
	l.lanes, l.held = make(map[laneKey]*lane), make(map[*work]struct{})
	go func() {
		tick := time.NewTicker(again)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				for _, w := range l.here() {
					extend(w.Delivery)
				}
				l.lookAgain()
			case <-l.closed:
				return
			}
		}
	}()
}

// deliver hands d to its lane. It blocks only when the lanes hold far more than is in flight, which
// takes a subscription that broke and began anew.
func (l *lanes) deliver(d driver.Delivery) {
	l.room <- struct{}{}
	w := &work{Delivery: &d}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[w] = struct{}{}
	key := laneKey{key: d.Key}
	if l.unordered {
		key = laneKey{only: w}
	}
	in := l.lanes[key]
	if in == nil {
		in = &lane{}
		l.lanes[key] = in
	}
	if in.busy {
		in.waiting = append(in.waiting, w)
		return
	}
	l.begin(key, in, w)
}

// begin works on a lane from next on until it has nothing to do. The caller holds l.mu.
func (l *lanes) begin(key laneKey, in *lane, next *work) {
	in.busy = true
	l.work.Go(func() {
		waiting := func() int {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(in.waiting)
		}
		for next != nil {
			how := undone
			if l.stop.Err() == nil {
				how = l.process(next, waiting)
			}
			next = l.after(key, in, next, how)
		}
	})
}

// after takes w off its lane, or has it stand aside, and returns the next one there, or nil.
func (l *lanes) after(key laneKey, in *lane, w *work, how progress) (next *work) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch how {
	case early:
		i, _ := slices.BinarySearchFunc(in.early, w.seq(), func(e *work, n int64) int { return cmp.Compare(e.seq(), n) })
		in.early = slices.Insert(in.early, i, w)
		l.early++
		if w.early.IsZero() {
			w.early = time.Now()
			if l.early > l.maxEarly {
				first := l.takeEarly(in, 0)
				first.forced = true
				return first
			}
		}
	case undone:
		<-l.room
		l.undone = append(l.undone, w.Delivery)
	case done:
		<-l.room
		delete(l.held, w)
		follows := func(e *work) bool {
			return e.seq() == w.seq()+1 && e.Headers.Get(driver.HeaderSource) == w.Headers.Get(driver.HeaderSource)
		}
		if i := slices.IndexFunc(in.early, follows); i >= 0 {
			return l.takeEarly(in, i)
		}
	}
	if in.look && len(in.early) > 0 {
		in.look = false
		return l.takeEarly(in, 0)
	}
	if len(in.waiting) > 0 {
		next, in.waiting = in.waiting[0], in.waiting[1:]
		return next
	}
	if in.busy = false; len(in.early) == 0 {
		delete(l.lanes, key)
	}
	return nil
}

func (l *lanes) takeEarly(in *lane, i int) *work {
	w := in.early[i]
	in.early = slices.Delete(in.early, i, i+1)
	l.early--
	return w
}

// lookAgain has the first early one of each lane looked at.
func (l *lanes) lookAgain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, in := range l.lanes {
		if in.look = len(in.early) > 0; in.look && !l.closing && !in.busy {
			in.look = false
			l.begin(key, in, l.takeEarly(in, 0))
		}
	}
}

func (l *lanes) here() []*work {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.held))
}

// close waits for the deliveries at hand, and returns those that stop left undone, in order per
// key. Nothing may be delivered any more.
func (l *lanes) close() []*driver.Delivery {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	l.work.Wait()
	close(l.closed)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range l.lanes {
		for _, w := range in.early {
			l.undone = append(l.undone, w.Delivery)
		}
	}
	return l.undone
}
