package sqldb_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing/fstest"

	"github.com/kaptar/kaptar/sqldb"
)

func Example() {
	ctx := context.Background()
	db, err := sqldb.Open(ctx, "sqlite::memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	migrations := fstest.MapFS{"migrations/sqlite/001_users.sql": &fstest.MapFile{Data: []byte( // usually an embed.FS
		"-- +goose Up\nCREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE);\n")}}
	if err := sqldb.Migrate(ctx, db, migrations, ""); err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		err := sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
			sqldb.AfterCommit(ctx, func() { fmt.Println("committed") })
			_, err := tx.ExecContext(ctx, "INSERT INTO users (email) VALUES ($1)", "ada@example.com")
			return err
		})
		if columns, ok := sqldb.Constraint(err); ok {
			fmt.Println("taken:", columns)
		}
	}
	// Output:
	// committed
	// taken: users.email
}
