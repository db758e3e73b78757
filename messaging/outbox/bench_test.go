package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

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

// BenchmarkBacklog drains a million events, on PostgreSQL while a transaction that is open elsewhere
// keeps vacuum from removing what was sent, and says how long batches of 500 took at its beginning and
// at its end. Run it with -benchtime 1x.
func BenchmarkBacklog(b *testing.B) {
	const rows = 1_000_000
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
			for range b.N {
				fill(b, db, rows)
				if d == "postgres" {
					snapshot, err := db.BeginTx(b.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
					if err != nil {
						b.Fatal(err)
					}
					defer snapshot.Rollback()
					if err := snapshot.QueryRow("SELECT count(*) FROM kaptar_outbox").Scan(new(int)); err != nil {
						b.Fatal(err)
					}
				}
				var times []time.Time
				done := make(chan bool)
				b.ResetTimer()
				stop := start(b, outbox.NewRelay(db, func(context.Context, []driver.Message) error {
					if times = append(times, time.Now()); len(times) == rows/500 {
						close(done)
					}
					return nil
				}, nil))
				<-done
				b.StopTimer()
				stop()
				const some = 200
				first, last := times[some].Sub(times[0])/some, times[len(times)-1].Sub(times[len(times)-1-some])/some
				b.ReportMetric(float64(first.Microseconds())/1000, "ms/first-batches")
				b.ReportMetric(float64(last.Microseconds())/1000, "ms/last-batches")
				b.ReportMetric(rows/b.Elapsed().Seconds(), "events/s")
			}
		})
	}
}
