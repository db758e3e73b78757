package sqldb

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Constraint says whether err is the violation of a primary key or unique constraint, and of which columns. The answer
// is the same on both dialects: "users.email", or "orders.user_id,orders.number" for several columns in the order of
// the index.
//
// Where the database does not tell the columns, columns is the constraint's or index's name: on SQLite for an index on
// expressions; on PostgreSQL for a role that may not read the columns, unless the name follows PostgreSQL's own
// convention for one column (users_email_key is "users.email").
func Constraint(err error) (columns string, ok bool) {
	if pg, found := errors.AsType[*pgconn.PgError](err); found {
		if pg.Code != "23505" { // unique_violation
			return "", false
		}
		return postgresColumns(pg), true
	}
	lite, found := errors.AsType[*sqlite.Error](err)
	if !found {
		return "", false
	}
	switch lite.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID:
		return sqliteColumns(lite.Error()), true
	}
	return "", false
}

// sqliteColumns reads "constraint failed: UNIQUE constraint failed: users.a, users.b (2067)".
func sqliteColumns(text string) string {
	_, text, _ = strings.Cut(text, "UNIQUE constraint failed: ")
	if i := strings.LastIndex(text, " ("); i >= 0 {
		text = text[:i]
	}
	if name, ok := strings.CutPrefix(text, "index '"); ok {
		return strings.TrimSuffix(name, "'")
	}
	return strings.ReplaceAll(text, ", ", ",")
}

// postgresColumns reads the detail `Key (a, b)=(1, 2) already exists.`; its words are in the server's language, its
// brackets are not.
func postgresColumns(pg *pgconn.PgError) string {
	if _, rest, ok := strings.Cut(pg.Detail, "("); ok {
		if list, _, ok := strings.Cut(rest, ")=("); ok && !strings.ContainsAny(list, "()") {
			names := strings.Split(list, ", ")
			for i, name := range names {
				names[i] = pg.TableName + "." + strings.Trim(name, `"`)
			}
			return strings.Join(names, ",")
		}
	}
	if name, ok := strings.CutPrefix(pg.ConstraintName, pg.TableName+"_"); ok {
		if column, ok := strings.CutSuffix(name, "_key"); ok && column != "" {
			return pg.TableName + "." + column
		}
	}
	return pg.ConstraintName
}
