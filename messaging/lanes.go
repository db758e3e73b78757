package messaging

import (
	"context"
	"sync"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// lanes keep the deliveries of one key in order and those of different keys side
// by side: each key that has any is worked on by one goroutine. They hold at most
// maxHeld deliveries, and keep the broker from giving those to somebody else.
type lanes struct {
	stop   context.Context             // no delivery is begun after its end
	settle func(*driver.Delivery) bool // false when stop ended before the delivery was settled
	room   chan struct{}               // holds a value for each delivery here
	work   sync.WaitGroup
	closed chan struct{}

	mu      sync.Mutex
	waiting map[string][]*driver.Delivery // by key; a key that is worked on has an entry
	held    map[*driver.Delivery]struct{}
	undone  []*driver.Delivery // begun or not, in order per key
}

// openLanes returns lanes that call extend for each delivery they hold, again and
// again.
func openLanes(stop context.Context, settle func(*driver.Delivery) bool, again time.Duration, extend func(*driver.Delivery)) *lanes {
	l := &lanes{
		stop: stop, settle: settle, room: make(chan struct{}, maxHeld), closed: make(chan struct{}),
		waiting: make(map[string][]*driver.Delivery), held: make(map[*driver.Delivery]struct{}),
	}
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
	return l
}

// deliver hands d to its lane. It blocks only when the lanes hold far more than is
// in flight, which takes a subscription that broke and began anew.
func (l *lanes) deliver(d driver.Delivery) {
	l.room <- struct{}{}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[&d] = struct{}{}
	if queue, busy := l.waiting[d.Key]; busy {
		l.waiting[d.Key] = append(queue, &d)
		return
	}
	l.waiting[d.Key] = nil
	l.work.Go(func() {
		for next := &d; next != nil; {
			done := l.stop.Err() == nil && l.settle(next)
			next = l.after(next, done)
		}
	})
}

// after takes d off its lane and returns the next one of its key, or nil.
func (l *lanes) after(d *driver.Delivery, done bool) *driver.Delivery {
	<-l.room
	l.mu.Lock()
	defer l.mu.Unlock()
	if done {
		delete(l.held, d)
	} else {
		l.undone = append(l.undone, d)
	}
	queue := l.waiting[d.Key]
	if len(queue) == 0 {
		delete(l.waiting, d.Key)
		return nil
	}
	l.waiting[d.Key] = queue[1:]
	return queue[0]
}

func (l *lanes) here() []*driver.Delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*driver.Delivery, 0, len(l.held))
	for d := range l.held {
		all = append(all, d)
	}
	return all
}

// close waits for the deliveries at hand, and returns those that stop left undone,
// in order per key. Nothing may be delivered any more.
func (l *lanes) close() []*driver.Delivery {
	l.work.Wait()
	close(l.closed)
	return l.undone
}
