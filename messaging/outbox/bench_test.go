package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
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

// BenchmarkInbox marks events as handled, with 16 at a time of as many keys: by id, and by number as
// of an ordered topic.
func BenchmarkInbox(b *testing.B) {
	for _, d := range []string{"sqlite", "postgres"} {
		for _, by := range []string{"id", "number"} {
			b.Run(d+"/"+by, func(b *testing.B) {
				url := "sqlite:" + b.TempDir() + "/bench.db"
				if d == "postgres" {
					url = servertest.Database(b)
				}
				db := open(b, url)
				if err := outbox.Migrate(b.Context(), db); err != nil {
					b.Fatal(err)
				}
				inbox := &outbox.Inbox{Group: "g", Ordered: by == "number"}
				var key atomic.Int64
				b.SetParallelism(16)
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					name := fmt.Sprint("key ", key.Add(1))
					for n := 1; pb.Next(); n++ {
						m := message(name, n)
						m.Headers = driver.Headers{{Name: driver.HeaderSequence, Value: fmt.Sprint(n)}, {Name: driver.HeaderSource, Value: "shop"}}
						err := sqldb.InTx(b.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
							turn, err := inbox.Take(ctx, tx, &m, 0)
							if err == nil && turn != outbox.Handle {
								err = fmt.Errorf("turn %d of %s", turn, m.ID)
							}
							return err
						})
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}
