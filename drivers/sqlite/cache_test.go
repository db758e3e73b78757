package sqlite

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/kaptar/kaptar/sqldb"
)

// one returns a database with one connection, so that each statement meets the cache of those before.
func one(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), "sqlite:"+t.TempDir()+"/cache.db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	exec(t, db, "CREATE TABLE t (a INT PRIMARY KEY, b TEXT)")
	return db
}

func exec(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func prepared(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.Raw(func(c any) error {
		n = len(c.(*conn).cache)
		return nil
	})
	return n
}

// A statement that is prepared gets no values of its last run, and knows of changes of the schema.
func TestCache(t *testing.T) {
	t.Parallel()
	db := one(t)
	const insert, read = "INSERT INTO t VALUES ($1, $2)", "SELECT a, b FROM t WHERE a = $1"
	for i := range 3 {
		exec(t, db, insert, i, fmt.Sprint("b", i))
		exec(t, db, insert, 10+i, nil)
	}
	for i := range 3 {
		var a int
		var b sql.NullString
		if err := db.QueryRowContext(t.Context(), read, 10+i).Scan(&a, &b); err != nil || a != 10+i || b.Valid {
			t.Errorf("%d, %v, %v: want %d and NULL", a, b, err, 10+i)
		}
	}
	if got := prepared(t, db); got != 1 {
		t.Errorf("%d statements are kept, want 1", got)
	}
	exec(t, db, "ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'new'")
	var a int
	var b string
	if err := db.QueryRowContext(t.Context(), read, 1).Scan(&a, &b); err != nil || b != "b1" {
		t.Errorf("after a change of the schema: %q, %v", b, err)
	}
	if _, err := db.ExecContext(t.Context(), insert, 7, "b"); err == nil {
		t.Error("two values for three columns: no error")
	}
	exec(t, db, "DROP TABLE t")
	if _, err := db.ExecContext(t.Context(), insert, 8, "b"); err == nil {
		t.Error("a table that is gone was written to")
	}
}

// Some pragmas work while they are prepared, so that one that is kept would do nothing.
func TestCachePragma(t *testing.T) {
	t.Parallel()
	db := one(t)
	for i := range 4 {
		exec(t, db, fmt.Sprintf("PRAGMA foreign_keys = %d", i%2))
		var on int
		if err := db.QueryRowContext(t.Context(), " pragma foreign_keys").Scan(&on); err != nil || on != i%2 {
			t.Errorf("foreign_keys is %d, %v; want %d", on, err, i%2)
		}
	}
	if got := prepared(t, db); got != 0 {
		t.Errorf("%d statements are kept, want none", got)
	}
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	db := one(t)
	for i := range 3 * maxCached {
		exec(t, db, fmt.Sprintf("INSERT INTO t VALUES (%d, '')", i))
	}
	if got := prepared(t, db); got < 1 || got > maxCached {
		t.Errorf("%d statements are kept, want at most %d", got, maxCached)
	}
}
