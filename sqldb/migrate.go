package sqldb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/pressly/goose/v3"
)

var tableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Migrate applies the migrations of db's dialect that db lacks, in the order of their numbers, and
// records them in the version table called table; "" means "schema_migrations".
//
// migrations holds migrations/sqlite/*.sql and migrations/postgres/*.sql, or those two folders at
// its root. A file is called 001_name.sql and written in goose's format: its statements follow a
// line "-- +goose Up". Each is applied in a transaction of its own. The first that fails ends
// Migrate with an error that names it and what the database said; the files before it stay applied.
//
// On SQLite foreign keys are checked only before the commit, so that tables can be rebuilt, and
// "-- +goose NO TRANSACTION" is refused. PostgreSQL allows it, for statements like CREATE INDEX
// CONCURRENTLY; such a file can be left half applied.
//
// A file that was edited after it was applied is an error: its checksum is kept in the table
// <table>_sums. So is a version in the database that no file has: a newer program has migrated it.
// Any number of processes may call Migrate at once: one works, the others wait until ctx ends.
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
	dir, err := dialectDir(migrations, d.Dialect)
	if err != nil {
		return err
	}
	locker := &migrateLocker{table: table, exists: countPostgresTable}
	if locker.known, err = readFiles(dir, d.Dialect); err != nil {
		return err
	}
	dialect := goose.DialectPostgres
	var session goose.ProviderOption
	if d.Dialect == SQLite {
		locker.exists = countSQLiteTable
		dialect = goose.DialectSQLite3
		session = goose.WithSessionLocker(sqliteLocker{locker, d})
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
		return fmt.Errorf("sqldb: migrate %s: %w", d.Dialect, err)
	}
	applied, err := provider.Up(ctx)
	if err == nil && len(applied) == 0 { // goose takes no lock when it sees nothing to do, so nobody has looked yet
		err = locker.checkAlone(ctx, db)
	}
	if err != nil {
		return migrateError(d.Dialect, err)
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
	var have []string
	for _, root := range []string{"migrations", "."} {
		for _, known := range []Dialect{Postgres, SQLite} {
			dir := path.Join(root, string(known))
			info, err := fs.Stat(migrations, dir)
			switch {
			case err != nil || !info.IsDir():
			case known == dialect:
				return fs.Sub(migrations, dir)
			default:
				have = append(have, string(known))
			}
		}
	}
	if len(have) == 0 {
		return nil, fmt.Errorf("sqldb: migrate: no folder migrations/%s", dialect)
	}
	return nil, fmt.Errorf("sqldb: migrate: the database is %s, and there are migrations for %s only", dialect, strings.Join(have, ", "))
}

// A file is one migration.
type file struct {
	name string
	sum  string // of its text without spaces around it, whatever its line ends are
}

// readFiles returns the files by number. It refuses those that goose would pass over and those that
// cannot be safe.
func readFiles(dir fs.FS, dialect Dialect) (map[int64]file, error) {
	names, err := fs.Glob(dir, "*.sql")
	if err != nil {
		return nil, fmt.Errorf("sqldb: migrate: %w", err)
	}
	known := map[int64]file{}
	for _, name := range names {
		v, err := goose.NumericComponent(name)
		if err != nil {
			return nil, fmt.Errorf("sqldb: migrate %s: %s: expected a name like 001_create_users.sql", dialect, name)
		}
		if other, ok := known[v]; ok {
			return nil, fmt.Errorf("sqldb: migrate %s: %s and %s have the same number", dialect, other.name, name)
		}
		text, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, fmt.Errorf("sqldb: migrate %s: %w", dialect, err)
		}
		if !gooseUp.Match(text) {
			return nil, fmt.Errorf("sqldb: migrate %s: %s: there is no line %q; put one above the statements", dialect, name, "-- +goose Up")
		}
		if dialect == SQLite && noTransaction.Match(text) {
			return nil, fmt.Errorf("sqldb: migrate %s: %s: NO TRANSACTION is not possible on sqlite", dialect, name)
		}
		text = bytes.TrimSpace(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")))
		known[v] = file{name, fmt.Sprintf("%x", sha256.Sum256(text))}
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("sqldb: migrate %s: the folder holds no .sql file", dialect)
	}
	return known, nil
}

var (
	gooseUp       = regexp.MustCompile(`(?mi)^\s*--\s*\+goose\s+Up\b`)
	noTransaction = regexp.MustCompile(`(?mi)^\s*--\s*\+goose\s+NO\s+TRANSACTION\b`)
)
