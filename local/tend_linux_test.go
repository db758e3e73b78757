package local_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/local"
	"github.com/kaptar/kaptar/messaging/driver"
)

// A lockedText is a log that several goroutines write to.
type lockedText struct{ waittest.Buffer }

func (l *lockedText) has(part string) bool { return strings.Contains(l.String(), part) }

// startBroker starts an embedded broker and returns what a service has of it.
func startBroker(t *testing.T, dir string, log *lockedText) (b driver.Broker, stop func()) {
	t.Helper()
	url, end, err := local.StartBroker(t.Context(), dir, freeAddress(t), log)
	if err != nil {
		t.Fatal(err)
	}
	backend, err := nats.Open(t.Context(), url+"?atomic=true&ack_wait=2s", nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = backend.Broker(); err != nil {
		t.Fatal(err)
	}
	return b, sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := backend.Close(ctx); err != nil {
			t.Errorf("Close = %v", err)
		}
		end()
	})
}

func waitFor(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	waittest.Until(tb, what, done)
}

// publish tries once and returns whether the broker has it.
func publish(t *testing.T, b driver.Broker, id string, size int) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	return b.Publish(ctx, []driver.Message{{ID: id, Topic: "t", Data: make([]byte, size)}})
}

// TestFullDisk: a broker whose disk is full says so in the log and by the driver's Healthy, and goes on
// by itself when there is room; all that it had acknowledged is delivered.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=24m"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("a small disk takes the right to mount, which root has: %v", err)
		}
		t.Skipf("a small disk takes the right to mount, which root has: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 12<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	log := new(lockedText)
	b, stop := startBroker(t, filepath.Join(disk, "nats"), log)
	defer stop()
	sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning}
	if err := b.Declare(t.Context(), sub); err != nil {
		t.Fatal(err)
	}
	var stored []string
	var failure error
	for i := 0; i < 100 && (failure == nil || !log.has("no space left on device")); i++ { // a slow disk is none that is full
		if failure = publish(t, b, fmt.Sprint(i), 500_000); failure == nil {
			stored = append(stored, fmt.Sprint(i))
		}
	}
	if failure == nil {
		t.Fatal("50 MB went to a disk of 24 MB")
	}
	healthy := b.(driver.HealthReporter).Healthy
	if healthy() == nil {
		t.Errorf("Healthy = nil after %v, want an error", failure)
	}
	waitFor(t, "the log to tell of it", func() bool { return log.has("no space left on device") && log.has("store lost") })
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the broker to go on", func() bool { return publish(t, b, "after", 1) == nil })
	if err := healthy(); err != nil {
		t.Errorf("Healthy = %v, want nil", err)
	}
	receiveAll(t, b, sub, append(stored, "after")...)
	waitFor(t, "the log to tell that it is back", func() bool { return log.has("store is back") })
}

// receiveAll subscribes until all messages have come.
func receiveAll(t *testing.T, b driver.Broker, sub driver.Subscription, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	missing := make(map[string]bool)
	for _, id := range want {
		missing[id] = true
	}
	err := b.Subscribe(ctx, sub, func(d driver.Delivery) {
		_ = d.Ack(ctx)
		if delete(missing, d.ID); len(missing) == 0 {
			cancel()
		}
	})
	if err != nil || len(missing) > 0 {
		t.Errorf("Subscribe = %v with %v missing, want nil and none", err, missing)
	}
}

// TestDamagedGroup: a group whose files are damaged is put right at the next start, gets all events
// that it has not acknowledged, and the log tells.
func TestDamagedGroup(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"o.dat", "meta.inf"} {
		for _, from := range []driver.Start{driver.FromBeginning, driver.FromNow} {
			if file == "meta.inf" && from == driver.FromNow {
				continue // where such a group began is lost with it
			}
			for _, ordered := range []bool{false, true} {
				t.Run(fmt.Sprint(file, " ", from, " ordered ", ordered), func(t *testing.T) {
					t.Parallel()
					dir, log := t.TempDir(), new(lockedText)
					b, stop := startBroker(t, dir, log)
					sub := driver.Subscription{Topic: "t", Group: "g", From: from, Ordered: ordered}
					if err := b.Declare(t.Context(), sub); err != nil {
						t.Fatal(err)
					}
					for _, id := range []string{"a", "b", "c"} {
						waitFor(t, "the broker to store "+id, func() bool { return publish(t, b, id, 10) == nil })
					}
					receiveAll(t, b, sub, "a")
					stop()
					damaged, _ := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "t", "obs", "*", file))
					for _, name := range damaged {
						if err := os.WriteFile(name, []byte("not what it was"), 0o600); err != nil {
							t.Fatal(err)
						}
					}
					b, stop = startBroker(t, dir, log)
					defer stop()
					receiveAll(t, b, sub, "b", "c")
					if len(damaged) == 0 || !log.has("is damaged") {
						t.Errorf("of %d damaged files the log does not tell", len(damaged))
					}
				})
			}
		}
	}
}
