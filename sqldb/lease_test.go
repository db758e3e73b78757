package sqldb_test

import (
	"database/sql"
	"path/filepath"
	"testing"

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
		rows, err := a.QueryContext(t.Context(), "SELECT 1")
		if err != nil {
			t.Fatal(err)
		}
		rows.Close()
		a.Release()
		a.Release()
		if err := a.Check(t.Context()); err == nil {
			t.Error("Check after Release: no error")
		}
		if _, err := a.QueryContext(t.Context(), "SELECT 1"); err == nil {
			t.Error("Query after Release: no error")
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
		if _, err := l.QueryContext(t.Context(), "SELECT 1"); err == nil {
			t.Error("Query after the session was cut: no error")
		}
		var next *sqldb.Lease
		eventually(t, "another pool gets the lease", func() bool { next = take(t, two, "a"); return next != nil })
		// The lock can vanish while the session lives, as behind a transaction pooler.
		rows, err := next.QueryContext(t.Context(), "SELECT pg_advisory_unlock_all()")
		if err != nil {
			t.Fatal(err)
		}
		rows.Close()
		if err := next.Check(t.Context()); err == nil {
			t.Error("Check after the lock was dropped: no error")
		}
		next.Release()
		l.Release()
	})
}
