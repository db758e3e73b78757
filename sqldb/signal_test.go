package sqldb_test

import (
	"context"
	"database/sql"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

// wait fails the test when nothing wakes s.
func wait(t *testing.T, s *sqldb.Signal) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if s.Wait(ctx, time.Hour); ctx.Err() != nil {
		t.Fatal("Wait: not woken within a minute")
	}
}

func TestSignalInProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, "sqlite::memory:")
		one, two, other := sqldb.NewSignal(db, "a"), sqldb.NewSignal(db, "a"), sqldb.NewSignal(db, "b")
		begin := time.Now()
		one.Notify() // before the Wait, and once for several
		one.Notify()
		two.Wait(t.Context(), time.Hour)
		if d := time.Since(begin); d != 0 {
			t.Errorf("Wait after Notify took %v, want none", d)
		}
		two.Wait(t.Context(), time.Minute)
		other.Wait(t.Context(), time.Minute)
		if d := time.Since(begin); d != 2*time.Minute {
			t.Errorf("Waits without a Notify took %v, want the 2 minutes they were given", d)
		}
		go func() {
			time.Sleep(time.Second)
			one.Notify()
		}()
		two.Wait(t.Context(), time.Hour)
		if d := time.Since(begin); d != 2*time.Minute+time.Second {
			t.Errorf("Wait ended after %v, want with the Notify", d)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		two.Wait(ctx, time.Hour)
		if d := time.Since(begin); d != 2*time.Minute+time.Second {
			t.Error("Wait with an ended ctx did not return")
		}
		alone := sqldb.NewSignal(nil, "a")
		alone.Notify()
		alone.Wait(t.Context(), time.Hour)
	})
}

func TestSignalAcrossProcesses(t *testing.T) {
	t.Parallel()
	one, two := postgres(t)
	from, to, other := sqldb.NewSignal(one, "a"), sqldb.NewSignal(two, "a"), sqldb.NewSignal(two, "b")
	wait(t, to) // it hears
	from.Notify()
	wait(t, to)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	other.Wait(t.Context(), time.Nanosecond) // it was woken when it began to hear
	if other.Wait(ctx, time.Hour); ctx.Err() == nil {
		t.Error("the Notify of one name woke another")
	}
	// The server ends the connection that listens: the waiter is told, and hears again.
	exec(t, one, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'")
	wait(t, to)
	from.Notify()
	wait(t, to)
}

// A process that notifies all the time does not load the server with it, and is not woken by itself.
func TestSignalIsDebounced(t *testing.T) {
	t.Parallel()
	one, two := postgres(t)
	exec(t, one, "CREATE TABLE counted (n BIGINT)")
	from, self, to := sqldb.NewSignal(one, "a"), sqldb.NewSignal(one, "a"), sqldb.NewSignal(two, "a")
	wait(t, to)
	wait(t, self)
	begin := time.Now()
	var woken atomic.Int64
	done := make(chan bool)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for to.Wait(ctx, time.Hour); ctx.Err() == nil; to.Wait(ctx, time.Hour) {
			woken.Add(1)
		}
		close(done)
	}()
	for range 200 {
		err := sqldb.InTx(t.Context(), one, func(ctx context.Context, tx *sql.Tx) error {
			sqldb.AfterCommit(ctx, from.Notify)
			_, err := tx.ExecContext(ctx, "INSERT INTO counted VALUES (1)")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	most := int64(time.Since(begin)/(100*time.Millisecond)) + 2
	wait(t, self) // of the process itself
	short, stop := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer stop()
	if self.Wait(short, time.Hour); short.Err() == nil {
		t.Error("a process woke itself by NOTIFY")
	}
	eventually(t, "another process is woken", func() bool { return woken.Load() > 0 })
	cancel()
	<-done
	if n := woken.Load(); n > most {
		t.Errorf("200 Notifies woke another process %d times, want at most %d", n, most)
	}
}

// A pool that is closed leaves nothing behind.
func TestSignalEndsWithTheDatabase(t *testing.T) {
	t.Parallel()
	one, two := postgres(t)
	s := sqldb.NewSignal(two, "a")
	wait(t, s)
	if err := two.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no connection of it is left", func() bool {
		return queryInt(t, one, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()") == 0
	})
	s.Notify()
	s.Wait(t.Context(), time.Nanosecond)
}
