package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
)

// The advisory lock that all migrations of one database share, and how often it is tried: a session that blocks in
// pg_advisory_lock would keep CREATE INDEX CONCURRENTLY of the one that migrates waiting for ever.
const (
	migrateLock  int64 = 0x6b61707461720001 // "kaptar", 1
	migrateRetry       = 100 * time.Millisecond
)

var tableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Migrate applies what is missing of the migrations of db's dialect, in the order of their numbers, and records them
// in the version table called table; "" means "schema_migrations".
//
// migrations holds migrations/sqlite/*.sql and migrations/postgres/*.sql, or those two folders at its root. A file is
// called 001_name.sql and written in goose's format, beginning with "-- +goose Up". Each file is applied in a transaction
// of its own, and the first that fails ends Migrate with an error that names the file and the database's complaint; the
// files before it stay applied, of itself nothing does.
//
// On SQLite foreign keys are not enforced while migrations run, so that tables can be rebuilt, and are all checked
// before the commit; "-- +goose NO TRANSACTION" is refused there. On PostgreSQL it is allowed, for statements like
// CREATE INDEX CONCURRENTLY; such a file can be left half applied.
//
// A database that has a version which migrations lack was migrated by a newer program, and is an error. Any number of
// processes may call Migrate at once: one works, the others wait until ctx ends.
func Migrate(ctx context.Context, db *sql.DB, migrations fs.FS, table string) error {
	d := driverOf(db)
	if d == nil {
		return errors.New("sqldb: migrate: the database was not opened by sqldb.Open")
	}
	if table == "" {
		table = "schema_migrations"
	}
	if !tableName.MatchString(table) {
		return fmt.Errorf("sqldb: migrate: version table %q: expected letters, digits and _", table)
	}
	dir, err := dialectDir(migrations, d.dialect)
	if err != nil {
		return err
	}
	locker := &migrateLocker{table: table}
	if locker.known, err = versions(dir, d.dialect); err != nil {
		return err
	}
	dialect := goose.DialectPostgres
	var session goose.ProviderOption
	if d.dialect == SQLite {
		dialect = goose.DialectSQLite3
		session = goose.WithSessionLocker(sqliteLocker{locker})
		if err := d.queue.acquire(ctx, true); err != nil { // our own writers need not see SQLITE_BUSY
			return fmt.Errorf("sqldb: migrate: %w", err)
		}
		defer d.queue.handOver(true)
	} else {
		session = goose.WithSessionLocker(postgresLocker{locker})
	}
	provider, err := goose.NewProvider(dialect, db, dir, session,
		goose.WithTableName(table), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("sqldb: migrate %s: %w", d.dialect, err)
	}
	applied, err := provider.Up(ctx)
	if err == nil && len(applied) == 0 { // goose takes no lock when it sees nothing to do, so nobody has looked yet
		err = locker.checkAlone(ctx, db, d.dialect)
	}
	if err != nil {
		return migrateError(d.dialect, err)
	}
	return nil
}

func migrateError(dialect Dialect, err error) error {
	if e, ok := errors.AsType[*ownError](err); ok {
		return fmt.Errorf("sqldb: migrate %s: %w", dialect, e)
	}
	if e, ok := errors.AsType[*goose.PartialError](err); ok {
		return fmt.Errorf("sqldb: migrate %s: %s: %w", dialect, path.Base(e.Failed.Source.Path), e.Err)
	}
	return fmt.Errorf("sqldb: migrate %s: %w", dialect, err)
}

// ownError is an error of ours that comes back through goose's wrapping.
type ownError struct{ text string }

func (e *ownError) Error() string { return e.text }

// dialectDir returns the folder of dialect, or an error that names the dialects that are there.
func dialectDir(migrations fs.FS, dialect Dialect) (fs.FS, error) {
	if migrations == nil {
		return nil, errors.New("sqldb: migrate: no migrations given")
	}
	for _, root := range []string{"migrations", "."} {
		dir := path.Join(root, string(dialect))
		if info, err := fs.Stat(migrations, dir); err == nil && info.IsDir() {
			return fs.Sub(migrations, dir)
		}
	}
	var have []string
	for _, root := range []string{"migrations", "."} {
		for _, known := range []Dialect{Postgres, SQLite} {
			if info, err := fs.Stat(migrations, path.Join(root, string(known))); err == nil && info.IsDir() {
				have = append(have, string(known))
			}
		}
	}
	if len(have) == 0 {
		return nil, fmt.Errorf("sqldb: migrate: no folder migrations/%s", dialect)
	}
	return nil, fmt.Errorf("sqldb: migrate: the database is %s, and there are migrations for %s only", dialect, strings.Join(have, ", "))
}

// versions returns the numbers of the files, and refuses files that goose would pass over or that cannot be safe.
func versions(dir fs.FS, dialect Dialect) (map[int64]string, error) {
	files, err := fs.Glob(dir, "*.sql")
	if err != nil {
		return nil, fmt.Errorf("sqldb: migrate: %w", err)
	}
	known := map[int64]string{}
	for _, file := range files {
		v, err := goose.NumericComponent(file)
		if err != nil {
			return nil, fmt.Errorf("sqldb: migrate %s: %s: expected a name like 001_create_users.sql", dialect, file)
		}
		if other, ok := known[v]; ok {
			return nil, fmt.Errorf("sqldb: migrate %s: %s and %s have the same number", dialect, other, file)
		}
		known[v] = file
		text, err := fs.ReadFile(dir, file)
		if err != nil {
			return nil, fmt.Errorf("sqldb: migrate %s: %w", dialect, err)
		}
		if dialect == SQLite && noTransaction.Match(text) {
			return nil, fmt.Errorf("sqldb: migrate %s: %s: NO TRANSACTION is not possible on sqlite", dialect, file)
		}
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("sqldb: migrate %s: the folder holds no .sql file", dialect)
	}
	return known, nil
}

var noTransaction = regexp.MustCompile(`(?mi)^\s*--\s*\+goose\s+NO\s+TRANSACTION\b`)

// migrateLocker is what both dialects do once they have the lock.
type migrateLocker struct {
	table string
	known map[int64]string
}

// These count the version table $1, 0 or 1.
const (
	countSQLiteTable   = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = $1"
	countPostgresTable = "SELECT count(*) FROM pg_catalog.pg_class WHERE oid = to_regclass($1)"
)

func (l *migrateLocker) checkAlone(ctx context.Context, db *sql.DB, dialect Dialect) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if dialect == SQLite {
		return l.checkVersions(ctx, conn, countSQLiteTable)
	}
	return l.checkVersions(ctx, conn, countPostgresTable)
}

// checkVersions finds versions in the database that no file has. exists counts the version table.
func (l *migrateLocker) checkVersions(ctx context.Context, conn *sql.Conn, exists string) error {
	var n int
	if err := conn.QueryRowContext(ctx, exists, l.table).Scan(&n); err != nil || n == 0 {
		return err
	}
	rows, err := conn.QueryContext(ctx, "SELECT version_id FROM "+l.table+" ORDER BY version_id")
	if err != nil {
		return err
	}
	defer rows.Close()
	var unknown []string
	for rows.Next() {
		var v int64
		if err := rows.Scan(&v); err != nil {
			return err
		}
		if v > 0 && l.known[v] == "" {
			unknown = append(unknown, strconv.FormatInt(v, 10))
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if unknown = slices.Compact(unknown); len(unknown) > 0 {
		return &ownError{"the database is newer than this program: it has version " + strings.Join(unknown, ", ") +
			" in " + l.table + ", which no file has; run the newer program or restore the older database"}
	}
	return nil
}

// postgresLocker holds an advisory lock of the session.
type postgresLocker struct{ *migrateLocker }

func (l postgresLocker) SessionLock(ctx context.Context, conn *sql.Conn) error {
	for {
		var ok bool
		if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", migrateLock).Scan(&ok); err != nil {
			return err
		}
		if ok {
			break
		}
		timer := time.NewTimer(migrateRetry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("waiting for another process that migrates: %w", ctx.Err())
		}
	}
	err := l.checkVersions(ctx, conn, countPostgresTable)
	if err != nil {
		return errors.Join(err, l.SessionUnlock(context.WithoutCancel(ctx), conn))
	}
	return nil
}

func (l postgresLocker) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", migrateLock)
	if err != nil {
		// The session may keep the lock; end it rather than pool it.
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	}
	return err
}

// sqliteLocker holds one write transaction from before the first look at the versions to the end, and the files'
// transactions become savepoints in it.
type sqliteLocker struct{ *migrateLocker }

func (l sqliteLocker) SessionLock(ctx context.Context, conn *sql.Conn) error {
	err := conn.Raw(func(dc any) error {
		c, ok := dc.(*liteConn)
		if !ok {
			return fmt.Errorf("unexpected connection %T", dc)
		}
		if err := c.exec(ctx, "PRAGMA foreign_keys=OFF"); err != nil {
			return err
		}
		for attempt := 1; ; attempt++ {
			err := c.beginGroup(ctx)
			if err == nil || !isBusy(err) || pause(ctx, attempt) != nil {
				return err
			}
		}
	})
	if err == nil {
		err = l.checkVersions(ctx, conn, countSQLiteTable)
	}
	if err != nil {
		return errors.Join(err, l.end(conn, func(c *liteConn) error { return c.exec(context.Background(), "ROLLBACK") }))
	}
	return nil
}

func (l sqliteLocker) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	broken := foreignKeys(ctx, conn)
	return l.end(conn, func(c *liteConn) error {
		if broken != nil {
			return errors.Join(broken, c.exec(ctx, "ROLLBACK"))
		}
		return c.endGroup()
	})
}

func (l sqliteLocker) end(conn *sql.Conn, finish func(*liteConn) error) error {
	return conn.Raw(func(dc any) error {
		c, ok := dc.(*liteConn)
		if !ok {
			return fmt.Errorf("unexpected connection %T", dc)
		}
		var err error
		if c.grouped {
			err = finish(c)
		}
		c.grouped, c.lost = false, false
		return errors.Join(err, c.exec(context.Background(), "PRAGMA foreign_keys=ON"))
	})
}

// foreignKeys names the first row that points nowhere.
func foreignKeys(ctx context.Context, conn *sql.Conn) error {
	rows, err := conn.QueryContext(ctx, "PRAGMA foreign_key_check")
	if err != nil {
		return err
	}
	defer rows.Close()
	if rows.Next() {
		var table, parent string
		var rowid sql.NullInt64
		var key int
		if err := rows.Scan(&table, &rowid, &parent, &key); err != nil {
			return err
		}
		return &ownError{fmt.Sprintf("the migrations leave row %d of %s without its row in %s (foreign key); nothing was applied",
			rowid.Int64, table, parent)}
	}
	return rows.Err()
}
