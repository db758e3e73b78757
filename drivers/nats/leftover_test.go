package nats_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaptar/kaptar/messaging/driver"
)

// TestLostStreamFoundConsumers: a power cut can leave a server without a stream and with what its
// consumers had done. Their group gets all that the new stream has.
func TestLostStreamFoundConsumers(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprint("ordered ", ordered), func(t *testing.T) {
			t.Parallel()
			s := startServer(t, func(o *server.Options) { o.SyncAlways = false })
			sub := driver.Subscription{Topic: "lost", Group: "g", From: driver.FromBeginning, Ordered: ordered}
			const n = 50
			receive := func(b driver.Broker) (got int) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				seen := map[string]bool{}
				if err := b.Subscribe(ctx, sub, func(d driver.Delivery) {
					_ = d.Ack(ctx)
					if seen[d.ID] = true; len(seen) == n {
						cancel()
					}
				}); err != nil {
					t.Errorf("Subscribe = %v", err)
				}
				return len(seen)
			}
			for round := range 2 {
				b := open(t, s.s.ClientURL())
				var msgs []driver.Message
				for i := range n {
					msgs = append(msgs, driver.Message{ID: fmt.Sprint(round, "-", i), Topic: "lost", Key: fmt.Sprint(i)})
				}
				if err := b.Publish(t.Context(), msgs); err != nil {
					t.Fatal(err)
				}
				if got := receive(b); got != n {
					t.Errorf("round %d: got %d events, want %d", round, got, n)
				}
				if err := b.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.stop()
				streams, err := filepath.Glob(filepath.Join(s.dir, "jetstream", "*", "streams", "lost"))
				if err != nil || len(streams) != 1 {
					t.Fatalf("streams: got %q, %v, want one", streams, err)
				}
				for _, file := range []string{"meta.inf", "meta.sum"} { // as a cut leaves them
					if err := os.Truncate(filepath.Join(streams[0], file), 0); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.RemoveAll(filepath.Join(streams[0], "msgs")); err != nil {
					t.Fatal(err)
				}
				s.start(t)
			}
		})
	}
}
