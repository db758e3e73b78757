package nats_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// TestDeletedConsumer: a subscription that can never get a message again says so, and subscribing
// anew works. Of a stream that was made again the group gets what came before it was back, also
// when it began from now.
func TestDeletedConsumer(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"consumer", "stream"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, nil)
			js := admin(t, s.s.ClientURL())
			b := open(t, s.s.ClientURL())
			defer closeNow(t, b)
			sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning}
			if err := b.Publish(t.Context(), messages("t", "m", 1)); err != nil {
				t.Fatal(err)
			}
			got, result := make(chan string, 10), make(chan error, 1)
			go func() {
				result <- b.Subscribe(t.Context(), sub, func(d driver.Delivery) {
					_ = d.Ack(context.Background())
					got <- d.ID
				})
			}()
			<-got
			var err error
			if what == "consumer" {
				err = js.DeleteConsumer(t.Context(), "t", "g")
			} else {
				err = js.DeleteStream(t.Context(), "t")
			}
			if err != nil {
				t.Fatal(err)
			}
			select {
			case err = <-result:
			case <-time.After(30 * time.Second):
				t.Fatalf("Subscribe still runs 30s after its %s was deleted", what)
			}
			if err == nil || !strings.Contains(err.Error(), "deleted") || !strings.Contains(err.Error(), "subscribe g to t") {
				t.Errorf("Subscribe whose %s was deleted = %v, want an error that says so", what, err)
			}
			if err := b.Publish(t.Context(), messages("t", "n", 1)); err != nil {
				t.Fatal(err)
			}
			if what == "stream" {
				sub.From = driver.FromNow
			}
			if d := receive(t, b, sub, 1)[0]; what == "stream" && d.ID != "n0" {
				t.Errorf("the group got %s first from the new stream, want n0", d.ID)
			}
		})
	}
}

// TestDamagedGroup: a group whose state the server cannot read says what to do about it, and the server
// is not asked all the time.
func TestDamagedGroup(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning}
	b := open(t, s.s.ClientURL())
	if err := b.Publish(t.Context(), messages("t", "m", 1)); err != nil {
		t.Fatal(err)
	}
	receive(t, b, sub, 1)
	closeNow(t, b)
	s.stop()
	state := filepath.Join(s.dir, "jetstream", "$G", "streams", "t", "obs", "g", "o.dat")
	must(t, os.WriteFile(state, []byte("not what it was"), 0o600))
	s.start(t)
	b = open(t, s.s.ClientURL())
	defer closeNow(t, b)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := b.Declare(ctx, sub); err == nil || !strings.Contains(err.Error(), "move obs/g* of the stream's folder away") {
		t.Errorf("Declare of a group with a damaged file: got %v, want what to do", err)
	}
	s.stop()
	must(t, os.RemoveAll(filepath.Dir(state)))
	s.start(t)
	again := open(t, s.s.ClientURL())
	defer closeNow(t, again)
	receive(t, again, sub, 1)
}

// TestHeldThroughRestart: a message that a handler holds while the server restarts comes again, and
// the members do not get stuck however long the server is away.
func TestHeldThroughRestart(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	b := open(t, s.s.ClientURL())
	defer closeNow(t, b)
	if err := b.Publish(t.Context(), messages("t", "m", 3)); err != nil {
		t.Fatal(err)
	}
	got, result := make(chan driver.Delivery, 100), make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning, MaxInFlight: 1}
		result <- b.Subscribe(ctx, sub, func(d driver.Delivery) { got <- d })
	}()
	next := func() driver.Delivery {
		select {
		case d := <-got:
			return d
		case <-time.After(60 * time.Second):
			t.Fatal("no delivery within 60s")
			panic("unreachable")
		}
	}
	held := next()
	s.stop()
	until(t, "the loss to be noticed", func() bool { return b.Healthy() != nil })
	if err := held.Ack(t.Context()); err == nil {
		t.Error("Ack without a server = nil, want an error")
	}
	s.start(t)
	seen := map[string]bool{}
	for len(seen) < 3 {
		d := next()
		if d.ID == held.ID && d.Attempt < 2 {
			t.Errorf("%s came again as attempt %d, want 2 or more", d.ID, d.Attempt)
		}
		if err := d.Ack(t.Context()); err == nil {
			seen[d.ID] = true
		}
	}
	stop()
	if err := <-result; err != nil {
		t.Errorf("Subscribe = %v, want nil", err)
	}
}

// TestSlotsFreedLater: messages acknowledged by another goroutine, while the member waits, make it ask
// for more at once.
func TestSlotsFreedLater(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	b, err := openBroker(t.Context(), s.s.ClientURL(), nil) // with the usual ack wait
	if err != nil {
		t.Fatal(err)
	}
	defer closeNow(t, b)
	const n = 20
	if err := b.Publish(t.Context(), messages("t", "m", n)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second) // less than the member waits by itself
	defer stop()
	got := make(chan driver.Delivery, n)
	result := make(chan error, 1)
	go func() {
		sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning, MaxInFlight: 1}
		result <- b.Subscribe(ctx, sub, func(d driver.Delivery) { got <- d })
	}()
	for i := range n {
		select {
		case d := <-got:
			if err := d.Ack(ctx); err != nil {
				t.Error(err)
			}
		case <-ctx.Done():
			t.Fatalf("only %d of %d messages came within 10s", i, n)
		}
	}
	stop()
	if err := <-result; err != nil {
		t.Errorf("Subscribe = %v, want nil", err)
	}
}
