package lead

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	_ "github.com/kaptar/kaptar/drivers/sqlite"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/sqldb"
)

// TestRun: work that fails comes again soon if the database has answered, and ever later if not. The
// lease is free when Run has returned.
func TestRun(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		answers  bool
		min, max int // calls within 20 s
	}{
		{"the database answers", true, 190, 410}, // every 50 to 100 ms
		{"nothing answers", false, 7, 16},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				db, err := sqldb.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "a.db"))
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				calls := 0
				Run(ctx, db, "n", time.Second, new(steady.Outage), func(_ context.Context, _ *sqldb.Lease, well func()) error {
					if calls++; tc.answers {
						well()
					}
					return errors.New("no")
				})
				if calls < tc.min || calls > tc.max {
					t.Errorf("got %d calls within 20 s, want %d to %d", calls, tc.min, tc.max)
				}
				lease, err := sqldb.TryLease(t.Context(), db, "n")
				if lease == nil {
					t.Fatalf("the lease afterwards: %v, want it free", err)
				}
				lease.Release()
			})
		})
	}
}

// TestOutageOfAFollower: who could not ask for the lease, and then hears that others hold it, tells
// that the outage is over.
func TestOutageOfAFollower(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "a.db")
	db, err := sqldb.Open(t.Context(), "sqlite:"+file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	blocked := file + "-lease-n"
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	var log waittest.Buffer
	outage := &steady.Outage{What: "work", Log: slog.New(slog.NewTextHandler(&log, nil))}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Run(ctx, db, "n", 10*time.Millisecond, outage, func(context.Context, *sqldb.Lease, func()) error { return nil })
	}()
	waittest.Until(t, "the outage is told", func() bool { return strings.Contains(log.String(), "work lost") })
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	var lease *sqldb.Lease
	waittest.Until(t, "the lease is got", func() bool {
		lease, err = sqldb.TryLease(t.Context(), db, "n")
		return lease != nil || err != nil
	})
	if err != nil {
		t.Fatal(err)
	}
	waittest.Until(t, "its end is told", func() bool { return strings.Contains(log.String(), "work is back") })
	cancel()
	<-ended
	lease.Release()
}
