package messaging

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

func TestRedeliveryDelay(t *testing.T) {
	t.Parallel()
	for attempt, want := range map[int]time.Duration{
		0: 10 * time.Second, 1: 10 * time.Second, 2: 30 * time.Second, 3: 90 * time.Second, 5: 810 * time.Second, 6: 15 * time.Minute, 9: 15 * time.Minute,
	} {
		if got := redeliveryDelay(attempt); got != want {
			t.Errorf("redeliveryDelay(%d) = %v, want %v", attempt, got, want)
		}
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

func testLanes(stop context.Context, process func(*driver.Delivery) bool, again time.Duration, extend func(*driver.Delivery)) *lanes {
	l := &lanes{stop: stop, process: process, room: make(chan struct{}, maxHeld)}
	l.open(again, extend)
	return l
}

// What waits behind a slow event is kept from coming again, too.
func TestLanesExtendWhatTheyHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		extended := make(map[string]int)
		l := testLanes(t.Context(), func(*driver.Delivery) bool {
			time.Sleep(25 * time.Second)
			return true
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
		l := testLanes(stop, func(*driver.Delivery) bool {
			begun.Add(1)
			<-stop.Done()
			return false
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
		l := testLanes(stop, func(*driver.Delivery) bool {
			<-stop.Done()
			return false
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
