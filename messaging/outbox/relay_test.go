package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// Sixteen writers commit out of the order of their ids while the relay runs: a relay with a
// position loses here.
func TestRelayLosesNothingOutOfOrder(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		const writers, each = 16, 60
		db := open(t, url)
		var b broker
		r := outbox.NewRelay(db, b.send, nil)
		start(t, r)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
						sqldb.AfterCommit(ctx, r.Wake)
						if err := outbox.Add(ctx, tx, message(fmt.Sprint(w), i)); err != nil {
							return err
						}
						if sqldb.DialectOf(db) == sqldb.Postgres && (w+i)%4 == 0 {
							_, err := tx.ExecContext(ctx, "SELECT pg_sleep(0.005)") // its id is taken, others commit first
							return err
						}
						return nil
					})
					if err != nil {
						t.Errorf("InTx: %v", err)
					}
				}
			})
		}
		wg.Wait()
		eventually(t, "the outbox is empty", func() bool { return count(t, db, "kaptar_outbox") == 0 })
		next := map[string]int{}
		for _, m := range b.all() {
			if want := fmt.Sprintf("%s-%d", m.Key, next[m.Key]); m.ID != want {
				t.Fatalf("sent %s, want %s: lost, twice or out of the key's order", m.ID, want)
			}
			next[m.Key]++
		}
		if len(next) != writers || len(b.all()) != writers*each {
			t.Errorf("sent %d of %d", len(b.all()), writers*each)
		}
	})
}

// The sharpest case of the above: a transaction that takes its id first and commits last does not
// hold others up and is not lost.
func TestRelayLateCommit(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		if sqldb.DialectOf(db) == sqldb.SQLite {
			return // one writer at a time: ids are in the order of the commits
		}
		var b broker
		start(t, outbox.NewRelay(db, b.send, nil))
		late, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer late.Rollback()
		if err := outbox.Add(t.Context(), late, message("late", 0)); err != nil {
			t.Fatal(err)
		}
		add(t, db, message("early", 0))
		eventually(t, "the early one is sent and deleted", func() bool { return len(b.all()) == 1 && count(t, db, "kaptar_outbox") == 0 })
		if err := late.Commit(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the late one is sent", b.has(2))
		if got := b.all(); got[0].Key != "early" || got[1].Key != "late" {
			t.Errorf("sent %s, %s; want early, late", got[0].Key, got[1].Key)
		}
	})
}

func TestOneRelayLeads(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		one := open(t, url)
		two := one // on SQLite the lease spans one *sql.DB
		if sqldb.DialectOf(one) == sqldb.Postgres {
			two = open(t, url)
		}
		var b broker
		var senders [2]atomic.Int64
		var relays [2]*outbox.Relay
		var stops [2]func()
		for i, db := range []*sql.DB{one, two} {
			r := outbox.NewRelay(db, func(ctx context.Context, ms []driver.Message) error {
				senders[i].Add(int64(len(ms)))
				return b.send(ctx, ms)
			}, nil)
			relays[i], stops[i] = r, start(t, r)
		}
		for i := range 50 { // both are called to work each time: two that lead would send side by side
			add(t, one, message("k", i))
			relays[i%2].Wake()
			relays[1-i%2].Wake()
			if i%10 == 9 {
				eventually(t, "what is there is sent", b.has(i+1))
			}
		}
		leader := 0
		if senders[1].Load() > 0 {
			leader = 1
		}
		if n := senders[1-leader].Load(); n != 0 {
			t.Fatalf("both relays sent: %d and %d", senders[leader].Load(), n)
		}
		stops[leader]()
		add(t, one, message("k", 50))
		eventually(t, "the other takes over", func() bool { return senders[1-leader].Load() > 0 })
		for i, m := range b.all() {
			if want := message("k", i).ID; m.ID != want {
				t.Fatalf("sent %s as number %d, want %s", m.ID, i, want)
			}
		}
	})
}

// A leader whose session is cut between two batches sends nothing before it leads again.
func TestRelayLosesSession(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		if sqldb.DialectOf(db) == sqldb.SQLite {
			return // no session
		}
		var b broker
		r := outbox.NewRelay(db, b.send, nil)
		start(t, r)
		add(t, db, message("k", 0))
		eventually(t, "the first is sent", func() bool { return len(b.all()) == 1 && count(t, db, "kaptar_outbox") == 0 })
		// Another process takes the lock in the moment the session dies.
		cut := `SELECT pid, pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
		rival := open(t, url)
		exec(t, rival, cut)
		var lease *sqldb.Lease
		eventually(t, "the rival has the lease, or the relay again", func() bool {
			var err error
			if lease, err = sqldb.TryLease(t.Context(), rival, "outbox relay"); err != nil {
				t.Fatal(err)
			}
			if lease == nil {
				exec(t, rival, cut)
			}
			return lease != nil
		})
		add(t, db, message("k", 1))
		r.Wake()
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		<-ctx.Done()
		if n := len(b.all()); n != 1 {
			t.Errorf("sent %d without the lease, want still 1", n)
		}
		lease.Release()
		eventually(t, "the relay leads again", b.has(2))
	})
}

// The relay dies after the broker has the batch and before the rows are deleted. They are sent
// again, and the inbox keeps the effect single.
func TestCrashBetweenSendAndDelete(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		exec(t, db, "CREATE TABLE effects (msgid TEXT NOT NULL)")
		for i := range 10 {
			add(t, db, message("k", i))
		}
		var b broker
		doomed := open(t, url)
		stop := start(t, outbox.NewRelay(doomed, func(ctx context.Context, ms []driver.Message) error {
			if err := b.send(ctx, ms); err != nil {
				return err
			}
			doomed.Close() // from here on it can do nothing to the database
			return nil
		}, nil))
		eventually(t, "the batch is at the broker", b.has(10))
		stop()
		if n := count(t, db, "kaptar_outbox"); n != 10 {
			t.Fatalf("rows = %d, want all 10 still there", n)
		}
		start(t, outbox.NewRelay(db, b.send, nil))
		eventually(t, "they are sent again", func() bool { return len(b.all()) == 20 && count(t, db, "kaptar_outbox") == 0 })
		for _, m := range b.all() {
			err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
				first, err := outbox.MarkHandled(ctx, tx, "g", &m)
				if err != nil || !first {
					return err
				}
				_, err = tx.Exec("INSERT INTO effects VALUES ($1)", m.ID)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if n := count(t, db, "effects"); n != 10 {
			t.Errorf("effects = %d of 20 deliveries, want 10", n)
		}
	})
}

func TestRelayPartialSend(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		for i := range 10 {
			add(t, db, message("k", i))
		}
		var b broker
		var left []int
		b.fail = func(batch []driver.Message) error {
			left = append(left, len(batch))
			if len(left) < 3 {
				return fmt.Errorf("wrapped: %w", &driver.PartialError{Sent: 3, Err: errBoom})
			}
			return nil
		}
		start(t, outbox.NewRelay(db, b.send, nil))
		eventually(t, "all are sent", func() bool { return len(b.all()) >= 10 && count(t, db, "kaptar_outbox") == 0 })
		for i, m := range b.all() {
			if want := message("k", i).ID; m.ID != want {
				t.Errorf("sent %s as number %d, want %s", m.ID, i, want)
			}
		}
		if got := fmt.Sprint(left); got != "[10 7 4]" {
			t.Errorf("sizes of the batches = %s, want [10 7 4]: only the sent prefix is deleted", got)
		}
	})
}

func TestRelayFailureBackoffAndLog(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		add(t, db, message("k", 0))
		var b broker
		var calls []time.Time
		b.fail = func([]driver.Message) error {
			calls = append(calls, time.Now())
			if len(calls) < 5 {
				return errBoom
			}
			return nil
		}
		var text lockedBuffer
		r := outbox.NewRelay(db, b.send, &outbox.RelayOptions{Log: slog.New(slog.NewTextHandler(&text, nil))})
		stop := start(t, r)
		eventually(t, "it is sent", func() bool { r.Wake(); return b.has(1)() })
		eventually(t, "the recovery is logged", func() bool { return strings.Count(text.String(), "\n") > 1 })
		stop()
		for i, least := range []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond} {
			if d := calls[i+1].Sub(calls[i]); d < least {
				t.Errorf("pause %d = %v, want %v or more, whatever Wake says", i+1, d, least)
			}
		}
		if got := text.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "boom") {
			t.Errorf("log = %q, want one line when it fails, with the reason, and one when it recovers", got)
		}
	})
}

type lockedBuffer = waittest.Buffer

func TestRelayBatches(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
			for i := range 1200 {
				if err := outbox.Add(ctx, tx, message("k", i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var b broker
		var sizes []int
		b.fail = func(batch []driver.Message) error { sizes = append(sizes, len(batch)); return nil }
		r := outbox.NewRelay(db, b.send, nil)
		stop := start(t, r)
		eventually(t, "all are sent", func() bool { return len(b.all()) == 1200 && count(t, db, "kaptar_outbox") == 0 })
		stop()
		if got := fmt.Sprint(sizes[:3]); got != "[500 500 200]" {
			t.Errorf("sizes of the batches = %s, want [500 500 200]", got)
		}
	})
}

// What a relay is woken for is sent at once: by a clock that stands still meanwhile, no poll comes.
func TestRelayWakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, "sqlite:"+filepath.Join(t.TempDir(), "test.db"))
		if err := outbox.Migrate(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		var b broker
		r := outbox.NewRelay(db, b.send, nil)
		stop := start(t, r)
		for i := range 20 {
			time.Sleep(time.Duration(i) * 77 * time.Millisecond) // up to the longest pause between two polls, and beyond
			synctest.Wait()
			add(t, db, message("w", i))
			r.Wake()
			synctest.Wait()
			if n := len(b.all()); n != i+1 {
				t.Fatalf("%d are sent after Wake, want %d", n, i+1)
			}
		}
		stop()
	})
}

func TestRelayStops(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		ctx, cancel := context.WithCancel(t.Context())
		sending := make(chan bool, 1)
		r := outbox.NewRelay(db, func(ctx context.Context, _ []driver.Message) error {
			sending <- true
			<-ctx.Done()
			return ctx.Err()
		}, nil)
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		add(t, db, message("k", 0))
		<-sending
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run after cancel = %v, want nil", err)
		}
		if n := count(t, db, "kaptar_outbox"); n != 1 {
			t.Errorf("rows = %d, want the unsent one", n)
		}
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run with an ended ctx = %v, want nil", err)
		}
	})
	foreign, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	if err := outbox.NewRelay(foreign, nil, nil).Run(t.Context()); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("Run on a foreign database = %v, want an error", err)
	}
}
