package messaging_test

import (
	"context"
	"database/sql"
	"os"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	_ "github.com/kaptar/kaptar/drivers/postgres"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// Scenario 5: the broker loses all that it has stored. What was sent, kept by outbox.keep and sent
// again is handled: nothing is lost, and nothing twice.
func TestBrokerStoreDeleted(t *testing.T) {
	t.Parallel()
	broker, dir := startBroker(t), t.TempDir()
	values := map[string]string{"broker_url": broker.url(), "outbox.keep": "1h"}
	shop, store := &shop{}, newStore(nil)
	sys := start(t, dir, values, shop.service(), store.service())
	publish := func(from, to int) {
		for n := from; n < to; n++ {
			shop.publish(t, "k", placed{N: n})
		}
		eventually(t, "the broker to have them", func() bool {
			rows, _, err := outbox.NewRelay(shop.db, nil, nil).Backlog(t.Context())
			return err == nil && rows == 0
		})
	}
	publish(0, 20)
	store.arrive(t, "k", 20)
	sys.Stop()
	start(t, dir, values, shop.service())
	publish(20, 40) // the broker has them, and the store is away
	broker.stop()
	if err := os.RemoveAll(broker.dir); err != nil {
		t.Fatal(err)
	}
	broker.start()
	publish(40, 50)                        // into a stream that is made anew
	start(t, dir, values, store.service()) // and so is the group, which begins now
	n, err := outbox.Resend(t.Context(), shop.db, time.Time{}, "")
	if n != 50 || err != nil {
		t.Errorf("Resend = %d, %v, want all 50", n, err)
	}
	shop.publish(t, "k", placed{N: 50})
	want := make([]int, 51)
	for i := range want {
		want[i] = i
	}
	store.waitForAll(t, "k", want...)
}

// An idle service polls: the relay once a second, the retries every two, resets of groups every four
// and the lease of schedules every five; signals ask nothing. That is 2 statements a second. The watch
// of the database is one more: a ping every two seconds, before which pgx pings. The server counts its own
// vacuum workers too.
func TestIdleCost(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	url := servertest.Database(t)
	service := kaptar.Service{Name: "idle", Setup: func(app *kaptar.App) error {
		_, err := messaging.NewPublisher(app, orders)
		if err != nil {
			return err
		}
		if err := app.Every("report", time.Hour, func(context.Context, kaptar.Due) error { return nil }); err != nil {
			return err
		}
		return messaging.Subscribe(app, orders, func(context.Context, *sql.Tx, messaging.Event[placed]) error { return nil }, nil)
	}}
	start(t, t.TempDir(), map[string]string{"broker_url": broker.url(), "services.idle.database_url": url}, service)
	db, err := sqldb.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	// Each statement of theirs is a transaction, but for those that are in one.
	asked := func() (n int) {
		err := db.QueryRowContext(t.Context(), `SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const seconds, most = 10, 50
	pause := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-t.Context().Done():
		}
	}
	pause(15 * time.Second) // what it does at the start, which an idle connection tells the statistics after 10 s
	n := most + 1
	for tries := 0; tries < 3 && n > most; tries++ { // the server cleans up once a minute
		before := asked()
		pause(seconds * time.Second)
		n = asked() - before - 1
		t.Logf("%d transactions in %d s", n, seconds)
	}
	if n < seconds/2 || n > most {
		t.Errorf("an idle service made %d transactions in %d s, want its polls, and at most 5 a second", n, seconds)
	}
}
