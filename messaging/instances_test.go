package messaging_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/kaptar/kaptar"
	_ "github.com/kaptar/kaptar/drivers/postgres"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// TestOrderWithInstances: three instances of a service, one of which restarts, handle each event of an
// ordered topic once and in the order of its key, though many fail for a while and are parked.
func TestOrderWithInstances(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func(t *testing.T) string{
		"SQLite":     func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "store.db") },
		"PostgreSQL": func(t *testing.T) string { return servertest.Database(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const keys, each = 12, 25
			broker, database := startBroker(t).url(), url(t)
			topic := messaging.Topic[placed]{Name: "order.placed.v1", Ordered: true}
			var mu sync.Mutex
			tries := make(map[string]int)
			fails := func(e messaging.Event[placed]) error {
				mu.Lock()
				defer mu.Unlock()
				tries[e.ID]++
				if n := tries[e.ID]; e.Data.N%9 == 4 && n == 1 || e.Key == "3" && e.Data.N == 7 && n <= 2 {
					return errors.New("not yet")
				}
				return nil
			}
			var db *sql.DB
			store := kaptar.Service{Name: "store", Setup: func(app *kaptar.App) (err error) {
				if db, err = app.DB(nil); err != nil {
					return err
				}
				id := "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
				if sqldb.DialectOf(db) == sqldb.SQLite {
					id = "INTEGER PRIMARY KEY"
				}
				if _, err := db.Exec(`CREATE TABLE IF NOT EXISTS effects (id ` + id + `, key TEXT, n BIGINT)`); err != nil {
					return err
				}
				return messaging.Subscribe(app, topic, func(ctx context.Context, tx *sql.Tx, e messaging.Event[placed]) error {
					if _, err := tx.ExecContext(ctx, `INSERT INTO effects (key, n) VALUES ($1, $2)`, e.Key, e.Data.N); err != nil {
						return err
					}
					return fails(e)
				}, &messaging.SubscribeOptions{Tries: 1})
			}}
			var publisher *messaging.Publisher[placed]
			var shopDB *sql.DB
			shop := kaptar.Service{Name: "shop", Setup: func(app *kaptar.App) (err error) {
				if shopDB, err = app.DB(nil); err == nil {
					publisher, err = messaging.NewPublisher(app, topic)
				}
				return err
			}}
			values := map[string]string{"broker_url": broker, "services.store.database_url": database}
			start(t, t.TempDir(), values, shop)
			first := start(t, t.TempDir(), values, store)
			start(t, t.TempDir(), values, store)
			start(t, t.TempDir(), values, store)
			for n := range each {
				if n == each/2 {
					first.Stop()
				}
				for k := range keys {
					err := sqldb.InTx(t.Context(), shopDB, func(ctx context.Context, tx *sql.Tx) error {
						return publisher.Publish(ctx, tx, fmt.Sprint(k), placed{N: n})
					})
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			start(t, t.TempDir(), values, store)
			var got map[string][]int
			have := 0
			for have < keys*each {
				before := have
				eventually(t, fmt.Sprintf("%d effects after %d", keys*each, before), func() bool {
					have, got = 0, make(map[string][]int)
					_, err := sqldb.Select(t.Context(), db, func(row sqldb.Row) (struct{}, error) {
						var key string
						var n int
						err := row.Scan(&key, &n)
						got[key] = append(got[key], n)
						have++
						return struct{}{}, err
					}, `SELECT key, n FROM effects ORDER BY id`)
					return err == nil && have > before
				})
			}
			want := make([]int, each)
			for n := range want {
				want[n] = n
			}
			for key, numbers := range got {
				if !slices.Equal(numbers, want) {
					t.Errorf("effects of %s: got %v, want 0 to %d", key, numbers, each-1)
				}
			}
			left, err := outbox.DeadLetters(t.Context(), db, nil)
			if err != nil || len(left) != 0 {
				t.Errorf("set aside: got %d, %v, want none left", len(left), err)
			}
		})
	}
}
