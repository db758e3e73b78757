package memory_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/drivers/memory"
	"github.com/kaptar/kaptar/messaging/driver"
)

// TestOrderedIsOneKind: members with and without Ordered cannot be in a group together, and a group
// that becomes ordered and back goes on where it was.
func TestOrderedIsOneKind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New()
		n := 0
		publish := func() {
			for key := range 20 {
				n++
				if err := b.Publish(t.Context(), []driver.Message{{ID: fmt.Sprint(n), Topic: "t", Key: fmt.Sprint(key)}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		seen := make(map[string]int)
		for round := range 4 {
			publish()
			ctx, stop := context.WithCancel(t.Context())
			sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning, Ordered: round%2 == 1}
			done := make(chan error, 1)
			go func() {
				done <- b.Subscribe(ctx, sub, func(d driver.Delivery) {
					seen[d.ID]++
					_ = d.Ack(ctx)
				})
			}()
			time.Sleep(time.Second)
			other := sub
			other.Ordered = !sub.Ordered
			if err := b.Subscribe(ctx, other, func(driver.Delivery) {}); err == nil || !strings.Contains(err.Error(), "stop them") {
				t.Errorf("Subscribe with Ordered %t beside a member with %t = %v, want an error that says to stop it", other.Ordered, sub.Ordered, err)
			}
			if err := b.Reset(ctx, sub, time.Time{}); err == nil || !strings.Contains(err.Error(), "1 members") {
				t.Errorf("Reset beside a member = %v, want an error that tells of it", err)
			}
			stop()
			if err := <-done; err != nil {
				t.Errorf("Subscribe = %v, want nil", err)
			}
		}
		for id := range n {
			if seen[fmt.Sprint(id+1)] != 1 {
				t.Errorf("message %d came %d times, want once", id+1, seen[fmt.Sprint(id+1)])
			}
		}
	})
}
