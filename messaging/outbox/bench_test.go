package outbox_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// BenchmarkRelayDrain sends a backlog to a broker that costs nothing; one operation is one event.
func BenchmarkRelayDrain(b *testing.B) {
	for _, d := range []string{"sqlite", "postgres"} {
		b.Run(d, func(b *testing.B) {
			url := "sqlite:" + b.TempDir() + "/bench.db"
			if d == "postgres" {
				url = servertest.Database(b)
			}
			db := open(b, url)
			if err := outbox.Migrate(b.Context(), db); err != nil {
				b.Fatal(err)
			}
			err := sqldb.InTx(b.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
				for i := range b.N {
					if err := outbox.Add(ctx, tx, message("k", i)); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
			sent := make(chan int, b.N)
			b.ResetTimer()
			stop := start(b, outbox.NewRelay(db, func(_ context.Context, batch []driver.Message) error {
				sent <- len(batch)
				return nil
			}, nil))
			for n := 0; n < b.N; {
				n += <-sent
			}
			b.StopTimer()
			stop()
		})
	}
}
