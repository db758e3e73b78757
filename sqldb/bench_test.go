package sqldb_test

import (
	"database/sql"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/kaptar/kaptar/internal/test/servertest"
)

func BenchmarkInTx(b *testing.B) {
	for _, d := range []string{"sqlite", "postgres"} {
		for _, callers := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/callers=%d", d, callers), func(b *testing.B) {
				url := "sqlite:" + b.TempDir() + "/bench.db"
				if d == "postgres" {
					url = servertest.Database(b)
				}
				db := open(b, url)
				exec(b, db, "CREATE TABLE orders (id BIGINT PRIMARY KEY, note TEXT NOT NULL)")
				exec(b, db, "CREATE TABLE events (id BIGINT PRIMARY KEY, note TEXT NOT NULL)")
				var id atomic.Int64
				one := func() error {
					n := id.Add(1)
					return inTx(b, db, func(tx *sql.Tx) error {
						if _, err := tx.Exec("INSERT INTO orders VALUES ($1, $2)", n, "tea"); err != nil {
							return err
						}
						_, err := tx.Exec("INSERT INTO events VALUES ($1, $2)", n, "order placed")
						return err
					})
				}
				if callers == 1 {
					for b.Loop() {
						if err := one(); err != nil {
							b.Fatal(err)
						}
					}
					return
				}
				b.SetParallelism(callers / 2) // times GOMAXPROCS
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := one(); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}
