package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// ErrOwned is wrapped by the error of Own if the database belongs to another service.
var ErrOwned = errors.New("sqldb: the database is not this service's")

// Unowned as the argument from of Own means a database that has tables but no recorded owner.
const Unowned = "unowned"

const createOwner = `CREATE TABLE IF NOT EXISTS kaptar_owner (id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL)`

// These return one table of the user's; tables of PostgreSQL extensions do not count.
const (
	anySQLiteTable   = `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY name LIMIT 1`
	anyPostgresTable = `SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = to_regnamespace(current_schema()) AND relkind IN ('r', 'p')
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend WHERE objid = pg_class.oid AND deptype = 'e') ORDER BY relname LIMIT 1`
)

// Own records in the table kaptar_owner that the database belongs to the service called name.
// Services that share a database would overwrite each other's tables and migrations. If another
// service is recorded, or there are tables but no record, nothing is written and the error wraps
// ErrOwned and names the owner. Call Own before Migrate. Several processes may call it at once.
//
// from allows one exception: to take the database over from the service of that name or, with
// Unowned, to take over its tables. "" allows none.
func Own(ctx context.Context, db *sql.DB, name, from string) error {
	var err error
	for range 5 { // CREATE TABLE IF NOT EXISTS of several at once can fail in PostgreSQL
		err = InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error { return own(ctx, tx, DialectOf(db), name, from) })
		if err == nil || errors.Is(err, ErrOwned) || ctx.Err() != nil {
			break
		}
	}
	if err != nil && !errors.Is(err, ErrOwned) {
		return fmt.Errorf("sqldb: record %s as the owner: %w", name, err)
	}
	return err
}

func own(ctx context.Context, tx *sql.Tx, dialect Dialect, name, from string) error {
	anyTable, exists := anyPostgresTable, countPostgresTable
	if dialect == SQLite {
		anyTable, exists = anySQLiteTable, countSQLiteTable
	}
	// The tables come first: whoever makes some has recorded itself before.
	var table string
	if err := tx.QueryRowContext(ctx, anyTable).Scan(&table); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	var recorded int
	if err := tx.QueryRowContext(ctx, exists, "kaptar_owner").Scan(&recorded); err != nil {
		return err
	}
	if table != "" && recorded == 0 && from != Unowned {
		return fmt.Errorf("%w: it has tables (%s) and no record of an owner", ErrOwned, table)
	}
	if _, err := tx.ExecContext(ctx, createOwner); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO kaptar_owner (id, name) VALUES (1, $1) ON CONFLICT (id)
		DO UPDATE SET name = excluded.name WHERE kaptar_owner.name = $2`, name, from)
	if err != nil {
		return err
	}
	var owner string
	if err := tx.QueryRowContext(ctx, `SELECT name FROM kaptar_owner WHERE id = 1`).Scan(&owner); err != nil {
		return err
	}
	if owner != name {
		return fmt.Errorf("%w: it belongs to %s", ErrOwned, owner)
	}
	return nil
}
