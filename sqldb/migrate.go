package sqldb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

var tableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Migrate applies the migrations of db's dialect that db lacks, in the order of their numbers, and
// records them in the version table called table; "" means "schema_migrations".
//
// migrations holds migrations/sqlite/*.sql and migrations/postgres/*.sql, or those two folders at
// its root. A file is called 001_name.sql and written in goose's format: its statements follow a
// line "-- +goose Up". Each is applied in a transaction of its own. The first that fails ends
// Migrate with an error that has its name, the line of the statement that ran last, unless the file
// has that twice, and what the database said; the files before it stay applied.
//
// On SQLite foreign keys are checked only before the commit, so that tables can be rebuilt, and
// "-- +goose NO TRANSACTION" is refused. PostgreSQL allows it, for statements like CREATE INDEX
// CONCURRENTLY; such a file can be left half applied.
//
// It is an error if a file was edited after it was applied: the table <table>_files has its
// checksum. Any number of processes may call Migrate at once. One of them works while the others
// wait, at most until ctx ends.
//
// During a release two versions of a program use one database. So if the database already has
// migrations, a file with a statement that would break the running version is refused, unless the
// file has the line
//
//	-- kaptar:contract NUMBER REASON
//
// NUMBER is the oldest migration whose programs still work after this file; it is the file's own
// number if no older program does. It is kept in <table>_files: an older program starts on the
// database of a newer one if it has the migration NUMBER of each newer file. [CheckMigrations]
// finds in a test what Migrate would refuse.
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
	locker := &migrateLocker{dialect: d.Dialect, table: table, exists: countPostgresTable}
	if locker.known, err = readFiles(dir, d.Dialect); err != nil {
		return err
	}
	dialect := goose.DialectPostgres
	session := lock.SessionLocker(postgresLocker{locker})
	if d.Dialect == SQLite {
		locker.exists = countSQLiteTable
		dialect = goose.DialectSQLite3
		session = sqliteLocker{locker, d}
		if err := d.queue.acquire(ctx, true); err != nil { // so that our own writers do not get SQLITE_BUSY
			return fmt.Errorf("sqldb: migrate: %w", err)
		}
		defer d.queue.handOver(true)
	}
	if err := locker.checkAlone(ctx, db, session); err != nil || !locker.pending {
		return locker.explain("", err)
	}
	var last lastStatement
	provider, err := goose.NewProvider(dialect, db, dir, goose.WithSessionLocker(session), goose.WithLogger(&last), goose.WithVerbose(true),
		goose.WithTableName(table), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return locker.explain("", err)
	}
	applied, err := provider.Up(ctx)
	if err == nil && len(applied) == 0 { // another process was faster; goose took no lock, and so nobody has looked at what that applied
		err = locker.checkAlone(ctx, db, session)
	}
	return locker.explain(string(last), err)
}

// A lastStatement is a logger of goose, whose errors do not have the statement that failed.
type lastStatement string

func (l *lastStatement) Printf(_ string, args ...any) {
	if statement, ok := strings.CutPrefix(fmt.Sprint(args...), "Executing statement: "); ok {
		*l = lastStatement(statement)
	}
}

func (*lastStatement) Fatalf(string, ...any) {}

// explain returns the error of Migrate for one of goose, and nil for nil. last is the statement that
// ran last.
func (l *migrateLocker) explain(last string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*ownError](err); ok {
		return fmt.Errorf("sqldb: migrate %s: %w", l.dialect, e)
	}
	if e, ok := errors.AsType[*goose.PartialError](err); ok {
		f := l.known[e.Failed.Source.Version]
		at := f.name
		if before, after, found := strings.Cut(f.text, last); found && !strings.Contains(after, last) {
			at += fmt.Sprintf(":%d", 1+strings.Count(before, "\n"))
		}
		return fmt.Errorf("sqldb: migrate %s: %s: %w", l.dialect, at, e.Err)
	}
	return fmt.Errorf("sqldb: migrate %s: %w", l.dialect, err)
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
		return nil, fmt.Errorf("sqldb: migrate: no folder migrations/%s: it has the service's .sql files for that kind of database", dialect)
	}
	return nil, fmt.Errorf("sqldb: migrate: the database is %s, and there are migrations for %s only", dialect, strings.Join(have, ", "))
}

// CheckMigrations returns an error for every statement that would break the running version of a
// program while the next one migrates the database, in the files of all dialects that have no line
// -- kaptar:contract (see [Migrate]). Call it in a test. Tables that the same file creates are not
// in use yet, so a first schema passes.
//
// It looks at the kind of each statement, not at its meaning. It does not find an UPDATE that
// breaks the running version, or what a called function does.
func CheckMigrations(migrations fs.FS) error {
	var errs []error
	var none error
	found := false
	for _, dialect := range []Dialect{Postgres, SQLite} {
		dir, err := dialectDir(migrations, dialect)
		if err != nil {
			none = err
			continue
		}
		found = true
		known, err := readFiles(dir, dialect)
		errs = append(errs, err)
		for _, v := range slices.Sorted(maps.Keys(known)) {
			if err := known[v].review(v, dialect); err != nil {
				errs = append(errs, fmt.Errorf("sqldb: migrate %s: %w", dialect, err))
			}
			for _, b := range known[v].breaks {
				errs = append(errs, fmt.Errorf("sqldb: migrate %s: %s", dialect, b))
			}
		}
	}
	if !found {
		return none
	}
	return errors.Join(errs...)
}

// A file is one migration.
type file struct {
	name   string
	text   string   // with line ends of one byte
	sum    string   // of its trimmed text
	needs  int64    // the migration that a program must have to work after it
	breaks []string // errors about statements that break a running version
}

// review fills in needs and breaks of the file, whose number is v. It refuses a file that goose would
// ignore, and an unsafe one.
func (f *file) review(v int64, dialect Dialect) error {
	text, marked := f.text, false
	f.needs, f.breaks = 0, nil
	up := gooseUp.FindStringIndex(text)
	switch {
	case up == nil:
		return &ownError{fmt.Sprintf("%s: there is no line %q; put one above the statements", f.name, "-- +goose Up")}
	case dialect == SQLite && noTransaction.MatchString(text):
		return &ownError{f.name + ": NO TRANSACTION is not possible on sqlite"}
	}
	for _, m := range mark.FindAllStringSubmatch(text, -1) {
		marked = true
		needs, err := strconv.ParseInt(m[2], 10, 64)
		if m[1] != "contract" || err != nil || needs < 1 || needs > v || m[3] == "" {
			return &ownError{fmt.Sprintf("%s: %q: expected -- kaptar:contract NUMBER REASON, with the number of this migration or one before",
				f.name, strings.TrimSpace(m[0]))}
		}
		f.needs = max(f.needs, needs)
	}
	from := up[1]
	if down := gooseDown.FindStringIndex(text); down != nil && down[0] > from {
		text = text[:down[0]]
	}
	all, err := statements(text[from:], dialect)
	if err != nil {
		return &ownError{fmt.Sprintf("%s: after -- +goose Up: %v", f.name, err)}
	}
	r := review{dialect, map[string]bool{}}
	for _, s := range all {
		if why := r.breaks(s.norm); why != "" && !marked {
			f.needs = v
			f.breaks = append(f.breaks, fmt.Sprintf("%s:%d: %.100s: %s; "+
				"or mark the file with -- kaptar:contract NUMBER REASON, once no version that it breaks runs any more",
				f.name, s.line+strings.Count(text[:from], "\n"), strings.Join(strings.Fields(s.text), " "), why))
		}
	}
	return nil
}

// readFiles returns the files by number, unreviewed. It refuses names that goose would ignore.
func readFiles(dir fs.FS, dialect Dialect) (map[int64]*file, error) {
	names, err := fs.Glob(dir, "*.sql")
	if err != nil {
		return nil, fmt.Errorf("sqldb: migrate: %w", err)
	}
	known := map[int64]*file{}
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
		text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
		known[v] = &file{name: name, text: string(text), sum: fmt.Sprintf("%x", sha256.Sum256(bytes.TrimSpace(text)))}
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("sqldb: migrate %s: the folder holds no .sql file", dialect)
	}
	return known, nil
}

var (
	mark          = regexp.MustCompile(`(?mi)^[ \t]*--[ \t]*kaptar:(\S*)[ \t]*(\S*)[ \t]*(.*)$`)
	gooseDown     = regexp.MustCompile(`(?mi)^\s*--\s*\+goose\s+Down\b`)
	gooseUp       = regexp.MustCompile(`(?mi)^\s*--\s*\+goose\s+Up\b`)
	noTransaction = regexp.MustCompile(`(?mi)^\s*--\s*\+goose\s+NO\s+TRANSACTION\b`)
)
