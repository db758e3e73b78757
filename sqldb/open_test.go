package sqldb_test

import (
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/sqldb"
)

func TestOpenSQLiteSettings(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a", "b", "shop.db")
	db := open(t, "sqlite:"+path)
	var held []*sql.Conn
	for range 3 { // every connection of the pool, not only the first
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
		for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000"} {
			var got string
			if err := conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
				t.Errorf("PRAGMA %s = %q, %v; want %q", pragma, got, err, want)
			}
		}
	}
	for _, conn := range held {
		conn.Close()
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("Open made no file: %v", err)
	}
	if got := sqldb.DialectOf(db); got != sqldb.SQLite {
		t.Errorf("DialectOf = %q, want sqlite", got)
	}
}

// A transaction has the write lock from its beginning: a second one cannot begin, where a deferred
// one could.
func TestOpenSQLiteBeginsImmediate(t *testing.T) {
	t.Parallel()
	url := "sqlite:" + filepath.Join(t.TempDir(), "x.db")
	a, b := open(t, url), open(t, url)
	tx, err := a.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	exec(t, b, "PRAGMA busy_timeout=1")
	b.SetMaxOpenConns(1)
	conn, err := b.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "PRAGMA busy_timeout=1"); err != nil {
		t.Fatal(err)
	}
	if tx, err := conn.BeginTx(t.Context(), nil); err == nil {
		tx.Rollback()
		t.Error("a second write transaction began beside the first, want SQLITE_BUSY")
	}
	ro, err := conn.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatalf("a read-only transaction beside a writer: %v, want none", err)
	}
	ro.Rollback()
}

func TestOpenMemory(t *testing.T) {
	t.Parallel()
	db := open(t, "sqlite::memory:")
	exec(t, db, "CREATE TABLE a (n BIGINT)")
	exec(t, db, "INSERT INTO a VALUES (1)")
	if n := count(t, db, "a"); n != 1 {
		t.Errorf("rows = %d, want 1: another connection got another database", n)
	}
	if n := count(t, open(t, "sqlite::memory:"), "sqlite_schema"); n != 0 {
		t.Errorf("a second :memory: has %d tables, want 0", n)
	}
}

func TestDialectOfForeign(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if got := sqldb.DialectOf(db); got != "" {
		t.Errorf("DialectOf(foreign) = %q, want none", got)
	}
	if got := sqldb.DialectOf(nil); got != "" {
		t.Errorf("DialectOf(nil) = %q, want none", got)
	}
	if err := sqldb.InTx(t.Context(), db, nil); err == nil {
		t.Error("InTx on a foreign database: no error")
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "text.db")
	if err := os.WriteFile(file, []byte(strings.Repeat("this is no database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ url, want string }{
		{"mysql://u:secret@h/db", `scheme "mysql": expected sqlite or postgres`},
		{"shop.db", `expected "sqlite:path" or "postgres://…"`},
		{"", `expected "sqlite:path"`},
		{"sqlite:", "no path"},
		{"sqlite://data/shop.db", "write sqlite:data/shop.db"},
		{"sqlite:shop.db?mode=ro", "takes no parameters"},
		{"sqlite:" + file, "is no SQLite database"},
		{"sqlite:" + dir, "it is a directory"},
		{"sqlite:" + file + "/shop.db", "create its directory"},
	} {
		db, err := sqldb.Open(t.Context(), c.url)
		if err == nil {
			db.Close()
			t.Errorf("Open(%q): no error, want %q", c.url, c.want)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "sqldb: ") || strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q): %v; want it to start with sqldb:, to hold %q and no secret", c.url, err, c.want)
		}
	}
}

func TestOpenUnwritableDirectory(t *testing.T) {
	t.Parallel()
	dir := "/proc" // nobody can make a file there, not even root
	if os.Geteuid() != 0 {
		dir = t.TempDir()
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
	}
	db, err := sqldb.Open(t.Context(), "sqlite:"+dir+"/shop.db")
	if err == nil {
		db.Close()
		t.Fatalf("Open in %s: no error", dir)
	}
	if want := "is the directory " + dir + " writable"; !strings.Contains(err.Error(), want) {
		t.Errorf("Open in an unwritable directory: %v; want %q", err, want)
	}
}

func TestOpenPostgresHidesPassword(t *testing.T) {
	t.Parallel()
	const password = "s3cr3t/p:w d%&"
	good := servertest.Database(t)
	wrong, err := url.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	wrong.User = url.UserPassword("postgres", password)
	inQuery, _ := url.Parse(good)
	inQuery.User = url.User("postgres")
	inQuery.RawQuery += "&password=" + url.QueryEscape(password)
	for name, u := range map[string]string{
		"wrong password":       wrong.String(),
		"in the query":         inQuery.String(),
		"unknown sslmode":      strings.Replace(wrong.String(), "sslmode=disable", "sslmode=perhaps", 1),
		"malformed, unescaped": "postgres://postgres:s3cr3t/p:w d%&@127.0.0.1/db",
		"bad port":             "postgres://postgres:s3cr3t@127.0.0.1:port/db",
		"nobody listens":       "postgres://postgres:s3cr3t@127.0.0.1:1/db?sslmode=disable",
	} {
		db, err := sqldb.Open(t.Context(), u)
		if err == nil {
			db.Close()
			t.Errorf("%s: no error", name)
			continue
		}
		if strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), url.QueryEscape(password)) {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
		if !strings.HasPrefix(err.Error(), "sqldb: open") {
			t.Errorf("%s: %v; want sqldb: open …", name, err)
		}
	}
}

func TestOpenPostgresRefusesRelaxedDurability(t *testing.T) {
	t.Parallel()
	u := servertest.Database(t)
	db := open(t, u)
	if got := sqldb.DialectOf(db); got != sqldb.Postgres {
		t.Errorf("DialectOf = %q, want postgres", got)
	}
	if got := db.Stats().MaxOpenConnections; got != 20 {
		t.Errorf("MaxOpenConnections = %d, want 20", got)
	}
	_, err := sqldb.Open(t.Context(), u+"&synchronous_commit=off")
	if err == nil || !strings.Contains(err.Error(), "synchronous_commit=off") {
		t.Errorf("Open with synchronous_commit=off: %v; want it refused", err)
	}
}

// Handlers that run side by side, again and again, must not make the pool close connections only to
// open new ones.
func TestPostgresKeepsConnections(t *testing.T) {
	t.Parallel()
	db := open(t, servertest.Database(t))
	for range 3 {
		var conns []*sql.Conn
		for range 16 {
			conn, err := db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := db.Stats().MaxIdleClosed; got != 0 {
		t.Errorf("%d connections were closed because others were idle, want 0", got)
	}
}
