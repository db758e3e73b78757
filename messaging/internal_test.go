package messaging

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

func TestRetryDelay(t *testing.T) {
	t.Parallel()
	all := time.Duration(0)
	for retries, want := range []time.Duration{time.Second, 3 * time.Second, 9 * time.Second, 27 * time.Second, time.Minute, time.Minute} {
		if got := retryDelay(retries); got != want {
			t.Errorf("retryDelay(%d) = %v, want %v", retries, got, want)
		}
		all += want
	}
	if all != 160*time.Second {
		t.Errorf("the retries take %v, the documentation says about 2.5 min", all)
	}
}

func TestStorableID(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"1", "a b", "ünï", strings.Repeat("x", 255)} {
		d := &driver.Delivery{Message: driver.Message{ID: id, Topic: "t"}}
		if storableID(d); d.ID != id {
			t.Errorf("storableID of %q: got %q, want it kept", id, d.ID)
		}
	}
	seen := make(map[string]bool)
	for _, id := range []string{"a\x00b", "a\xff", "", strings.Repeat("x", 256), strings.Repeat("x", 257)} {
		d := &driver.Delivery{Message: driver.Message{ID: id, Topic: "t"}}
		storableID(d)
		if m := (driver.Message{ID: d.ID, Topic: "t"}); m.Validate() != nil || seen[d.ID] {
			t.Errorf("storableID of %q: got %q, want a valid one of its own", id, d.ID)
		}
		seen[d.ID] = true
	}
}

const maxHeld = 512

func testLanes(stop context.Context, process func(*work) progress, again time.Duration, extend func(*driver.Delivery)) *lanes {
	l := &lanes{
		stop: stop, process: func(w *work, _ func() int) progress { return process(w) }, room: make(chan struct{}, maxHeld), maxEarly: 2,
	}
	l.open(again, extend)
	return l
}

// What waits behind a slow event is kept from coming again, too.
func TestLanesExtendWhatTheyHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		extended := make(map[string]int)
		l := testLanes(t.Context(), func(*work) progress {
			time.Sleep(25 * time.Second)
			return done
		}, 10*time.Second, func(d *driver.Delivery) { extended[d.ID]++ })
		for _, id := range []string{"first", "second"} {
			l.deliver(driver.Delivery{Message: driver.Message{ID: id, Key: "k"}})
		}
		if undone := l.close(); len(undone) != 0 {
			t.Errorf("undone: got %v, want none", undone)
		}
		synctest.Wait()
		if extended["first"] != 2 || extended["second"] < 4 || extended["second"] > 5 {
			t.Errorf("times extended: got %v, want first 2 and second 4 or 5", extended)
		}
	})
}

func TestLanesHandBackInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stop, cancel := context.WithCancel(t.Context())
		var begun atomic.Int64
		l := testLanes(stop, func(*work) progress {
			begun.Add(1)
			<-stop.Done()
			return undone
		}, time.Hour, nil)
		const keys, each = 3, 100
		for n := range each {
			for k := range keys {
				l.deliver(driver.Delivery{Message: driver.Message{ID: fmt.Sprint(n), Key: fmt.Sprint(k)}})
			}
		}
		synctest.Wait()
		cancel()
		next := make(map[string]int)
		for _, d := range l.close() {
			if want := fmt.Sprint(next[d.Key]); d.ID != want {
				t.Fatalf("undone of key %s: got %s, want %s", d.Key, d.ID, want)
			}
			next[d.Key]++
		}
		if len(next) != keys || next["0"] != each || begun.Load() != keys {
			t.Errorf("undone by key: got %v after %d were begun, want %d of each of %d keys after one of each", next, begun.Load(), each, keys)
		}
	})
}

// A delivery beyond what lanes hold waits, and a stop frees it.
func TestFullLanesStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stop, cancel := context.WithCancel(t.Context())
		l := testLanes(stop, func(*work) progress {
			<-stop.Done()
			return undone
		}, time.Hour, nil)
		var delivered atomic.Int64
		go func() {
			for range maxHeld + 10 {
				l.deliver(driver.Delivery{Message: driver.Message{Key: "k"}})
				delivered.Add(1)
			}
		}()
		synctest.Wait()
		if n := delivered.Load(); n != maxHeld {
			t.Errorf("delivered: got %d, want %d and no more", n, maxHeld)
		}
		cancel()
		synctest.Wait()
		if n, undone := delivered.Load(), len(l.close()); n != maxHeld+10 || undone != maxHeld+10 {
			t.Errorf("after the stop: got %d delivered, %d undone, want %d of both", n, undone, maxHeld+10)
		}
	})
}

// What comes too soon stands aside, is looked at again, and follows the one that it waits for; when
// too many do, one more is forced.
func TestLanesLetEarlyOnesWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		next, log := int64(1), ""
		l := testLanes(t.Context(), func(w *work) progress {
			mu.Lock()
			defer mu.Unlock()
			if w.seq() != next && !w.forced {
				return early
			}
			next = w.seq() + 1
			log += fmt.Sprint(w.seq(), " ")
			return done
		}, 10*time.Second, func(*driver.Delivery) {})
		deliver := func(n ...int) {
			for _, n := range n {
				l.deliver(driver.Delivery{Message: driver.Message{Key: "k", Headers: driver.Headers{{Name: driver.HeaderSequence, Value: fmt.Sprint(n)}}}})
				synctest.Wait()
			}
		}
		deliver(1, 4, 3)
		if l.early != 2 || len(l.room) != 2 {
			t.Errorf("%d early, room for %d taken, want 2 of both", l.early, len(l.room))
		}
		deliver(2)
		if log != "1 2 3 4 " || len(l.lanes) != 0 || len(l.room) != 0 {
			t.Errorf("order: got %s, %d lanes, room for %d taken, want 1 2 3 4 and nothing left", log, len(l.lanes), len(l.room))
		}
		deliver(7, 9, 12)
		if log != "1 2 3 4 7 " {
			t.Errorf("order: got %s, want 7 forced, and 9 and 12 to wait", log)
		}
		deliver(8)
		mu.Lock()
		next = 12
		mu.Unlock()
		time.Sleep(10 * time.Second) // the next tick
		synctest.Wait()
		if undone := l.close(); log != "1 2 3 4 7 8 9 12 " || len(undone) != 0 {
			t.Errorf("order: got %s, %d undone, want 8 and 9, and 12 at the tick", log, len(undone))
		}
	})
}

// TestFlowsOfAnEndedRequest: who waits for the question of another need not wait for its answer.
func TestFlowsOfAnEndedRequest(t *testing.T) {
	t.Parallel()
	o := &operator{bus: &bus{asking: make(chan struct{}, 1)}}
	o.bus.asking <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := o.flows(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("flows = %v, want that the request has ended", err)
	}
}
