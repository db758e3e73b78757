package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kaptar/kaptar/sqldb"
)

var errBoom = errors.New("boom")

// inTx is InTx for tests that need no ctx inside.
func inTx(t testing.TB, db *sql.DB, fn func(tx *sql.Tx) error) error {
	t.Helper()
	return sqldb.InTx(t.Context(), db, func(_ context.Context, tx *sql.Tx) error { return fn(tx) })
}

func insert(n int) func(*sql.Tx) error {
	return func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT INTO t (n) VALUES ($1)", n)
		return err
	}
}

func TestInTxConcurrentIncrements(t *testing.T) {
	t.Parallel()
	const callers, rounds = 32, 20
	eachDialect(t, func(t *testing.T, url string) {
		// Two pools on one database: the writers of one meet those of the other as two processes
		// would.
		pools := []*sql.DB{open(t, url), open(t, url)}
		exec(t, pools[0], "CREATE TABLE counter (n BIGINT)")
		exec(t, pools[0], "INSERT INTO counter VALUES (0)")
		var hooks atomic.Int64
		var wg sync.WaitGroup
		for i := range callers {
			db := pools[i%8/7] // a few on the second
			wg.Go(func() {
				for range rounds {
					err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
						var n int
						query := "SELECT n FROM counter"
						if sqldb.DialectOf(db) == sqldb.Postgres {
							query += " FOR UPDATE"
						}
						if err := tx.QueryRowContext(ctx, query).Scan(&n); err != nil {
							return err
						}
						sqldb.AfterCommit(ctx, func() { hooks.Add(1) })
						_, err := tx.ExecContext(ctx, "UPDATE counter SET n = $1", n+1)
						return err
					})
					if err != nil {
						t.Errorf("InTx: %v", err)
					}
				}
			})
		}
		wg.Wait()
		if got := queryInt(t, pools[0], "SELECT n FROM counter"); got != callers*rounds {
			t.Errorf("counter = %d, want %d: increments were lost", got, callers*rounds)
		}
		if got := hooks.Load(); got != callers*rounds {
			t.Errorf("hooks ran %d times, want %d", got, callers*rounds)
		}
	})
}

func TestInTxRollsBack(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		exec(t, db, "CREATE TABLE t (n BIGINT)")
		ran := false
		fail := func(end func(context.CancelFunc) error) error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			return sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
				if !sqldb.AfterCommit(ctx, func() { ran = true }) {
					t.Error("AfterCommit in InTx = false, want true")
				}
				if err := insert(1)(tx); err != nil {
					return err
				}
				return end(cancel)
			})
		}
		if err := fail(func(context.CancelFunc) error { return errBoom }); err != errBoom {
			t.Errorf("InTx = %v, want fn's own error", err)
		}
		if err := fail(func(cancel context.CancelFunc) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("InTx with ctx cancelled in fn = %v, want context.Canceled", err)
		}
		func() {
			defer func() {
				if p := recover(); p != "oh" {
					t.Errorf("recovered %v, want fn's panic", p)
				}
			}()
			_ = fail(func(context.CancelFunc) error { panic("oh") })
		}()
		rolledBack := func(cancel context.CancelFunc, tx *sql.Tx) {
			cancel()
			if sqldb.DialectOf(db) == sqldb.Postgres { // database/sql does it in a goroutine of its own; on SQLite InTx does it
				eventually(t, "the transaction is rolled back", func() bool { _, err := tx.Exec("SELECT 1"); return errors.Is(err, sql.ErrTxDone) })
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		if err := sqldb.InTx(ctx, db, func(_ context.Context, tx *sql.Tx) error { rolledBack(cancel, tx); return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("InTx that was rolled back before its commit = %v, want context.Canceled", err)
		}
		if n := count(t, db, "t"); n != 0 {
			t.Errorf("rows after rollbacks = %d, want 0", n)
		}
		if ran {
			t.Error("a hook of a rolled back transaction ran")
		}
		if err := inTx(t, db, insert(2)); err != nil || count(t, db, "t") != 1 {
			t.Errorf("InTx after rollbacks: %v, %d rows; want 1 row", err, count(t, db, "t"))
		}
	})
}

func TestInTxNested(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db, other := open(t, url), open(t, "sqlite::memory:")
		exec(t, other, "CREATE TABLE t (n BIGINT)")
		var order []string
		var kept context.Context
		err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
			kept = ctx
			sqldb.AfterCommit(ctx, func() { order = append(order, "outer") })
			if err := sqldb.InTx(ctx, db, nil); !errors.Is(err, sqldb.ErrNested) {
				t.Errorf("InTx on the same database = %v, want ErrNested", err)
			}
			return sqldb.InTx(ctx, other, func(ctx context.Context, tx *sql.Tx) error {
				sqldb.AfterCommit(ctx, func() { order = append(order, "inner") })
				if err := sqldb.InTx(ctx, db, nil); !errors.Is(err, sqldb.ErrNested) {
					t.Errorf("InTx on the outermost database = %v, want ErrNested", err)
				}
				return insert(1)(tx)
			})
		})
		if err != nil || !slices.Equal(order, []string{"inner", "outer"}) {
			t.Errorf("InTx = %v, hooks %v; want inner at its own commit, then outer", err, order)
		}
		if sqldb.AfterCommit(kept, func() { t.Error("a hook added after the end ran") }) {
			t.Error("AfterCommit after the end = true, want false")
		}
		if sqldb.AfterCommit(t.Context(), func() {}) {
			t.Error("AfterCommit outside = true, want false")
		}
		if err := sqldb.InTx(kept, db, func(context.Context, *sql.Tx) error { return nil }); err != nil {
			t.Errorf("InTx with the ctx of one that ended: %v, want none", err)
		}
	})
}

// A database that reports contention lets fn run again; the hooks of the attempts that failed do
// not run.
func TestInTxRetries(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		exec(t, db, "CREATE TABLE t (n BIGINT)")
		contention := error(&pgconn.PgError{Code: "40001"})
		if sqldb.DialectOf(db) == sqldb.SQLite {
			contention = busyError(t)
		}
		attempts, hooks := 0, 0
		err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
			attempts++
			sqldb.AfterCommit(ctx, func() { hooks++ })
			if err := insert(attempts)(tx); err != nil {
				return err
			}
			if attempts < 4 {
				return fmt.Errorf("wrapped: %w", contention)
			}
			return nil
		})
		if err != nil || attempts != 4 || hooks != 1 || count(t, db, "t") != 1 {
			t.Errorf("InTx = %v after %d attempts, %d hooks, %d rows; want none, 4, 1, 1", err, attempts, hooks, count(t, db, "t"))
		}
		attempts = 0
		err = inTx(t, db, func(*sql.Tx) error { attempts++; return contention })
		if !errors.Is(err, contention) || attempts != 6 {
			t.Errorf("InTx = %v after %d attempts, want the contention after 6", err, attempts)
		}
		attempts = 0
		if err := inTx(t, db, func(*sql.Tx) error { attempts++; return errBoom }); err != errBoom || attempts != 1 {
			t.Errorf("InTx = %v after %d attempts, want boom after 1", err, attempts)
		}
	})
}

// busyError makes a real SQLITE_BUSY.
func busyError(t *testing.T) error {
	t.Helper()
	url := "sqlite:" + t.TempDir() + "/busy.db"
	holder, other := open(t, url), open(t, url)
	tx, err := holder.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	other.SetMaxOpenConns(1)
	exec(t, other, "PRAGMA busy_timeout=0")
	_, err = other.Exec("CREATE TABLE x (n)")
	if err == nil {
		t.Fatal("a write beside a writer: no error, want SQLITE_BUSY")
	}
	return err
}

func TestInTxRetriesRealDeadlock(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		if sqldb.DialectOf(db) == sqldb.SQLite {
			return // one writer at a time cannot deadlock
		}
		exec(t, db, "CREATE TABLE t (n BIGINT PRIMARY KEY, v BIGINT)")
		exec(t, db, "INSERT INTO t VALUES (1, 0), (2, 0)")
		var first sync.WaitGroup
		first.Add(2)
		var attempts atomic.Int64
		cross := func(a, b int) error {
			met := false
			return sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
				attempts.Add(1)
				if _, err := tx.ExecContext(ctx, "UPDATE t SET v = v + 1 WHERE n = $1", a); err != nil {
					return err
				}
				if !met {
					met = true
					first.Done()
					first.Wait() // both hold their first row
				}
				_, err := tx.ExecContext(ctx, "UPDATE t SET v = v + 1 WHERE n = $1", b)
				return err
			})
		}
		errs := make(chan error, 1)
		go func() { errs <- cross(1, 2) }()
		if err := errors.Join(cross(2, 1), <-errs); err != nil {
			t.Fatalf("InTx: %v, want the deadlock's victim to run again", err)
		}
		if got := queryInt(t, db, "SELECT sum(v) FROM t"); got != 4 || attempts.Load() < 3 {
			t.Errorf("sum = %d after %d attempts, want 4 after 3 or more", got, attempts.Load())
		}
	})
}

func TestConstraint(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		exec(t, db, "CREATE TABLE users (id BIGINT PRIMARY KEY, email TEXT UNIQUE, a BIGINT, b BIGINT NOT NULL, CONSTRAINT odd_name UNIQUE (b, a))")
		exec(t, db, "CREATE TABLE names (name TEXT)")
		exec(t, db, "CREATE UNIQUE INDEX names_lower ON names (lower(name))")
		exec(t, db, "INSERT INTO names VALUES ('ada')")
		exec(t, db, "INSERT INTO users VALUES (1, 'a@b', 1, 1)")
		for _, c := range []struct {
			insert, want string
			ok           bool
		}{
			{"users VALUES (2, 'a@b', 2, 2)", "users.email", true},
			{"users VALUES (1, 'c@d', 2, 2)", "users.id", true},
			{"users VALUES (2, 'c@d', 1, 1)", "users.b,users.a", true},
			{"names VALUES ('ADA')", "names_lower", true},
			{"users VALUES (2, 'c@d', 2, NULL)", "", false},
		} {
			err := inTx(t, db, func(tx *sql.Tx) error {
				_, err := tx.Exec("INSERT INTO " + c.insert)
				return err
			})
			got, ok := sqldb.Constraint(fmt.Errorf("store: %w", err))
			if got != c.want || ok != c.ok {
				t.Errorf("insert %s: %v: Constraint = %q, %t; want %q, %t", c.insert, err, got, ok, c.want, c.ok)
			}
		}
		if got, ok := sqldb.Constraint(errBoom); ok {
			t.Errorf("Constraint(boom) = %q, want none", got)
		}
	})
}
