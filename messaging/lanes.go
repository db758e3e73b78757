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

// A work is a delivery that this process holds.
type work struct {
	*driver.Delivery

	tries   int       // of the handler that failed
	failed  time.Time // time of the first of them
	early   time.Time // since when it waits for earlier events of its key; zero: it does not
	forced  bool      // it may not wait any longer
	counted bool      // in the metric of gaps
}

// seq is the number of w among the events of its key, 0 for none.
func (w *work) seq() int64 {
	n, _ := strconv.ParseInt(w.Headers.Get(driver.HeaderSequence), 10, 64)
	return n
}

// progress is what process has done with a delivery.
type progress int

const (
	done   progress = iota // it is acknowledged or given back
	undone                 // stop ended before
	early                  // earlier events of its key are missing
)

// lanes keep the deliveries of one key in order and handle different keys concurrently, with one
// goroutine for each key that has deliveries. They hold a bounded number of deliveries and extend
// their ack wait.
//
// A delivery that is early is put aside until the one with the number before it is done. It is also
// tried again with each tick.
type lanes struct {
	stop      context.Context // no delivery is started after its end
	process   func(w *work, waiting func() int) progress
	unordered bool          // each delivery has its own lane
	room      chan struct{} // one value for each delivery that is held
	maxEarly  int           // limit of early deliveries

	work   sync.WaitGroup
	closed chan struct{}

	mu      sync.Mutex
	closing bool
	lanes   map[laneKey]*lane
	held    map[*work]struct{}
	undone  []*driver.Delivery // started or not, in order per key
	early   int
}

// A laneKey identifies a lane: by the key, or by the delivery if unordered.
type laneKey struct {
	key  string
	only *work
}

// A lane holds the deliveries of a key. It exists while it has any.
type lane struct {
	busy    bool
	look    bool    // try the first of early before those waiting
	waiting []*work // in the order of arrival
	early   []*work // by number
}

// open makes the lanes ready. They call extend for each delivery they hold, at the interval again.
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

// deliver adds d to its lane. It blocks only when the lanes hold twice what may be in flight, which
// takes a subscription that broke and started again.
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

// begin starts the goroutine of a lane, which begins with next and ends when there is nothing to
// do. It needs l.mu.
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

// after removes w from its lane, or puts it aside if it is early, and returns the next delivery to
// process, or nil.
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

// lookAgain has the first early delivery of each lane tried again.
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

// close waits for the deliveries in progress, and returns those that were not done when stop ended,
// in order per key. deliver must not be called any more.
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
