package messaging_test

import (
	"context"
	"database/sql"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging"
)

// TestEventsAreAskedTogether: many who list topics at once do not each ask the broker, which two of 3,000 lived through.
func TestEventsAreAskedTogether(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	var api http.Handler
	start(t, t.TempDir(), map[string]string{"broker_url": broker.url()}, kaptar.Service{Name: "shop", Setup: func(app *kaptar.App) error {
		api = messaging.API(app)
		return messaging.Subscribe(app, orders, func(context.Context, *sql.Tx, messaging.Event[placed]) error { return nil }, nil)
	}})
	conn, err := nats.Connect(broker.url())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := conn.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	asked := func() uint64 {
		t.Helper()
		info, err := js.AccountInfo()
		if err != nil {
			t.Fatal(err)
		}
		return info.API.Total
	}
	const many = 1000
	before := asked()
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			w := httptest.NewRecorder()
			api.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/events", nil))
			if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"lag":0`) {
				t.Errorf("events: %d %s, want 200 with the lag", w.Code, w.Body)
			}
		})
	}
	all.Wait()
	n := asked() - before
	t.Logf("the broker was asked %d times for %d lists", n, many)
	if n > many/4 { // two for each question, a question in a second
		t.Errorf("want at most %d", many/4)
	}
}

// TestDeadLetterMetrics: what is set aside and what waits is in the metrics, and too old a dead letter makes the service unready.
func TestDeadLetterMetrics(t *testing.T) {
	t.Parallel()
	r := &reading{t: t, topic: orders, values: map[string]string{
		"broker_url": startBroker(t).url(), "services.reader.database_url": "sqlite:" + t.TempDir() + "/reader.db", "services.reader.listen": "127.0.0.1:0",
		"dead_letters.unready_after": "1ms",
	}}
	sys := start(t, t.TempDir(), r.values, r.service())
	// A database that takes longer than a second makes it unready too, and is left out of the metrics.
	ready := func() bool { return sys.Do("GET", "reader", "/readyz", "").Status == 200 }
	eventually(t, "it is ready at first", ready)
	r.fail.Store(true)
	r.publish(1)
	r.publish(2)
	labels := `{group="reader",service="reader",state="dead",topic="order.placed.v1"}`
	eventually(t, "two dead letters", func() bool { return sys.metric("reader", "messaging_dead_letters"+labels) == "2" })
	eventually(t, "the age of the oldest", func() bool {
		got := sys.metric("reader", "messaging_dead_letters_oldest_seconds"+labels)
		return got != "" && got != "0"
	})
	eventually(t, "it is unready because of the oldest", func() bool {
		got := sys.Do("GET", "reader", "/readyz", "")
		return got.Status == 503 && strings.Contains(got.Body, "dead letter 1 of order.placed.v1 is older than dead_letters.unready_after, which is 1ms")
	})
	eventually(t, "the lag is there", func() bool {
		return strings.Contains(sys.Do("GET", "reader", "/metrics", "").Body, `messaging_lag{group="reader.second",partition="`)
	})
	r.fail.Store(false)
	if code, out := r.run("deadletters replay reader --all --topic order.placed.v1 --why luck"); code != 0 {
		t.Errorf("replay: %d %s", code, out)
	}
	eventually(t, "it is ready afterwards", ready)
}
