package crash

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/messaging/driver"
)

// afterCut publishes events, cuts the server's power so much later and returns how many it has lost of
// those that it had acknowledged.
func afterCut(t *testing.T, later time.Duration, atomic bool, opts func(*server.Options)) (lost int64) {
	t.Helper()
	const batches, each = 10, 20
	d := newDisk(t)
	open := func(query string) driver.Broker {
		o := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: d.dir, NoLog: true, NoSigs: true}
		opts(o)
		s, err := server.NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() {
			s.Shutdown()
			s.WaitForShutdown()
		})
		if !s.ReadyForConnections(liveness) {
			t.Fatalf("nats-server was not ready within %v", liveness)
		}
		backend, err := nats.Open(t.Context(), s.ClientURL()+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = backend.Close(context.Background()) })
		b, err := backend.Broker()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := open(fmt.Sprint("?atomic=", atomic))
	for i := range batches {
		var batch []driver.Message
		for n := range each {
			batch = append(batch, driver.Message{ID: fmt.Sprint(i, "-", n), Topic: "cut", Key: fmt.Sprint(n % 5), Data: []byte("data")})
		}
		if err := b.Publish(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(later)
	d.cut()
	b = open("")
	sub := driver.Subscription{Topic: "cut", Group: "g", From: driver.FromBeginning}
	if err := b.Declare(t.Context(), sub); err != nil {
		t.Fatal(err)
	}
	lags, err := b.(driver.LagReporter).Lag(t.Context(), sub)
	if err != nil {
		t.Fatal(err)
	}
	lost = batches * each
	for _, lag := range lags {
		lost -= lag.Waiting
	}
	return lost
}

// TestPowerCutOfNATS: a server with sync always keeps what it has acknowledged. One without loses events,
// and keeps those that are older than its interval.
func TestPowerCutOfNATS(t *testing.T) {
	t.Parallel()
	for _, atomic := range []bool{false, true} {
		t.Run(fmt.Sprint("always, atomic ", atomic), func(t *testing.T) {
			t.Parallel()
			if lost := afterCut(t, 0, atomic, func(o *server.Options) { o.SyncAlways = true }); lost != 0 {
				t.Errorf("lost %d, want none", lost)
			}
		})
	}
	t.Run("default", func(t *testing.T) {
		t.Parallel()
		if lost := afterCut(t, 0, false, func(*server.Options) {}); lost == 0 {
			t.Error("lost 0, want some: the cut shows nothing")
		}
	})
	t.Run("interval", func(t *testing.T) {
		t.Parallel()
		for later := 2 * time.Second; ; later *= 2 { // a busy machine is given time
			lost := afterCut(t, later, false, func(o *server.Options) { o.SyncInterval = time.Second })
			if lost == 0 {
				return
			}
			if later > 30*time.Second {
				t.Fatalf("lost %d of what was acknowledged %v before, want none: it syncs each second", lost, later)
			}
		}
	})
}
