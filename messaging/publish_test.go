package messaging_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
	"github.com/kaptar/kaptar/telemetry"
)

func TestEventArrivesWhole(t *testing.T) {
	t.Parallel()
	type arrival struct {
		event messaging.Event[placed]
		trace string
	}
	var shop shop
	events := make(chan arrival, 10)
	store := newStore(func(ctx context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
		events <- arrival{e, telemetry.TraceID(ctx)}
		return nil
	})
	s := start(t, t.TempDir(), map[string]string{"broker_url": startBroker(t).url()}, shop.service(), store.service())

	ctx, span := shop.app.Tracer().Start(context.Background(), "request")
	defer span.End()
	before := time.Now()
	err := sqldb.InTx(ctx, shop.db, func(ctx context.Context, tx *sql.Tx) error {
		return shop.pub.Publish(ctx, tx, "order 7 \"é\"", placed{N: 7, Text: "tea"})
	})
	if err != nil {
		t.Fatal(err)
	}
	got := receive(t, "the event", events)
	e := got.event
	if e.Key != "order 7 \"é\"" || e.Source != "shop" || e.Attempt != 1 || e.Data != (placed{7, "tea"}) {
		t.Errorf("event: got %+v, want key order 7 \"é\", source shop, attempt 1, data {7 tea}", e)
	}
	if len(e.ID) != 36 || e.ID[14] != '7' {
		t.Errorf("event id: got %q, want a UUID of version 7", e.ID)
	}
	if e.Time.Before(before.Add(-time.Millisecond)) || e.Time.After(time.Now()) {
		t.Errorf("event time: got %v, want between %v and now", e.Time, before)
	}
	if want := span.SpanContext().TraceID().String(); got.trace != want {
		t.Errorf("trace id in the handler: got %q, want the publisher's %q", got.trace, want)
	}
	store.waitFor(t, e.Key, 7)
	for name, want := range map[string]string{
		`messaging_processed_total{outcome="ok",service="store",topic="order.placed.v1"}`:   "1",
		`messaging_published_total{service="shop",topic="order.placed.v1"}`:                 "1",
		`outbox_backlog_age_seconds{service="store"}`:                                       "0",
		`messaging_process_duration_seconds_count{service="store",topic="order.placed.v1"}`: "1",
	} {
		service := "store"
		if strings.Contains(name, "shop") {
			service = "shop"
		}
		eventually(t, name+" to be "+want, func() bool { return s.metric(service, name) == want })
	}
	eventually(t, "an empty outbox", func() bool { return s.metric("shop", `outbox_backlog_rows{service="shop"}`) == "0" })
	if len(events) > 0 {
		t.Errorf("the event came again: %+v", <-events)
	}
}

func TestRolledBackIsNeverSent(t *testing.T) {
	t.Parallel()
	var shop shop
	store := newStore(nil)
	s := start(t, t.TempDir(), map[string]string{"broker_url": startBroker(t).url()}, shop.service(), store.service())
	regret := errors.New("regret")
	err := sqldb.InTx(context.Background(), shop.db, func(ctx context.Context, tx *sql.Tx) error {
		if err := shop.pub.Publish(ctx, tx, "k", placed{N: 1}); err != nil {
			return err
		}
		return regret
	})
	if !errors.Is(err, regret) {
		t.Fatalf("InTx = %v, want %v", err, regret)
	}
	shop.publish(t, "k", placed{N: 2})
	store.waitFor(t, "*", 2) // in order: what was rolled back would have come first
	if got := s.metric("shop", `messaging_published_total{service="shop",topic="order.placed.v1"}`); got != "1" {
		t.Errorf("messaging_published_total: got %s, want 1: what was rolled back does not count", got)
	}
}

// TestNoDatabase: what needs none runs without, and makes none.
func TestNoDatabase(t *testing.T) {
	t.Parallel()
	got := make(chan int, 1)
	dir := t.TempDir()
	service := kaptar.Service{Name: "shop", Setup: func(app *kaptar.App) error {
		pub, err := messaging.NewDirectPublisher(app, orders)
		if err != nil {
			return err
		}
		app.Go("publish", func(ctx context.Context) error { return pub.PublishNow(ctx, "k", placed{N: 1}) })
		return messaging.SubscribeAutoAck(app, orders, func(_ context.Context, e messaging.Event[placed]) error {
			got <- e.Data.N
			return nil
		}, nil)
	}}
	start(t, dir, map[string]string{"broker_url": startBroker(t).url(), "services.shop.database_url": ""}, service)
	if n := receive(t, "the event", got); n != 1 {
		t.Errorf("got %d, want 1", n)
	}
}

func TestPublishNow(t *testing.T) {
	t.Parallel()
	var shop shop
	traces := make(chan string, 10)
	store := newStore(func(ctx context.Context, _ *sql.Tx, _ messaging.Event[placed]) error {
		traces <- telemetry.TraceID(ctx)
		return nil
	})
	broker := startBroker(t)
	s := start(t, t.TempDir(), map[string]string{"broker_url": broker.url()}, shop.service(), store.service())
	ctx, span := shop.app.Tracer().Start(t.Context(), "request")
	defer span.End()
	if err := shop.pub.PublishNow(ctx, "k", placed{N: 1}); err != nil {
		t.Fatal(err)
	}
	store.waitFor(t, "*", 1)
	if got, want := receive(t, "the trace", traces), span.SpanContext().TraceID().String(); got != want {
		t.Errorf("trace id in the handler: got %q, want the publisher's %q", got, want)
	}
	broker.stop()
	err := shop.pub.PublishNow(t.Context(), "k", placed{N: 2})
	if err == nil || !strings.Contains(err.Error(), orders.Name) {
		t.Errorf("PublishNow without a broker: got %v, want an error that names %s", err, orders.Name)
	}
	if got := s.metric("shop", `messaging_published_total{service="shop",topic="order.placed.v1"}`); got != "1" {
		t.Errorf("messaging_published_total: got %s, want 1: what failed does not count", got)
	}
	var rows int
	if err := shop.db.QueryRowContext(t.Context(), "SELECT count(*) FROM kaptar_outbox").Scan(&rows); err != nil || rows != 0 {
		t.Errorf("in the outbox: got %d, %v, want 0: PublishNow does not use it", rows, err)
	}
}

func TestTransactionsCommitWhileTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	var shop shop
	store := newStore(nil)
	broker := startBroker(t)
	s := start(t, t.TempDir(), map[string]string{"broker_url": broker.url()}, shop.service(), store.service())
	shop.publish(t, "k", placed{N: 1})
	store.waitFor(t, "*", 1)
	backlog := func() string { return s.metric("shop", `outbox_backlog_rows{service="shop"}`) }
	eventually(t, "an empty outbox", func() bool { return backlog() == "0" })
	broker.stop()
	for n := 2; n <= 5; n++ {
		shop.publish(t, "k", placed{N: n})
	}
	// The metric is left out while the database takes longer than a second.
	eventually(t, "outbox_backlog_rows to be 4 while the broker is away", func() bool { return backlog() == "4" })
	broker.start()
	store.waitFor(t, "*", 1, 2, 3, 4, 5)
}

func TestOversizedEventIsRefusedAtPublish(t *testing.T) {
	t.Parallel()
	var shop shop
	start(t, t.TempDir(), map[string]string{"broker_url": startBroker(t).url()}, shop.service())
	big := placed{Text: strings.Repeat("x", driver.MaxSize)}
	inTx := sqldb.InTx(context.Background(), shop.db, func(ctx context.Context, tx *sql.Tx) error {
		return shop.pub.Publish(ctx, tx, "k", big)
	})
	for how, err := range map[string]error{"Publish": inTx, "PublishNow": shop.pub.PublishNow(t.Context(), "k", big)} {
		if !errors.Is(err, driver.ErrTooLarge) || !strings.Contains(err.Error(), orders.Name) || !strings.Contains(err.Error(), "1048576") {
			t.Errorf("%s of an oversized event: got %v, want driver.ErrTooLarge with topic and limit", how, err)
		}
	}
}

// An event between the broker's own limit and ours must not stop the outbox.
func TestEventThatTheBrokerRefusesHoldsUpNothing(t *testing.T) {
	t.Parallel()
	var shop shop
	store := newStore(nil)
	broker := startBroker(t)
	broker.stop()
	broker.maxPayload = 10_000
	broker.start()
	start(t, t.TempDir(), map[string]string{"broker_url": broker.url()}, shop.service(), store.service())
	shop.publish(t, "k", placed{N: 1}, placed{N: 2, Text: strings.Repeat("x", 20_000)}, placed{N: 3})
	store.waitFor(t, "*", 1, 3)
	dead, err := outbox.DeadLetters(t.Context(), shop.db, nil)
	if err != nil || len(dead) != 1 || dead[0].Group != "shop" || dead[0].Kind != outbox.Publish || !strings.Contains(dead[0].Reason, "too large") ||
		len(dead[0].Message.Data) < 20_000 {
		t.Fatalf("dead letters of the publisher: got %d, %v, want the one that was refused, with its data and the reason", len(dead), err)
	}
	broker.stop()
	broker.maxPayload = 100_000
	broker.start()
	err = sqldb.InTx(t.Context(), shop.db, func(ctx context.Context, tx *sql.Tx) error { return outbox.ReplayDeadLetter(ctx, tx, dead[0].ID) })
	if err != nil {
		t.Fatal(err)
	}
	store.waitFor(t, "*", 1, 3, 2)
}

// What waits in the outbox when the service stops goes out at its next start.
func TestOutboxOutlivesTheService(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	broker := startBroker(t)
	values := map[string]string{"broker_url": broker.url()}
	var first shop
	s := start(t, dir, values, first.service())
	broker.stop()
	first.publish(t, "k", placed{N: 1}, placed{N: 2})
	s.Stop() // fails the test when that takes the broker
	broker.start()
	store := newStore(nil)
	var second shop
	start(t, dir, values, second.service(), store.service())
	store.waitFor(t, "*", 1, 2)
}

func TestTopicWithABrokerOfItsOwn(t *testing.T) {
	t.Parallel()
	var shop shop
	store := newStore(nil)
	general, special := startBroker(t), startBroker(t)
	start(t, t.TempDir(), map[string]string{
		"broker_url": general.url(), "topics.order.placed.v1.url": special.url(),
	}, shop.service(), store.service())
	shop.publish(t, "k", placed{N: 1})
	store.waitFor(t, "*", 1)
	for name, n := range map[string]*natsServer{"broker_url": general, "topics.order.placed.v1.url": special} {
		want := 0
		if n == special {
			want = 1
		}
		info, err := n.s.Jsz(nil)
		if err != nil || info.Streams != want {
			t.Errorf("streams at %s: got %+v, %v, want %d", name, info, err, want)
		}
	}
}

// The broker of one topic is lost: events of the other go on, and what waits comes when it is back.
func TestBrokersAreApart(t *testing.T) {
	t.Parallel()
	var shop shop
	store := newStore(nil)
	general, special := startBroker(t), startBroker(t)
	second := messaging.Topic[placed]{Name: "second"}
	var publisher *messaging.Publisher[placed]
	service := shop.service()
	setup := service.Setup
	service.Setup = func(app *kaptar.App) (err error) {
		if err = setup(app); err == nil {
			publisher, err = messaging.NewPublisher(app, second)
		}
		return err
	}
	start(t, t.TempDir(), map[string]string{"broker_url": general.url(), "topics.order.placed.v1.url": special.url()}, service, store.service())
	general.stop()
	err := sqldb.InTx(t.Context(), shop.db, func(ctx context.Context, tx *sql.Tx) error { return publisher.Publish(ctx, tx, "k", placed{N: 1}) })
	if err != nil {
		t.Fatal(err)
	}
	shop.publish(t, "k", placed{N: 1})
	store.waitFor(t, "*", 1)
	waiting := func() (n int) {
		if err := shop.db.QueryRowContext(t.Context(), "SELECT count(*) FROM kaptar_outbox").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	eventually(t, "only the other event to wait", func() bool { return waiting() == 1 })
	general.start()
	eventually(t, "the other event to go out", func() bool { return waiting() == 0 })
}

func TestEventsOfOneTransactionKeepTheirOrder(t *testing.T) {
	t.Parallel()
	var shop shop
	store := newStore(nil)
	start(t, t.TempDir(), map[string]string{"broker_url": startBroker(t).url()}, shop.service(), store.service())
	var data []placed
	var want []int
	for n := range 700 { // more than one batch of the relay
		data, want = append(data, placed{N: n}), append(want, n)
	}
	shop.publish(t, "k", data...)
	store.waitFor(t, "k", want...)
	if got := store.effects(t, "k"); !slices.IsSorted(got) {
		t.Errorf("effects are out of order: %v", got)
	}
}

func TestTopicWithASlipInItsSetting(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"order.placd.v1": true, "order.placed.v2": false, "user.registered.v1": false} {
		broker := startBroker(t)
		var shop shop
		s := start(t, t.TempDir(), map[string]string{"broker_url": broker.url(), "topics." + name + ".url": broker.url()}, shop.service())
		if got := strings.Contains(s.Log(), "topics."+name); got != want {
			t.Errorf("topics.%s: the log warns: got %v, want %v:\n%s", name, got, want, s.Log())
		}
	}
}
