package messaging

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// lanes keep the deliveries of one key in order and those of different keys side by side: each key
// that has any is worked on by one goroutine. They hold a bounded number of deliveries, and keep
// the broker from giving those to somebody else.
type lanes struct {
	stop      context.Context             // no delivery is begun after its end
	process   func(*driver.Delivery) bool // false when stop ended before it was done
	unordered bool                        // each delivery has a lane of its own
	room      chan struct{}               // holds a value for each delivery here

	work   sync.WaitGroup
	closed chan struct{}

	mu      sync.Mutex
	waiting map[lane][]*driver.Delivery // a lane that is worked on has an entry
	held    map[*driver.Delivery]struct{}
	undone  []*driver.Delivery // begun or not, in order per key
}

// A lane is what is in order: a key, or with unordered one delivery.
type lane struct {
	key  string
	only *driver.Delivery
}

// open makes the lanes ready. They call extend for each delivery they hold, again and again.
func (l *lanes) open(again time.Duration, extend func(*driver.Delivery)) {
	l.closed = make(chan struct{})
	l.waiting, l.held = make(map[lane][]*driver.Delivery), make(map[*driver.Delivery]struct{})
	go func() {
		tick := time.NewTicker(again)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				for _, d := range l.here() {
					extend(d)
				}
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
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[&d] = struct{}{}
	in := lane{key: d.Key}
	if l.unordered {
		in = lane{only: &d}
	}
	if queue, busy := l.waiting[in]; busy {
		l.waiting[in] = append(queue, &d)
		return
	}
	l.waiting[in] = nil
	l.work.Go(func() {
		for next := &d; next != nil; {
			done := l.stop.Err() == nil && l.process(next)
			next = l.after(in, next, done)
		}
	})
}

// after takes d off its lane and returns the next one there, or nil.
func (l *lanes) after(in lane, d *driver.Delivery, done bool) *driver.Delivery {
	<-l.room
	l.mu.Lock()
	defer l.mu.Unlock()
	if done {
		delete(l.held, d)
	} else {
		l.undone = append(l.undone, d)
	}
	queue := l.waiting[in]
	if len(queue) == 0 {
		delete(l.waiting, in)
		return nil
	}
	l.waiting[in] = queue[1:]
	return queue[0]
}

func (l *lanes) here() []*driver.Delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.held))
}

// close waits for the deliveries at hand, and returns those that stop left undone, in order per
// key. Nothing may be delivered any more.
func (l *lanes) close() []*driver.Delivery {
	l.work.Wait()
	close(l.closed)
	return l.undone
}
