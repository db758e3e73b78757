package nats_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaptar/kaptar/internal/test/disk"
	"github.com/kaptar/kaptar/messaging/driver"
)

// afterCut publishes events, cuts the server's power so much later and returns how many it has lost of
// those that it had acknowledged.
func afterCut(t *testing.T, later time.Duration, opts func(*server.Options)) (lost int64) {
	t.Helper()
	const batches, each = 10, 20 // as single messages and as an atomic batch, in turn
	d := disk.New(t)
	start := func() *testServer {
		s := &testServer{dir: d.Dir, opts: opts, port: server.RANDOM_PORT}
		s.start(t)
		t.Cleanup(s.stop)
		return s
	}
	url := start().s.ClientURL()
	for i := range batches {
		var batch []driver.Message
		for n := range each {
			batch = append(batch, driver.Message{ID: fmt.Sprint(i, "-", n), Topic: "cut", Key: fmt.Sprint(n % 5), Data: []byte("data")})
		}
		b := open(t, fmt.Sprint(url, "?atomic=", i%2 == 0))
		if err := b.Publish(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(later)
	d.Cut()
	b := open(t, start().s.ClientURL())
	sub := driver.Subscription{Topic: "cut", Group: "g", From: driver.FromBeginning}
	if err := b.Declare(t.Context(), sub); err != nil {
		t.Fatal(err)
	}
	lags, err := b.Lag(t.Context(), sub)
	if err != nil {
		t.Fatal(err)
	}
	lost = batches * each
	for _, lag := range lags {
		lost -= lag.Waiting
	}
	return lost
}

// TestPowerCut: a server with sync always keeps what it has acknowledged. One without loses events, and
// keeps those that are older than its interval.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	t.Run("always", func(t *testing.T) {
		t.Parallel()
		if lost := afterCut(t, 0, nil); lost != 0 {
			t.Errorf("lost %d, want none", lost)
		}
	})
	relaxed := func(interval time.Duration) func(*server.Options) {
		return func(o *server.Options) { o.SyncAlways, o.SyncInterval = false, interval }
	}
	t.Run("default", func(t *testing.T) {
		t.Parallel()
		if lost := afterCut(t, 0, relaxed(0)); lost == 0 {
			t.Error("lost 0, want some: the cut shows nothing")
		}
	})
	t.Run("interval", func(t *testing.T) {
		t.Parallel()
		for later := 2 * time.Second; ; later *= 2 { // a busy machine is given time
			lost := afterCut(t, later, relaxed(time.Second))
			if lost == 0 {
				return
			}
			if later > 30*time.Second {
				t.Fatalf("lost %d of what was acknowledged %v before, want none: it syncs each second", lost, later)
			}
		}
	})
}
