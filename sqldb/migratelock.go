package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pressly/goose/v3/lock"

	"github.com/kaptar/kaptar/internal/steady"
)

// The advisory lock that all migrations of one database share, and how often it is tried. A session
// that blocks in pg_advisory_lock would keep CREATE INDEX CONCURRENTLY of the session that migrates
// waiting for ever.
const (
	migrateLock  int64 = 0x6b61707461720001 // "kaptar", 1
	migrateRetry       = 100 * time.Millisecond
)

// These return 1 if the table $1 exists, else 0.
const (
	countSQLiteTable   = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = $1"
	countPostgresTable = "SELECT count(*) FROM pg_catalog.pg_class WHERE oid = to_regclass($1)"
)

// migrateLocker is what both dialects do once they have the lock.
type migrateLocker struct {
	dialect Dialect
	table   string
	exists  string // counts a table
	known   map[int64]*file

	// Of the last check: files are not applied yet, and applied ones are not recorded yet. These alone
	// are reviewed, for the others were before they were applied.
	pending, unrecorded bool
}

// checkAlone is check without the lock. It takes the lock and checks again unless all is well: on
// PostgreSQL another process may be about to record what it has applied, or was killed before it did.
func (l *migrateLocker) checkAlone(ctx context.Context, db *sql.DB, session lock.SessionLocker) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := l.check(ctx, conn); err == nil && !l.unrecorded {
		return nil
	}
	if err := session.SessionLock(ctx, conn); err != nil {
		return err
	}
	return session.SessionUnlock(ctx, conn)
}

// check returns an error for versions in the database after which this program does not work, for
// files edited since they were applied, and for pending files that would break a running version.
func (l *migrateLocker) check(ctx context.Context, conn *sql.Conn) error {
	versions, err := l.applied(ctx, conn, l.table, "'', 0")
	if err != nil {
		return err
	}
	records, err := l.applied(ctx, conn, l.table+"_files", "sum, needs")
	if err != nil {
		return err
	}
	pending := maps.Clone(l.known)
	l.unrecorded = false
	for v := range versions {
		record, recorded := records[v]
		f, known := l.known[v]
		_, lives := l.known[record.needs]
		delete(pending, v)
		switch {
		case v == 0: // goose's own
		case !known && (!recorded || record.needs > 0 && !lives):
			return &ownError{fmt.Sprintf("the database is newer than this program: it has version %d in %s, after which only programs with migration %d work; "+
				"run the newer program or restore the older database", v, l.table, cmp.Or(record.needs, v))}
		case known && !recorded:
			l.unrecorded = true
			if err := f.review(v, l.dialect); err != nil {
				return err
			}
		case known && f.sum != record.sum:
			return &ownError{fmt.Sprintf("%s was edited after it was applied: put it back as it was, and write the change as a new file; "+
				"if the database has that change already: DELETE FROM %s_files WHERE version_id = %d", f.name, l.table, v)}
		}
	}
	l.pending = len(pending) > 0
	used := len(pending) < len(l.known) // else the database is new
	for _, v := range slices.Sorted(maps.Keys(pending)) {
		if err := pending[v].review(v, l.dialect); err != nil {
			return err
		}
		if used && len(pending[v].breaks) > 0 {
			return &ownError{"a running version would break, nothing was applied: " + strings.Join(pending[v].breaks, "; ")}
		}
	}
	return nil
}

// applied returns the rows of a table that may be missing. columns are expressions for sum and
// needs.
func (l *migrateLocker) applied(ctx context.Context, conn *sql.Conn, table, columns string) (map[int64]file, error) {
	var n int
	if err := conn.QueryRowContext(ctx, l.exists, table).Scan(&n); err != nil || n == 0 {
		return nil, err
	}
	byVersion := map[int64]file{}
	_, err := Select(ctx, conn, func(row Row) (v int64, err error) {
		var f file
		err = row.Scan(&v, &f.sum, &f.needs)
		byVersion[v] = f
		return v, err
	}, "SELECT version_id, "+columns+" FROM "+table)
	return byVersion, err
}

// record stores the checksums of what is applied, and which programs work after it.
func (l *migrateLocker) record(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+l.table+"_files (version_id BIGINT PRIMARY KEY, sum TEXT NOT NULL, needs BIGINT NOT NULL)")
	for v, f := range l.known {
		if err == nil {
			_, err = conn.ExecContext(ctx, "INSERT INTO "+l.table+"_files SELECT DISTINCT version_id, CAST($1 AS TEXT), CAST($2 AS BIGINT) FROM "+l.table+
				" WHERE version_id = $3 ON CONFLICT (version_id) DO NOTHING", f.sum, f.needs, v)
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

// sqliteLocker holds one write transaction from before the versions are read to the end. The files'
// transactions are savepoints in it.
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

// foreignKeys returns an error with the first row whose foreign key has no target.
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
