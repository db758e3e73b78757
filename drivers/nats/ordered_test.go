package nats_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/kaptar/kaptar/messaging/driver"
)

// TestOrderedAndBack: a group that becomes ordered, and unordered again, goes on where it was; while
// it has members of the other kind a new one is told what to do.
func TestOrderedAndBack(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	b := open(t, s.s.ClientURL())
	defer closeNow(t, b)
	var mu sync.Mutex
	seen := make(map[string]int)
	sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromNow}
	if err := b.Declare(t.Context(), sub); err != nil {
		t.Fatal(err)
	}
	n := 0
	for round := range 4 {
		sub.Ordered = round%2 == 1
		for range 40 {
			if err := b.Publish(t.Context(), []driver.Message{{ID: fmt.Sprint(n), Topic: "t", Key: fmt.Sprint(n)}}); err != nil {
				t.Fatal(err)
			}
			n++
		}
		ctx, stop := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() {
			result <- b.Subscribe(ctx, sub, func(d driver.Delivery) {
				mu.Lock()
				defer mu.Unlock()
				seen[d.ID]++
				if err := d.Ack(context.WithoutCancel(ctx)); err != nil {
					t.Errorf("Ack = %v", err)
				}
			})
		}()
		other := sub
		other.Ordered = !sub.Ordered
		until(t, "all of the round", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(seen) == 40*(round+1)
		})
		if err := b.Declare(t.Context(), other); err != nil { // a new version must be able to start beside the old one
			t.Errorf("Declare with Ordered %t beside a member with %t = %v, want nil", other.Ordered, sub.Ordered, err)
		}
		if err := b.Subscribe(ctx, other, func(driver.Delivery) {}); err == nil || !strings.Contains(err.Error(), "stop them") {
			t.Errorf("Subscribe with Ordered %t beside a member with %t = %v, want an error that says to stop it", other.Ordered, sub.Ordered, err)
		}
		stop()
		if err := <-result; err != nil {
			t.Fatalf("Subscribe = %v, want nil", err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	more := 0
	for id := range n {
		if seen[fmt.Sprint(id)] == 0 {
			t.Errorf("message %d was lost", id)
		}
		more += seen[fmt.Sprint(id)] - 1
	}
	if more > 40 {
		t.Errorf("%d messages came twice, want at most the last of each round", more)
	}
}

// TestOrderedRaw: a raw topic has no partitions, and says so.
func TestOrderedRaw(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	b := open(t, s.s.ClientURL())
	defer closeNow(t, b)
	sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromNow, Raw: true, Ordered: true}
	if err := b.Declare(t.Context(), sub); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Declare = %v, want errors.ErrUnsupported", err)
	}
}

// TestOrderedThroughRestart: members of two connections go on after the server was killed, each with
// its partitions or those that it gets anew.
func TestOrderedThroughRestart(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	brokers := []*testBroker{open(t, s.s.ClientURL()), open(t, s.s.ClientURL())}
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	last := make(map[string]int)
	got := make([]int, len(brokers))
	var running sync.WaitGroup
	for i, b := range brokers {
		defer closeNow(t, b)
		sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning, Ordered: true}
		running.Go(func() {
			err := b.Subscribe(ctx, sub, func(d driver.Delivery) {
				var key, n int
				_, _ = fmt.Sscanf(d.ID, "%d-%d", &key, &n)
				mu.Lock()
				if n > last[d.Key]+1 {
					t.Errorf("message %d of key %d came after %d", n, key, last[d.Key])
				}
				last[d.Key] = max(n, last[d.Key])
				got[i]++
				mu.Unlock()
				_ = d.Ack(context.WithoutCancel(ctx))
			})
			if err != nil {
				t.Errorf("Subscribe = %v, want nil", err)
			}
		})
	}
	n := 0
	publish := func() {
		n++
		var batch []driver.Message
		for key := range 32 {
			batch = append(batch, driver.Message{ID: fmt.Sprintf("%d-%d", key, n), Topic: "t", Key: fmt.Sprint(key)})
		}
		until(t, "the server", func() bool { return brokers[0].Publish(ctx, batch) == nil })
	}
	until(t, "both members", func() bool {
		publish()
		mu.Lock()
		defer mu.Unlock()
		return got[0] > 0 && got[1] > 0
	})
	for range 2 {
		s.restart(t)
		for range 10 {
			publish()
		}
	}
	until(t, "all messages", func() bool {
		mu.Lock()
		defer mu.Unlock()
		for key := range 32 {
			if last[fmt.Sprint(key)] < n {
				return false
			}
		}
		return true
	})
	stop()
	running.Wait()
}
