package sqldb_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	_ "github.com/kaptar/kaptar/drivers/postgres"
	_ "github.com/kaptar/kaptar/drivers/sqlite"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/sqldb"
)

// eachDialect runs test on every dialect, with the URL of a fresh database.
func eachDialect(t *testing.T, test func(t *testing.T, url string)) {
	for _, d := range []struct {
		name string
		url  func(t *testing.T) string
	}{
		{"sqlite", func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "test.db") }},
		{"postgres", func(t *testing.T) string { return servertest.Database(t) }},
	} {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			test(t, d.url(t))
		})
	}
}

func open(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return db
}

func exec(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func queryInt(t testing.TB, db *sql.DB, query string, args ...any) int {
	t.Helper()
	var n int
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func count(t testing.TB, db *sql.DB, table string) int {
	t.Helper()
	return queryInt(t, db, "SELECT count(*) FROM "+table)
}

// eventually polls until ok, and fails the test with what after a minute.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	waittest.Until(tb, what, ok)
}
