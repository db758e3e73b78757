package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
)

// Dialect names the SQL that a database speaks. It is also the name of its folder of migrations.
type Dialect string

// The dialects that Open knows.
const (
	SQLite   Dialect = "sqlite"
	Postgres Dialect = "postgres"
)

// Open opens the database at url, verifies the connection and its durability settings, and returns it.
// The caller closes it.
//
//	sqlite:shop.db            a file, relative to the working directory; missing parent folders are created
//	sqlite:/var/lib/shop.db   the same, absolute (sqlite:///var/lib/shop.db too)
//	sqlite::memory:           in memory, gone at Close; one connection, so a query beside an open transaction or open rows waits for ever
//	postgres://user:password@host:5432/db?sslmode=…   as libpq and pgx understand it (postgresql:// too)
//
// SQLite connections have journal_mode=WAL, synchronous=FULL, foreign_keys=ON and busy_timeout=5000, begin transactions
// with BEGIN IMMEDIATE unless they are read-only, and the library must be 3.51.3 or newer (older ones can corrupt a
// WAL file). Up to 8 connections are open.
//
// PostgreSQL pools hold at most 20 connections, 10 of them idle for up to 5 minutes, each for up to 30 minutes; set
// others on the returned value. To connect takes at most 10 seconds unless the URL has a connect_timeout. A server with
// fsync=off, or a session with synchronous_commit=off, is refused.
//
// The error never holds the password.
func Open(ctx context.Context, url string) (*sql.DB, error) {
	scheme, rest, found := strings.Cut(url, ":")
	switch {
	case found && scheme == "sqlite":
		return openSQLite(ctx, rest)
	case found && (scheme == "postgres" || scheme == "postgresql"):
		return openPostgres(ctx, url)
	case !found:
		return nil, errors.New(`sqldb: open: no scheme in the database URL; expected "sqlite:path" or "postgres://…"`)
	}
	return nil, fmt.Errorf("sqldb: open: unknown scheme %q; known are sqlite and postgres", scheme)
}

// DialectOf returns the dialect of a database that Open opened, and "" for any other.
func DialectOf(db *sql.DB) Dialect {
	if d := driverOf(db); d != nil {
		return d.dialect
	}
	return ""
}

// dbDriver is what (*sql.DB).Driver returns for our databases: the one place to keep what belongs to one *sql.DB.
type dbDriver struct {
	dialect Dialect
	open    func(ctx context.Context) (driver.Conn, error)
	queue   *writeQueue // SQLite only
	leases  localLeases // SQLite only
}

func driverOf(db *sql.DB) *dbDriver {
	if db == nil {
		return nil
	}
	d, _ := db.Driver().(*dbDriver)
	return d
}

// Open is there for the interface; the name is ignored because the driver belongs to one database.
func (d *dbDriver) Open(string) (driver.Conn, error) { return d.open(context.Background()) }

// connector opens connections of one database.
type connector struct{ driver *dbDriver }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) { return c.driver.open(ctx) }
func (c connector) Driver() driver.Driver                            { return c.driver }
