package sqlite_test

import (
	"context"
	"fmt"

	_ "github.com/kaptar/kaptar/drivers/sqlite" // links SQLite
	"github.com/kaptar/kaptar/sqldb"
)

func Example() {
	db, err := sqldb.Open(context.Background(), "sqlite::memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	fmt.Println(sqldb.DialectOf(db))
	// Output: sqlite
}
