package memory_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/drivers/memory"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

// harness has an Open that gives a broker of its own: that serves the search for goroutines;
// sharing among connections does not exist in memory.
func harness(*testing.T) drivertest.Harness {
	b := memory.New()
	b.AckWait = 500 * time.Millisecond
	return drivertest.Harness{Broker: b, AckWait: b.AckWait, Ordered: true, Dedup: true}
}

// TestConformance has the cases on a fake clock: nothing in the broker may wait with a lock held.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, c := range drivertest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := harness(t)
				if c.Name == "NoGoroutineLeft" {
					h.Open = func(*testing.T) driver.Broker { return memory.New() }
				}
				if c.Needs == nil || c.Needs(h) {
					c.Run(t, h)
				}
			})
		})
	}
}

// TestDuplicateWindow: an id is refused for 10 minutes, then it is news again.
func TestDuplicateWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New()
		publish := func() {
			if err := b.Publish(t.Context(), []driver.Message{{ID: "x", Topic: "t"}}); err != nil {
				t.Fatal(err)
			}
		}
		publish()
		time.Sleep(10*time.Minute - time.Second)
		publish()
		if n := count(t, b, "a"); n != 1 {
			t.Errorf("the same id twice within 10 minutes is stored %d times, want once", n)
		}
		time.Sleep(time.Minute)
		publish()
		if n := count(t, b, "b"); n != 2 {
			t.Errorf("the same id after more than 10 minutes is stored %d times, want twice", n)
		}
	})
}

// count returns how many messages a new group finds in topic t. It must run in a bubble.
func count(t *testing.T, b *memory.Broker, group string) (n int) {
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	sub := driver.Subscription{Topic: "t", Group: group, From: driver.FromBeginning}
	if err := b.Subscribe(ctx, sub, func(driver.Delivery) { n++ }); err != nil {
		t.Errorf("Subscribe = %v", err)
	}
	return n
}

// TestNothingShared: what publisher and consumers do with their messages later reaches nobody.
func TestNothingShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New()
		m := driver.Message{ID: "x", Topic: "t", Headers: driver.HeadersOf(map[string]string{"a": "1"}), Data: []byte("data")}
		if err := b.Publish(t.Context(), []driver.Message{m}); err != nil {
			t.Fatal(err)
		}
		m.Headers[0].Value, m.Data[0] = "2", 'X'
		for _, group := range []string{"first", "second"} {
			ctx, stop := context.WithCancel(t.Context())
			sub := driver.Subscription{Topic: "t", Group: group, From: driver.FromBeginning}
			if err := b.Subscribe(ctx, sub, func(d driver.Delivery) {
				if d.Headers.Get("a") != "1" || string(d.Data) != "data" {
					t.Errorf("group %s got header %q, data %q; want 1, data", group, d.Headers.Get("a"), d.Data)
				}
				d.Headers[0].Value, d.Data[0] = "3", 'Y'
				stop()
			}); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestCloseWhileDelivering: Close tells when a deliver function keeps it.
func TestCloseWhileDelivering(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New()
		if err := b.Publish(t.Context(), []driver.Message{{ID: "x", Topic: "t"}}); err != nil {
			t.Fatal(err)
		}
		block := make(chan struct{})
		result := make(chan error, 1)
		go func() {
			result <- b.Subscribe(t.Context(), driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning}, func(driver.Delivery) { <-block })
		}()
		synctest.Wait()
		if b.Healthy() != nil {
			t.Errorf("Healthy = %v before Close, want nil", b.Healthy())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close with a blocked deliver = %v, want the deadline", err)
		}
		close(block)
		if err := <-result; err != nil {
			t.Errorf("Subscribe = %v, want nil", err)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Errorf("second Close = %v, want nil", err)
		}
		if !errors.Is(b.Healthy(), driver.ErrClosed) {
			t.Errorf("Healthy = %v after Close, want driver.ErrClosed", b.Healthy())
		}
	})
}

func Example() {
	b := memory.New()
	ctx, cancel := context.WithCancel(context.Background())
	if err := b.Publish(ctx, []driver.Message{{ID: "1", Topic: "greeting", Data: []byte("hello")}}); err != nil {
		fmt.Println(err)
	}
	sub := driver.Subscription{Topic: "greeting", Group: "printer", From: driver.FromBeginning}
	err := b.Subscribe(ctx, sub, func(d driver.Delivery) {
		fmt.Println(string(d.Data))
		_ = d.Ack(ctx)
		cancel()
	})
	fmt.Println(err)
	// Output:
	// hello
	// <nil>
}
