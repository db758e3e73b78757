package nats_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
)

// TestCutWhileWaiting: a Publish that waits for an answer ends when the connection breaks, says so,
// and can be repeated.
func TestCutWhileWaiting(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	p := servertest.NewProxy(t, strings.TrimPrefix(s.s.ClientURL(), "nats://"))
	b := open(t, "nats://"+p.Addr()+"?atomic=true")
	defer closeNow(t, b)
	if err := b.Declare(t.Context(), driver.Subscription{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 5, 40} {
		batch := messages("t", "m", n)
		p.Keep()
		result := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		go func() { result <- b.Publish(ctx, batch) }()
		<-p.Held()
		start := time.Now()
		p.Cut()
		err := <-result
		cancel()
		if took := time.Since(start); err == nil || took > 8*time.Second {
			t.Errorf("Publish of %d messages whose connection was cut = %v after %v, want an error soon", n, err, took)
		}
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Publish of %d messages whose connection was cut = %v, want no error of the caller's context", n, err)
		}
		until(t, "the reconnection", func() bool { return b.Publish(t.Context(), batch) == nil })
	}
	if ids := storedIDs(t, admin(t, s.s.ClientURL()), "t"); len(ids) != 40 { // m0 is in both batches
		t.Errorf("the stream has %v, want each of m0 to m39 once", ids)
	}
}

// TestIdleThroughRestart: a member that waited for messages when the server stopped gets the next
// one soon after.
func TestIdleThroughRestart(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	b := open(t, s.s.ClientURL())
	defer closeNow(t, b)
	got := make(chan string, 100)
	ctx, stop := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning}
		result <- b.Subscribe(ctx, sub, func(d driver.Delivery) {
			_ = d.Ack(ctx)
			got <- d.ID
		})
	}()
	for i, id := range []string{"before", "after"} {
		batch := messages("t", id, 1)
		until(t, "the server", func() bool { return b.Publish(t.Context(), batch) == nil })
		select {
		case <-got:
		case <-time.After(10 * time.Second):
			t.Fatalf("message %s did not come within 10s", id)
		}
		if i == 0 {
			s.restart(t)
			until(t, "the reconnection", func() bool { return b.Healthy() == nil })
		}
	}
	stop()
	if err := <-result; err != nil {
		t.Errorf("Subscribe = %v, want nil", err)
	}
}
