package postgres_test

import (
	"context"
	"fmt"

	_ "github.com/kaptar/kaptar/drivers/postgres" // links PostgreSQL's driver
	"github.com/kaptar/kaptar/sqldb"
)

func Example() {
	_, err := sqldb.Open(context.Background(), "postgres://shop:pa/ss@localhost/shop")
	fmt.Println(err)
	// Output: sqldb: open: the postgres URL cannot be parsed; expected "postgres://user:password@host:5432/database" with special characters percent-encoded
}
