package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/sqldb"
)

// counted is a connection that counts what is sent.
type counted struct {
	net.Conn
	sent *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	c.sent.Add(1)
	return c.Conn.Write(p)
}

// openCounted opens a fresh database with a table t (id unique, other at most 9), of one connection.
func openCounted(t *testing.T, parameters string) (db *sql.DB, sent *atomic.Int64) {
	t.Helper()
	url := servertest.Database(t)
	if parameters != "" {
		separator := "?"
		if strings.Contains(url, "?") {
			separator = "&"
		}
		url += separator + parameters
	}
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	sent = new(atomic.Int64)
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		return counted{c, sent}, err
	}
	// Nor does it ask a connection that was idle for a second, as on a slow machine, whether it lives.
	never := func(context.Context, stdlib.ShouldPingParams) bool { return false }
	connector := stdlib.GetConnector(*cfg, stdlib.OptionShouldPing(never))
	db = sqldb.OpenDB(dialect(), func(ctx context.Context) (driver.Conn, error) { return connect(ctx, connector) })
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE t (id bigint PRIMARY KEY, other bigint CHECK (other < 10)); CREATE TABLE u ()"); err != nil {
		t.Fatal(err)
	}
	return db, sent
}

// codeOf is PostgreSQL's code of err.
func codeOf(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	db, sent := openCounted(t, "")
	const insert, one = "INSERT INTO t VALUES ($1, 1) ON CONFLICT DO NOTHING", "SELECT id FROM t WHERE id = $1"
	for _, c := range []struct {
		name string
		do   func(ctx context.Context, tx *sql.Tx) error
		want int64
	}{
		{"nothing", func(context.Context, *sql.Tx) error { return nil }, 0},
		{"a statement with arguments", func(ctx context.Context, tx *sql.Tx) error { return execute(ctx, tx, insert, 1) }, 2},
		{"two", func(ctx context.Context, tx *sql.Tx) error {
			return errors.Join(execute(ctx, tx, insert, 1), execute(ctx, tx, insert, 2))
		}, 3},
		{"without arguments", func(ctx context.Context, tx *sql.Tx) error { return execute(ctx, tx, "DELETE FROM t") }, 3},
		{"a query", func(ctx context.Context, tx *sql.Tx) error {
			if err := tx.QueryRowContext(ctx, one, 1).Scan(new(int)); !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			return nil
		}, 3},
	} {
		for range 2 { // the first prepares
			sent.Store(0)
			if err := sqldb.InTx(t.Context(), db, c.do); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		if got := sent.Load(); got != c.want {
			t.Errorf("%s: sent %d times, want %d", c.name, got, c.want)
		}
	}
}

func execute(ctx context.Context, tx *sql.Tx, query string, args ...any) error {
	_, err := tx.ExecContext(ctx, query, args...)
	return err
}

// TestTransaction: a transaction that begins with its first statement is one, whatever that is.
func TestTransaction(t *testing.T) {
	t.Parallel()
	const insert, aborted = "INSERT INTO t VALUES ($1, $2)", "25P02"
	for name, parameters := range map[string]string{
		"statements prepared": "", "nothing prepared": "default_query_exec_mode=exec", "simple protocol": "default_query_exec_mode=simple_protocol",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, _ := openCounted(t, parameters)
			prepared, err := db.PrepareContext(t.Context(), insert)
			if err != nil {
				t.Fatal(err)
			}
			defer prepared.Close()
			for _, c := range []struct {
				name  string
				first func(ctx context.Context, tx *sql.Tx) error
				code  string // of its error
			}{
				{"statement", func(ctx context.Context, tx *sql.Tx) error { return execute(ctx, tx, insert, 1, 1) }, ""},
				{"statement prepared before", func(ctx context.Context, tx *sql.Tx) error {
					_, err := tx.StmtContext(ctx, prepared).ExecContext(ctx, 1, 1)
					return err
				}, ""},
				{"statement prepared in it", func(ctx context.Context, tx *sql.Tx) error {
					_, err := must(tx.PrepareContext(ctx, insert)).ExecContext(ctx, 1, 1)
					return err
				}, ""},
				{"query", func(ctx context.Context, tx *sql.Tx) error {
					return tx.QueryRowContext(ctx, insert+" RETURNING id", 1, 1).Scan(new(int))
				}, ""},
				{"several", func(ctx context.Context, tx *sql.Tx) error {
					return execute(ctx, tx, "INSERT INTO t VALUES (1, 1); INSERT INTO u DEFAULT VALUES")
				}, ""},
				{"null", func(ctx context.Context, tx *sql.Tx) error { return execute(ctx, tx, insert, 1, nil) }, ""},
				{"refused by a check", func(ctx context.Context, tx *sql.Tx) error { return execute(ctx, tx, insert, 1, 10) }, "23514"},
				{"no such table", func(ctx context.Context, tx *sql.Tx) error {
					return execute(ctx, tx, "INSERT INTO nothing VALUES ($1)", 1)
				}, "42P01"},
				{"no SQL", func(ctx context.Context, tx *sql.Tx) error { return execute(ctx, tx, "INSERT $1 INTO", 1) }, "42601"},
			} {
				for _, commit := range []bool{false, true} {
					tx, err := db.BeginTx(t.Context(), nil)
					if err != nil {
						t.Fatal(err)
					}
					if err := c.first(t.Context(), tx); (err == nil) != (c.code == "") || codeOf(err) != c.code {
						t.Fatalf("%s: %v, want code %q", c.name, err, c.code)
					}
					err = execute(t.Context(), tx, insert, 2, 2)
					if want := map[bool]string{false: aborted}[c.code == ""]; codeOf(err) != want {
						t.Errorf("%s: then another: %v, want code %q", c.name, err, want)
					}
					if commit {
						if err := tx.Commit(); (err == nil) != (c.code == "") {
							t.Errorf("%s: commit: %v", c.name, err)
						}
					} else if err := tx.Rollback(); err != nil {
						t.Errorf("%s: rollback: %v", c.name, err)
					}
					want, n := 0, 0
					if commit && c.code == "" {
						want = 2
					}
					if err := db.QueryRowContext(t.Context(), "WITH gone AS (DELETE FROM t RETURNING 1) SELECT count(*) FROM gone").Scan(&n); err != nil || n != want {
						t.Errorf("%s, commit %v: %d rows, %v, want %d", c.name, commit, n, err, want)
					}
				}
			}
		})
	}
}

func must(s *sql.Stmt, err error) *sql.Stmt {
	if err != nil {
		panic(err)
	}
	return s
}

// TestRawBegins: what is done with the connection itself is part of the transaction.
func TestRawBegins(t *testing.T) {
	t.Parallel()
	db, _ := openCounted(t, "")
	pool, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tx, err := pool.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	err = pool.Raw(func(c any) error {
		rows := pgx.CopyFromRows([][]any{{int64(1), int64(1)}})
		_, err := c.(interface{ Conn() *pgx.Conn }).Conn().CopyFrom(t.Context(), pgx.Identifier{"t"}, []string{"id", "other"}, rows)
		return err
	})
	if err := errors.Join(err, tx.Rollback(), pool.Close()); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows after a rollback, %v", n, err)
	}
}

// TestEndedTransaction: a transaction whose context ends, or whose server is gone, leaves a pool that
// works.
func TestEndedTransaction(t *testing.T) {
	t.Parallel()
	db, _ := openCounted(t, "")
	const slow, kill = "INSERT INTO t SELECT $1, 1 FROM pg_sleep(60)", "SELECT pg_terminate_backend(pg_backend_pid()) WHERE $1 = 1"
	works := func(after string) {
		t.Helper()
		err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error { return execute(ctx, tx, "DELETE FROM t WHERE id = $1", 1) })
		if err != nil {
			t.Errorf("after %s: %v", after, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
		cancel()
		return execute(ctx, tx, slow, 1)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a transaction whose context has ended: %v", err)
	}
	works("a transaction whose context had ended")

	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error { return execute(ctx, tx, slow, 1) })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a statement whose context ends: %v", err)
	}
	works("a statement whose context ended")

	err = sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error { return execute(ctx, tx, kill, 1) })
	if !sqldb.Away(err) {
		t.Errorf("a connection that the server ends: %v, want that it is away", err)
	}
	works("the end of a connection")
}
