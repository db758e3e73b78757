package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	minSQLite      = "3.51.3"
	sqliteMaxConns = 8
	busyTimeout    = 5 * time.Second
)

// openSQLite opens what follows "sqlite:" in a URL.
func openSQLite(ctx context.Context, rest string) (*sql.DB, error) {
	path, err := sqlitePath(rest)
	if err != nil {
		return nil, err
	}
	name := ":memory:"
	if path != "" {
		name = path
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return nil, fmt.Errorf("sqldb: open sqlite:%s: create its directory: %w", path, err)
		}
	}
	inner, err := sqlite.NewConnector(name + "?" + sqliteParams())
	if err != nil {
		return nil, fmt.Errorf("sqldb: open sqlite:%s: %w", name, err)
	}
	d := &dbDriver{dialect: SQLite, queue: &writeQueue{}}
	d.open = func(ctx context.Context) (driver.Conn, error) {
		c, err := inner.Connect(ctx)
		if err != nil {
			return nil, err
		}
		return newLiteConn(c)
	}
	db := sql.OpenDB(connector{d})
	if path == "" {
		db.SetMaxOpenConns(1) // each connection would be a database of its own
		db.SetMaxIdleConns(1)
	} else {
		db.SetMaxOpenConns(sqliteMaxConns)
		db.SetMaxIdleConns(sqliteMaxConns)
	}
	if err := verifySQLite(ctx, db, path); err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

// sqlitePath returns the absolute path of the file, or "" for memory.
func sqlitePath(rest string) (string, error) {
	path := rest
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		if !strings.HasPrefix(after, "/") {
			return "", fmt.Errorf("sqldb: open sqlite:%s: a host is not possible; write sqlite:%s", rest, after)
		}
		path = after
	}
	switch {
	case path == ":memory:":
		return "", nil
	case path == "":
		return "", errors.New(`sqldb: open sqlite: no path; expected "sqlite:path" or "sqlite::memory:"`)
	case strings.ContainsAny(path, "?#\x00"):
		return "", fmt.Errorf("sqldb: open sqlite:%s: the URL takes no parameters, and a path has none of ? and #", rest)
	}
	abs, err := filepath.Abs(path) // the working directory may change between connections
	if err != nil {
		return "", fmt.Errorf("sqldb: open sqlite:%s: %w", rest, err)
	}
	return abs, nil
}

func sqliteParams() string {
	return url.Values{
		"_busy_timeout": {strconv.FormatInt(busyTimeout.Milliseconds(), 10)},
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_foreign_keys": {"on"},
		"_txlock":       {"immediate"},
	}.Encode()
}

// verifySQLite makes the first connection and checks that it is what Open promises. Turning a new file into WAL mode
// can fail with SQLITE_BUSY at once when several processes do it, whatever the busy timeout, so that is tried again.
func verifySQLite(ctx context.Context, db *sql.DB, path string) error {
	var err error
	for attempt := range maxRetries + 1 {
		if attempt > 0 && pause(ctx, attempt) != nil {
			break
		}
		if err = checkSQLite(ctx, db, path != ""); !isBusy(err) {
			break
		}
	}
	if err == nil {
		return nil
	}
	if path == "" {
		path = ":memory:"
	}
	return fmt.Errorf("sqldb: open sqlite:%s: %w", path, explainSQLite(err, path))
}

func checkSQLite(ctx context.Context, db *sql.DB, file bool) error {
	var version, journal string
	if err := db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version); err != nil {
		return err
	}
	if !versionAtLeast(version, minSQLite) {
		return fmt.Errorf("SQLite %s is linked, %s or newer is needed: earlier ones can corrupt the write-ahead log", version, minSQLite)
	}
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&journal); err != nil {
		return err
	}
	if file && journal != "wal" {
		return fmt.Errorf("journal_mode is %s, expected wal: does the file system support shared memory?", journal)
	}
	// SQLite opens a file that it may only read without a word; a write transaction tells.
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	return tx.Rollback()
}

// explainSQLite says what a user can do about the codes that are met at open.
func explainSQLite(err error, path string) error {
	dir := filepath.Dir(path)
	switch sqliteCode(err) & 0xff {
	case sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("the file exists and is no SQLite database: %w", err)
	case sqlite3.SQLITE_CANTOPEN:
		if info, statErr := os.Stat(path); statErr == nil && info.IsDir() {
			return fmt.Errorf("it is a directory, expected a file: %w", err)
		}
		return fmt.Errorf("the file cannot be opened; is the directory %s writable by this user? %w", dir, err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return fmt.Errorf("it is read-only; the file and the directory %s must be writable by this user: %w", dir, err)
	case sqlite3.SQLITE_BUSY:
		return fmt.Errorf("another process keeps it locked: %w", err)
	}
	return err
}

// sqliteCode returns the extended result code of SQLite in err's chain, 0 when there is none.
func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

func isBusy(err error) bool {
	code := sqliteCode(err) & 0xff
	return code == sqlite3.SQLITE_BUSY || code == sqlite3.SQLITE_LOCKED
}

// versionAtLeast compares dotted numbers; a part that is no number counts as 0.
func versionAtLeast(version, least string) bool {
	v, l := strings.Split(version, "."), strings.Split(least, ".")
	for i := range max(len(v), len(l)) {
		a, b := part(v, i), part(l, i)
		if a != b {
			return a > b
		}
	}
	return true
}

func part(s []string, i int) int {
	if i >= len(s) {
		return 0
	}
	n, _ := strconv.Atoi(s[i])
	return n
}
