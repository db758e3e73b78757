package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"strings"
)

// Dialect names the SQL that a database speaks. It is also the name of its folder of migrations.
type Dialect string

// The dialects that Open knows.
const (
	SQLite   Dialect = "sqlite"
	Postgres Dialect = "postgres"
)

// Open opens the database at url by the driver that the program imports for its scheme, verifies
// the connection and its durability settings, and returns it. The caller closes it.
//
//	import _ "github.com/kaptar/kaptar/drivers/sqlite"     sqlite:shop.db, sqlite::memory:
//	import _ "github.com/kaptar/kaptar/drivers/postgres"   postgres://user:password@host:5432/db
//
// The packages describe their URLs and settings. The error for a driver that is not linked names
// the import. No error holds a password.
func Open(ctx context.Context, url string) (*sql.DB, error) {
	scheme, _, found := strings.Cut(url, ":")
	if !found {
		return nil, errors.New(`sqldb: open: no scheme in the database URL; expected "sqlite:path" or "postgres://…"`)
	}
	d, err := driverFor(scheme)
	if err != nil {
		return nil, err
	}
	return d.Open(ctx, url)
}

// DialectOf returns the dialect of a database that Open opened, and "" for any other.
func DialectOf(db *sql.DB) Dialect {
	if d := driverOf(db); d != nil {
		return d.Dialect
	}
	return ""
}

// Away reports whether err means that the database cannot be reached or does not serve at the
// moment, so that a later attempt may succeed. It is false for an answer of the database.
func Away(err error) bool {
	registry.RLock()
	defer registry.RUnlock()
	for _, d := range registry.drivers {
		if d.Away != nil && d.Away(err) {
			return true
		}
	}
	return false
}

// Constraint reports whether err is a violation of a primary key or unique constraint. It returns
// the columns in the same form for both dialects: "users.email", or "orders.user_id,orders.number"
// in the order of the index.
//
// If the database does not report the columns it returns the name of the constraint or index. That
// happens on SQLite for an index on expressions, and on PostgreSQL for a role that may not read the
// columns, unless the name follows the convention for one column (users_email_key is
// "users.email").
func Constraint(err error) (columns string, ok bool) {
	registry.RLock()
	defer registry.RUnlock()
	for _, d := range registry.drivers {
		if columns, ok = d.Unique(err); ok {
			return columns, true
		}
	}
	return "", false
}
