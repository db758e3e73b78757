// Package sqlite is SQLite as a database of package sqldb, without cgo:
//
//	import _ "github.com/kaptar/kaptar/drivers/sqlite"
//
// Its URLs are
//
//	sqlite:shop.db            a file, relative to the working directory; missing parent folders are created
//	sqlite:/var/lib/shop.db   the same, absolute (sqlite:///var/lib/shop.db too)
//	sqlite::memory:           in memory, gone at Close; it has one connection, so a query outside of an open
//	                          transaction or beside open rows waits until its context ends
//
// A URL takes no parameters. New files are readable and writable by their user alone (0600), new
// folders too (0700).
//
// Connections have journal_mode=WAL, synchronous=FULL, foreign_keys=ON and busy_timeout=5000, and
// begin transactions with BEGIN IMMEDIATE unless they are read-only. At most 8 are open.
//
// Several processes of one machine may share a file, as two versions of a service do during a
// release. Each shares commits among its own writers. Writers of different processes wait for each
// other by polling, up to 100 ms apart, so many writers in several processes are slower than in
// one.
package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/sqldb"
)

const (
	maxConns    = 8
	openTries   = 6
	busyTimeout = 5 * time.Second
	params      = "?_busy_timeout=5000&_journal_mode=WAL&_synchronous=FULL&_foreign_keys=on&_txlock=immediate"
)

// SQLite before 3.51.3 can corrupt the write-ahead log. This does not compile with one.
const _ uint = sqlite3.SQLITE_VERSION_NUMBER - 3_051_003

func init() {
	sqldb.Register(dialect(), "sqlite")
}

func dialect() *sqldb.Driver {
	return &sqldb.Driver{Dialect: sqldb.SQLite, Open: open, Unique: unique, Retryable: isBusy}
}

func open(ctx context.Context, rawURL string) (*sql.DB, error) {
	path, err := pathOf(strings.TrimPrefix(rawURL, "sqlite:"))
	if err != nil {
		return nil, err
	}
	name := ":memory:"
	if path != "" {
		name = path
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("sqldb: open sqlite:%s: create its directory: %w", path, err)
		}
		// SQLite gives the files beside it the same mode. If this fails SQLite fails too, with an
		// error that is explained. An existing file is not opened: closing it would drop the locks
		// of SQLite in this process (POSIX).
		if f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			_ = f.Close()
		}
	}
	inner, err := sqlite.NewConnector(name + params)
	if err != nil {
		return nil, fmt.Errorf("sqldb: open sqlite:%s: %w", name, err)
	}
	db := sqldb.OpenDB(dialect(), func(ctx context.Context) (driver.Conn, error) {
		c, err := inner.Connect(ctx)
		if err != nil {
			return nil, err
		}
		return newConn(c)
	})
	conns := maxConns
	if path == "" {
		conns = 1 // each would be a database of its own
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	if err := verify(ctx, db, path); err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

// pathOf returns the absolute path, or "" for memory. Its errors omit what may be a password.
func pathOf(rest string) (string, error) {
	path := rest
	rest, _, _ = strings.Cut(redact.URL(rest), "?")
	if after, ok := strings.CutPrefix(path, "//"); ok {
		if !strings.HasPrefix(after, "/") {
			return "", fmt.Errorf("sqldb: open sqlite:%s: a host is not possible; write sqlite:%s", rest, strings.TrimPrefix(rest, "//"))
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

// verify makes the first connection and checks its settings. When several processes turn a new file
// into WAL mode it can fail with SQLITE_BUSY at once, so that is retried.
func verify(ctx context.Context, db *sql.DB, path string) error {
	var err error
	for n := range openTries {
		err = check(ctx, db, path != "")
		if !isBusy(err) || !steady.Sleep(ctx, steady.Delay(n, 10*time.Millisecond, busyTimeout)) {
			break
		}
	}
	if err == nil {
		return nil
	}
	if path == "" {
		path = ":memory:"
	}
	return fmt.Errorf("sqldb: open sqlite:%s: %w", path, explain(err, path))
}

func check(ctx context.Context, db *sql.DB, file bool) error {
	var journal string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&journal); err != nil {
		return err
	}
	if file && journal != "wal" {
		return fmt.Errorf("journal_mode is %s, expected wal: does the file system support shared memory?", journal)
	}
	// SQLite opens a read-only file without an error; a write transaction finds out.
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	return tx.Rollback()
}

// explain says what to do about the codes that opening can fail with.
func explain(err error, path string) error {
	dir := filepath.Dir(path)
	switch codeOf(err) & 0xff {
	case sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("the file exists and is no SQLite database: %w", err)
	case sqlite3.SQLITE_CANTOPEN:
		if info, statErr := os.Stat(path); statErr == nil && info.IsDir() {
			return fmt.Errorf("it is a directory, expected a file: %w", err)
		}
		return fmt.Errorf("the file cannot be opened; is the directory %s writable by this user? %w", dir, err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return fmt.Errorf("it is read-only; the file and the directory %s must be writable by this user: %w", dir, err)
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR:
		return fmt.Errorf("the file system of %s is full, or fails: %w", dir, err)
	case sqlite3.SQLITE_BUSY:
		return fmt.Errorf("another process keeps it locked: %w", err)
	}
	return err
}

// codeOf returns the extended result code of SQLite in err's chain, or 0.
func codeOf(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

func isBusy(err error) bool {
	code := codeOf(err) & 0xff
	return code == sqlite3.SQLITE_BUSY || code == sqlite3.SQLITE_LOCKED
}

// unique reads "constraint failed: UNIQUE constraint failed: users.a, users.b (2067)".
func unique(err error) (columns string, ok bool) {
	switch codeOf(err) {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID:
	default:
		return "", false
	}
	lite, _ := errors.AsType[*sqlite.Error](err)
	_, text, _ := strings.Cut(lite.Error(), "UNIQUE constraint failed: ")
	if i := strings.LastIndex(text, " ("); i >= 0 {
		text = text[:i]
	}
	if name, ok := strings.CutPrefix(text, "index '"); ok {
		return strings.TrimSuffix(name, "'"), true
	}
	return strings.ReplaceAll(text, ", ", ","), true
}
