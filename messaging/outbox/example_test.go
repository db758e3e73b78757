package outbox_test

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	db, err := sqldb.Open(ctx, "sqlite::memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	if err := outbox.Migrate(ctx, db); err != nil {
		fmt.Println(err)
		return
	}

	relay := outbox.NewRelay(db, func(_ context.Context, batch []driver.Message) error {
		for _, m := range batch {
			fmt.Printf("%s %s %s\n", m.Topic, m.Key, m.Data)
		}
		stop()
		return nil
	}, nil)
	err = sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
		// The order itself is written here, in the same transaction.
		sqldb.AfterCommit(ctx, relay.Wake)
		return outbox.Add(ctx, tx, driver.Message{ID: "0198", Topic: "order.placed.v1", Key: "42", Data: []byte(`{"total":900}`)})
	})
	fmt.Println(err)
	fmt.Println(relay.Run(ctx))
	// Output:
	// <nil>
	// order.placed.v1 42 {"total":900}
	// <nil>
}
