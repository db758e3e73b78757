package messaging

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

func TestBackoffDoublesUpToItsLimit(t *testing.T) {
	t.Parallel()
	for n, ms := range map[int]int64{0: 100, 1: 200, 2: 400, 5: 3200, 6: 5000, 1000: 5000} {
		want := time.Duration(ms) * time.Millisecond
		var low, high int
		for range 1000 {
			switch d := backoff(n, firstBackoff, maxBackoff); {
			case d < want/2 || d > want:
				t.Fatalf("backoff(%d) = %v, want %v to %v", n, d, want/2, want)
			case d < want*3/4:
				low++
			default:
				high++
			}
		}
		if low < 300 || high < 300 {
			t.Errorf("backoff(%d): %d in the lower half and %d in the upper, want it spread", n, low, high)
		}
	}
}

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

func TestDatabaseID(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"1", "a b", "ünï", strings.Repeat("x", 255)} {
		d := &driver.Delivery{Message: driver.Message{ID: id, Topic: "t"}}
		if databaseID(d); d.ID != id {
			t.Errorf("databaseID of %q: got %q, want it kept", id, d.ID)
		}
	}
	seen := make(map[string]bool)
	for _, id := range []string{"a\x00b", "a\xff", "", strings.Repeat("x", 256), strings.Repeat("x", 257)} {
		d := &driver.Delivery{Message: driver.Message{ID: id, Topic: "t"}}
		databaseID(d)
		if m := (driver.Message{ID: d.ID, Topic: "t"}); m.Validate() != nil || seen[d.ID] {
			t.Errorf("databaseID of %q: got %q, want a valid one of its own", id, d.ID)
		}
		seen[d.ID] = true
	}
}

// What waits behind a slow event is kept from coming again, too.
func TestLanesExtendWhatTheyHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		extended := make(map[string]int)
		l := openLanes(t.Context(), func(*driver.Delivery) bool {
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
		l := openLanes(stop, func(*driver.Delivery) bool {
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
		l := openLanes(stop, func(*driver.Delivery) bool {
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

// health is a driver.HealthReporter with a switch.
type health struct{ err error }

func (h *health) Healthy() error { return h.err }

// TestLostBrokerIsToldOnce: one line when it goes and one when it comes back, however often the link is looked at.
func TestLostBrokerIsToldOnce(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	log := slog.New(slog.NewTextHandler(&text, nil))
	h := &health{}
	l := &link{setting: "broker_url", health: h}
	for _, err := range []error{nil, errors.New("refused"), errors.New("refused again"), nil, nil, errors.New("refused"), nil} {
		h.err = err
		l.look(t.Context(), log)
	}
	if lost, back := strings.Count(text.String(), "broker lost"), strings.Count(text.String(), "broker is back"); lost != 2 || back != 2 {
		t.Errorf("told %d losses and %d returns, want 2 and 2:\n%s", lost, back, &text)
	}
	if !strings.Contains(text.String(), "setting=broker_url error=refused\n") {
		t.Errorf("the line does not name the setting and the first reason:\n%s", &text)
	}
}

// TestTrouble: the log says once that a subscription is lost, again when it is for another reason, and once that it is back: with its
// first event, or after a time without any.
func TestTrouble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		s := trouble{topic: "t", log: slog.New(slog.NewTextHandler(&log, nil))}
		check := func(when string, lost, back int) {
			t.Helper()
			synctest.Wait()
			if got := strings.Count(log.String(), "subscription lost"); got != lost {
				t.Errorf("%s the log says %d times that it is lost, want %d:\n%s", when, got, lost, &log)
			}
			if got := strings.Count(log.String(), "subscription is back"); got != back {
				t.Errorf("%s the log says %d times that it is back, want %d:\n%s", when, got, back, &log)
			}
		}
		events := 0
		deliver := func(driver.Delivery) { events++ }
		s.watch(t.Context(), deliver)(driver.Delivery{})
		check("without trouble", 0, 0)
		for range 3 {
			s.lost(t.Context(), errors.New("deleted"), time.Second)
			s.watch(t.Context(), deliver)
			<-time.After(worksAfter - time.Second)
		}
		s.lost(t.Context(), errors.New("no right to make it"), time.Second)
		check("after the same and another reason", 2, 0)
		again := s.watch(t.Context(), deliver)
		again(driver.Delivery{})
		again(driver.Delivery{})
		<-time.After(time.Hour)
		check("after an event", 2, 1)
		s.lost(t.Context(), errors.New("no right to make it"), time.Second)
		s.watch(t.Context(), deliver)
		<-time.After(worksAfter + time.Second)
		check("after a time without events", 3, 2)
		if events != 3 {
			t.Errorf("%d events were delivered, want 3", events)
		}
	})
}
