package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// ErrOwned is wrapped by Claim's error when the database is another service's.
var ErrOwned = errors.New("sqldb: the database belongs to another service")

const createOwner = `CREATE TABLE IF NOT EXISTS kaptar_owner (id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL)`

// Claim notes in the table kaptar_owner that the database is name's, for good. Services that shared one would overwrite each other's
// tables and migrations, so when it is somebody else's already the error wraps ErrOwned and says whose. It may be called by several
// processes at once.
func Claim(ctx context.Context, db *sql.DB, name string) error {
	owner := ""
	var err error
	for range 5 { // CREATE TABLE IF NOT EXISTS of several at once can fail in PostgreSQL
		err = InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, createOwner); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO kaptar_owner (id, name) VALUES (1, $1) ON CONFLICT (id) DO NOTHING`, name); err != nil {
				return err
			}
			return tx.QueryRowContext(ctx, `SELECT name FROM kaptar_owner WHERE id = 1`).Scan(&owner)
		})
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("sqldb: claim for %s: %w", name, err)
	case owner != name:
		return fmt.Errorf("%w: %s", ErrOwned, owner)
	}
	return nil
}
