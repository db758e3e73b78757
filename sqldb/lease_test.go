package sqldb_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/sqldb"
)

func take(t *testing.T, db *sql.DB, name string) *sqldb.Lease {
	t.Helper()
	l, err := sqldb.TryLease(t.Context(), db, name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func use(t *testing.T, l *sqldb.Lease, query string) error {
	t.Helper()
	return l.Use(t.Context(), func(ctx context.Context, conn *sql.Conn) error {
		_, err := conn.ExecContext(ctx, query)
		return err
	})
}

func TestLease(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		a := take(t, db, "a")
		if a == nil {
			t.Fatal("a free lease was not given")
		}
		if l := take(t, db, "a"); l != nil {
			t.Error("the lease was given twice")
		}
		if l := take(t, db, "b"); l == nil {
			t.Error("another name was not given")
		} else {
			l.Release()
		}
		if err := a.Check(t.Context()); err != nil {
			t.Errorf("Check = %v, want nil", err)
		}
		if err := use(t, a, "SELECT 1"); err != nil {
			t.Fatal(err)
		}
		a.Release()
		a.Release()
		if err := a.Check(t.Context()); err == nil {
			t.Error("Check after Release: no error")
		}
		if err := use(t, a, "SELECT 1"); err == nil {
			t.Error("Use after Release: no error")
		}
		var again *sqldb.Lease
		eventually(t, "the lease is free", func() bool { again = take(t, db, "a"); return again != nil })
		again.Release()
	})
}

// Two pools on one file are what two processes on it are: flock tells apart who has opened its file.
func TestLeaseOfAFile(t *testing.T) {
	t.Parallel()
	url := "sqlite:" + filepath.Join(t.TempDir(), "a.db")
	one, two := open(t, url), open(t, url)
	l := take(t, one, "outbox / relay")
	if other := take(t, two, "outbox / relay"); l == nil || other != nil {
		t.Fatalf("the lease of one file: %v and %v, want one holder", l, other)
	}
	if other := take(t, two, "another"); other == nil {
		t.Error("another name was not given")
	} else {
		other.Release()
	}
	child, err := syscall.Dup(int(l.File().Fd())) // as one has it that is just being started
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(child)
	l.Release()
	if l = take(t, two, "outbox / relay"); l == nil {
		t.Fatal("a lease that was released was not given to another pool")
	}
	l.Release()
	memory := open(t, "sqlite::memory:")
	if l := take(t, memory, "a"); l == nil || take(t, memory, "a") != nil {
		t.Error("in memory: want one holder")
	}
}

func TestLeasePostgres(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		one, two := open(t, url), open(t, url)
		if sqldb.DialectOf(one) == sqldb.SQLite {
			return // TestLeaseOfAFile
		}
		l := take(t, one, "a")
		if other := take(t, two, "a"); other != nil {
			t.Error("two pools hold the lease")
		}
		exec(t, two, "CREATE SCHEMA s")
		inSchema := open(t, url+"&search_path=s")
		if other := take(t, inSchema, "a"); other == nil {
			t.Error("the lease of one schema keeps another schema's from being given")
		} else {
			other.Release()
		}
		exec(t, two, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
		if err := l.Check(t.Context()); err == nil {
			t.Error("Check after the session was cut: no error")
		}
		if err := use(t, l, "SELECT 1"); err == nil {
			t.Error("Use after the session was cut: no error")
		}
		var next *sqldb.Lease
		eventually(t, "another pool gets the lease", func() bool { next = take(t, two, "a"); return next != nil })
		// The lock can vanish while the session lives, as behind a transaction pooler.
		if err := use(t, next, "SELECT pg_advisory_unlock_all()"); err != nil {
			t.Fatal(err)
		}
		if err := next.Check(t.Context()); err == nil {
			t.Error("Check after the lock was dropped: no error")
		}
		next.Release()
		l.Release()
	})
}

// The leases of a pool cost one connection, and giving one up leaves the others alone.
func TestLeasesShareASession(t *testing.T) {
	t.Parallel()
	one, two := postgres(t)
	a, b := take(t, one, "a"), take(t, one, "b")
	if other := take(t, one, "a"); other != nil {
		t.Error("a lease was given twice in one session, which may lock again")
	}
	if n := one.Stats().InUse; n != 1 {
		t.Errorf("connections in use for two leases = %d, want 1", n)
	}
	a.Release()
	if other := take(t, two, "b"); other != nil {
		t.Error("lease b went with lease a")
	}
	if a = take(t, two, "a"); a == nil {
		t.Fatal("a lease that was released is not free")
	}
	if err := b.Check(t.Context()); err != nil {
		t.Errorf("Check = %v, want nil", err)
	}
	exec(t, two, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid <> $1 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", pid(t, a))
	eventually(t, "another session has what the lost one had", func() bool {
		l, err := sqldb.TryLease(t.Context(), two, "b")
		return err == nil && l != nil
	})
	var c *sqldb.Lease
	eventually(t, "there is a new session", func() bool { c, _ = sqldb.TryLease(t.Context(), one, "c"); return c != nil })
	if err := b.Check(t.Context()); err == nil {
		t.Error("Check of a lease whose session was lost, with another session open: no error")
	}
	b.Release()
	a.Release()
	if err := c.Check(t.Context()); err != nil {
		t.Errorf("Check of the lease on the new session, after one of the old was given up = %v, want nil", err)
	}
	c.Release()
	if n := one.Stats().InUse; n != 0 {
		t.Errorf("connections in use without a lease = %d, want 0", n)
	}
}

func pid(t *testing.T, l *sqldb.Lease) (n int) {
	t.Helper()
	err := l.Use(t.Context(), func(ctx context.Context, conn *sql.Conn) error {
		return conn.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// postgres opens two pools on one database, as two processes have them.
func postgres(t *testing.T) (one, two *sql.DB) {
	t.Helper()
	url := servertest.Database(t)
	return open(t, url), open(t, url)
}
