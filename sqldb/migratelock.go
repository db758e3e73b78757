package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
)

// The advisory lock that all migrations of one database share, and how often it is tried: a session
// that blocks in pg_advisory_lock would keep CREATE INDEX CONCURRENTLY of the one that migrates
// waiting for ever.
const (
	migrateLock  int64 = 0x6b61707461720001 // "kaptar", 1
	migrateRetry       = 100 * time.Millisecond
)

// These count the table $1, 0 or 1.
const (
	countSQLiteTable   = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = $1"
	countPostgresTable = "SELECT count(*) FROM pg_catalog.pg_class WHERE oid = to_regclass($1)"
)

// migrateLocker is what both dialects do once they have the lock.
type migrateLocker struct {
	table  string
	exists string // counts a table
	known  map[int64]file
}

func (l *migrateLocker) checkAlone(ctx context.Context, db *sql.DB) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return l.check(ctx, conn)
}

// check finds versions in the database that no file has, and files that were edited since.
func (l *migrateLocker) check(ctx context.Context, conn *sql.Conn) error {
	versions, err := l.applied(ctx, conn, l.table, "''")
	if err != nil {
		return err
	}
	var unknown []string
	for _, a := range versions {
		if _, ok := l.known[a.version]; a.version > 0 && !ok {
			unknown = append(unknown, strconv.FormatInt(a.version, 10))
		}
	}
	if unknown = slices.Compact(unknown); len(unknown) > 0 {
		return &ownError{"the database is newer than this program: it has version " + strings.Join(unknown, ", ") +
			" in " + l.table + ", which no file has; run the newer program or restore the older database"}
	}
	sums, err := l.applied(ctx, conn, l.table+"_sums", "sum")
	for _, a := range sums {
		if f, ok := l.known[a.version]; ok && f.sum != a.sum {
			return &ownError{fmt.Sprintf("%s was edited after it was applied: put it back as it was, and write the change as a new file; "+
				"if the database has that change already: DELETE FROM %s_sums WHERE version_id = %d", f.name, l.table, a.version)}
		}
	}
	return err
}

type applied struct {
	version int64
	sum     string
}

// applied returns the rows of a table that may be missing, with sum the expression for theirs.
func (l *migrateLocker) applied(ctx context.Context, conn *sql.Conn, table, sum string) ([]applied, error) {
	var n int
	if err := conn.QueryRowContext(ctx, l.exists, table).Scan(&n); err != nil || n == 0 {
		return nil, err
	}
	return Select(ctx, conn, func(row Row) (a applied, err error) {
		err = row.Scan(&a.version, &a.sum)
		return a, err
	}, "SELECT version_id, "+sum+" FROM "+table+" ORDER BY version_id")
}

// record keeps the checksums of what is applied.
func (l *migrateLocker) record(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+l.table+"_sums (version_id BIGINT PRIMARY KEY, sum TEXT NOT NULL)")
	for v, f := range l.known {
		if err == nil {
			_, err = conn.ExecContext(ctx, "INSERT INTO "+l.table+"_sums SELECT version_id, CAST($1 AS TEXT) FROM "+l.table+
				" WHERE version_id = $2 ON CONFLICT (version_id) DO NOTHING", f.sum, v)
		}
	}
	return err
}

// postgresLocker holds an advisory lock of the session.
type postgresLocker struct{ *migrateLocker }

func (l postgresLocker) SessionLock(ctx context.Context, conn *sql.Conn) error {
	for ok := false; !ok; {
		if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", migrateLock).Scan(&ok); err != nil {
			return err
		}
		if !ok && !steady.Sleep(ctx, migrateRetry) {
			return fmt.Errorf("waiting for another process that migrates: %w", ctx.Err())
		}
	}
	err := l.check(ctx, conn)
	if err != nil {
		return errors.Join(err, l.unlock(ctx, conn))
	}
	return nil
}

func (l postgresLocker) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	return errors.Join(l.record(ctx, conn), l.unlock(ctx, conn))
}

func (l postgresLocker) unlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", migrateLock)
	if err != nil {
		// The session may keep the lock; end it rather than pool it.
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	}
	return err
}

// sqliteLocker holds one write transaction from before the first look at the versions to the end,
// and the files' transactions become savepoints in it.
type sqliteLocker struct {
	*migrateLocker
	driver *dbDriver
}

func (l sqliteLocker) SessionLock(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, "PRAGMA foreign_keys=OFF"); err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		err := onGroup(conn, func(c GroupConn) error { return c.BeginGroup(ctx) })
		if err == nil {
			break
		}
		if !l.driver.Retryable(err) || !pause(ctx, attempt) {
			return errors.Join(err, keysOn(conn))
		}
	}
	if err := l.check(ctx, conn); err != nil {
		return errors.Join(err, l.end(conn, false))
	}
	return nil
}

func (l sqliteLocker) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	err := l.record(ctx, conn)
	if err == nil {
		err = foreignKeys(ctx, conn)
	}
	return errors.Join(err, l.end(conn, err == nil))
}

func (l sqliteLocker) end(conn *sql.Conn, commit bool) error {
	err := onGroup(conn, func(c GroupConn) error { return c.EndGroup(commit) })
	return errors.Join(err, keysOn(conn))
}

func keysOn(conn *sql.Conn) error {
	_, err := conn.ExecContext(context.Background(), "PRAGMA foreign_keys=ON")
	return err
}

// onGroup calls f with the connection behind conn.
func onGroup(conn *sql.Conn, f func(GroupConn) error) error {
	return conn.Raw(func(dc any) error {
		c, ok := dc.(GroupConn)
		if !ok {
			return fmt.Errorf("unexpected connection %T", dc)
		}
		return f(c)
	})
}

// foreignKeys names the first row that points nowhere.
func foreignKeys(ctx context.Context, conn *sql.Conn) error {
	_, err := Select(ctx, conn, func(row Row) (none struct{}, err error) {
		var table, parent string
		var rowid sql.NullInt64
		var key int
		if err := row.Scan(&table, &rowid, &parent, &key); err != nil {
			return none, err
		}
		return none, &ownError{fmt.Sprintf("the migrations leave row %d of %s without its row in %s (foreign key); nothing was applied",
			rowid.Int64, table, parent)}
	}, "PRAGMA foreign_key_check")
	return err
}
