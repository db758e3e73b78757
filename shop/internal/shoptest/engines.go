package shoptest

import (
	"context"
	"database/sql"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	_ "github.com/kaptar/kaptar/drivers/postgres"
	_ "github.com/kaptar/kaptar/drivers/redis"
	_ "github.com/kaptar/kaptar/drivers/sqlite"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// Broker starts a NATS server with JetStream that ends with the test, and returns
// its URL.
func Broker(t *testing.T) string {
	t.Helper()
	url, _ := StoppableBroker(t)
	return url
}

// StoppableBroker is Broker for tests of what happens when the broker goes away.
func StoppableBroker(t *testing.T) (url string, stop func()) {
	t.Helper()
	broker, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
	})
	if err != nil {
		t.Fatalf("shoptest: broker: %v", err)
	}
	broker.Start()
	stop = func() {
		broker.Shutdown()
		broker.WaitForShutdown()
	}
	t.Cleanup(stop)
	if !broker.ReadyForConnections(10 * time.Second) {
		t.Fatal("shoptest: broker: not ready after 10 s")
	}
	return broker.ClientURL(), stop
}

// OnEachDialect runs test on an SQLite and on a PostgreSQL database with
// migrations and the tables of the outbox. Packages that use it call servertest.Main in TestMain.
func OnEachDialect(t *testing.T, migrations fs.FS, test func(t *testing.T, db *sql.DB)) {
	urls := map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "test.db") },
		"postgres": func(t *testing.T) string { return servertest.Database(t) },
	}
	for dialect, url := range urls {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			db, err := sqldb.Open(ctx, url(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			if err := sqldb.Migrate(ctx, db, migrations, ""); err != nil {
				t.Fatal(err)
			}
			if err := outbox.Migrate(ctx, db); err != nil {
				t.Fatal(err)
			}
			test(t, db)
		})
	}
}
