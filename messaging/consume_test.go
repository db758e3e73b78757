package messaging_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar"
	_ "github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/outbox"
)

func TestDuplicateHasNoEffect(t *testing.T) {
	t.Parallel()
	store := newStore(nil)
	broker := startBroker(t)
	s := start(t, t.TempDir(), map[string]string{"broker_url": broker.url()}, store.service())
	for range 2 { // ce-id alone: the broker does not deduplicate by it
		broker.raw(orders.Name, `{"n":1}`, cloudEvent("same", "k"))
	}
	broker.raw(orders.Name, `{"n":2}`, cloudEvent("other", "k"))
	store.waitFor(t, "k", 1, 2)
	eventually(t, "a duplicate in the metrics", func() bool { return s.processed("store", "duplicate") == "1" })
	eventually(t, "the others in the metrics", func() bool { return s.processed("store", "ok") == "2" })
}

// TestPublishersThatCountAlike: CloudEvents are known by source and id, not by id alone.
func TestPublishersThatCountAlike(t *testing.T) {
	t.Parallel()
	store := newStore(func(_ context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
		if e.Data.N%10 == 3 {
			return messaging.Permanent(errors.New("bad"))
		}
		return nil
	})
	broker := startBroker(t)
	start(t, t.TempDir(), map[string]string{"broker_url": broker.url()}, store.service())
	for i, source := range []string{"/first", "/second"} {
		for n := 1; n <= 3; n++ {
			headers := cloudEvent(fmt.Sprint(n), "k")
			headers["ce-source"] = source
			broker.raw(orders.Name, fmt.Sprintf(`{"n":%d}`, 10*i+n), headers)
		}
	}
	store.waitFor(t, "k", 1, 2, 11, 12)
	eventually(t, "two dead letters", func() bool { return len(store.deadLetters(t)) == 2 })
}

func TestFailingHandlerIsTriedAgainInPlace(t *testing.T) {
	t.Parallel()
	var tries sync.Map // by N, *atomic.Int64
	store := newStore(func(_ context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
		v, _ := tries.LoadOrStore(e.Data.N, new(atomic.Int64))
		first := v.(*atomic.Int64).Add(1) == 1
		switch {
		case first != (e.Attempt == 1):
			t.Errorf("event %d: attempt %d, want the number of the try", e.Data.N, e.Attempt)
		case first && e.Data.N == 1:
			return errors.New("not yet")
		case first && e.Data.N == 2:
			panic("not yet")
		}
		return nil
	})
	broker := startBroker(t)
	s := start(t, t.TempDir(), map[string]string{"broker_url": broker.url()}, store.service())
	for n := 1; n <= 3; n++ {
		broker.raw(orders.Name, fmt.Sprintf(`{"n":%d}`, n), cloudEvent(fmt.Sprint(n), "k"))
	}
	store.waitFor(t, "k", 1, 2, 3)
	eventually(t, "the metrics", func() bool { return s.processed("store", "ok") == "3" })
	for n, want := range map[int]int64{1: 2, 2: 2, 3: 1} {
		v, _ := tries.Load(n)
		if got := v.(*atomic.Int64).Load(); got != want {
			t.Errorf("tries of event %d: got %d, want %d", n, got, want)
		}
	}
	if got := s.processed("store", "retrying"); got != "" {
		t.Errorf("deliveries with outcome retrying: got %s, want none", got)
	}
}

func TestEventThatFailsAtAllTriesGivesWay(t *testing.T) {
	t.Parallel()
	var tries, before atomic.Int64
	store := newStore(func(_ context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
		if e.Data.N == 1 {
			if e.Attempt <= 5 { // a retry of what was set aside may come before the next event is begun
				tries.Add(1)
			}
			return errors.New("never")
		}
		before.Store(tries.Load())
		return nil
	})
	broker := startBroker(t)
	s := start(t, t.TempDir(), map[string]string{"broker_url": broker.url()}, store.service())
	broker.raw(orders.Name, `{"n":1}`, cloudEvent("1", "k"))
	broker.raw(orders.Name, `{"n":2}`, cloudEvent("2", "k"))
	store.waitFor(t, "k", 2)
	if got := before.Load(); got != 5 {
		t.Errorf("tries before the next event of the key: got %d, want 5", got)
	}
	if got := s.processed("store", "retrying"); got == "" { // and once more a second later
		t.Errorf("deliveries with outcome retrying: got %q, want 1", got)
	}
	aside := store.deadLetters(t)
	if len(aside) != 1 || aside[0].State != outbox.Retrying || aside[0].Attempts < 5 || aside[0].Reason != "never" {
		t.Errorf("set aside: got %+v, want the event, to be tried again", aside)
	}
}

func TestPermanentErrorIsADeadLetterAtOnce(t *testing.T) {
	t.Parallel()
	var tries atomic.Int64
	store := newStore(func(_ context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
		if e.Data.N != 1 {
			return nil
		}
		tries.Add(1)
		return fmt.Errorf("order 1: %w", messaging.Permanent(errors.New("no such sku")))
	})
	broker := startBroker(t)
	dir, values := t.TempDir(), map[string]string{"broker_url": broker.url()}
	s := start(t, dir, values, store.service())
	broker.raw(orders.Name, `{"n":1}`, cloudEvent("bad", "k"))
	broker.raw(orders.Name, `{"n":2}`, cloudEvent("good", "k"))
	store.waitFor(t, "k", 2)
	dead := store.deadLetters(t)
	if len(dead) != 1 {
		t.Fatalf("dead letters: got %+v, want one", dead)
	}
	d := dead[0]
	if d.Group != "store" || d.Reason != "order 1: no such sku" || d.Attempts != 1 || d.Message.ID != "bad" || d.Message.Topic != orders.Name ||
		d.Message.Key != "k" || string(d.Message.Data) != `{"n":1}` || d.Message.Headers.Get("ce-source") != "elsewhere" {
		t.Errorf("dead letter: got %+v, want the whole message with group store and the reason", d)
	}
	if got := s.processed("store", "dead"); got != "1" {
		t.Errorf("deliveries with outcome dead: got %q, want 1", got)
	}
	s.Stop()
	s = start(t, dir, values, store.service())
	broker.raw(orders.Name, `{"n":1}`, cloudEvent("bad", "k")) // even when it comes again
	broker.raw(orders.Name, `{"n":3}`, cloudEvent("good too", "k"))
	store.waitFor(t, "k", 2, 3)
	if got := tries.Load(); got != 1 {
		t.Errorf("tries of the dead letter: got %d, want 1", got)
	}
	if got := s.processed("store", "duplicate"); got != "1" {
		t.Errorf("deliveries with outcome duplicate: got %q, want 1", got)
	}
}

func TestWhatCannotBeDecodedIsADeadLetter(t *testing.T) {
	t.Parallel()
	without := func(name string) map[string]string {
		h := cloudEvent("without "+name, "k")
		delete(h, name)
		return h
	}
	with := func(name, value string) map[string]string {
		h := cloudEvent(name+value, "k")
		h[name] = value
		return h
	}
	bad := map[string]struct {
		data    string
		headers map[string]string
	}{
		"unexpected end of JSON":         {`{"n":`, cloudEvent("cut", "k")},
		"got string":                     {`{"n":"one"}`, cloudEvent("type", "k")},
		`ce-specversion is ""`:           {`{"n":1}`, without("ce-specversion")},
		`ce-specversion is "0.3"`:        {`{"n":1}`, with("ce-specversion", "0.3")},
		`content type "application/xml"`: {`<n/>`, with("content-type", "application/xml")},
		`header ce-time`:                 {`{"n":1}`, with("ce-time", "yesterday")},
		`unexpected end of JSON input`:   {``, with("ce-id", strings.Repeat("long", 100))},
	}
	store := newStore(nil)
	broker := startBroker(t)
	s := start(t, t.TempDir(), map[string]string{"broker_url": broker.url()}, store.service())
	for _, m := range bad {
		for range 2 { // the second one is known by its mark
			broker.raw(orders.Name, m.data, m.headers)
		}
	}
	plain := cloudEvent("plain", "k")
	delete(plain, "content-type") // optional, as ce-time is
	delete(plain, "ce-time")
	broker.raw(orders.Name, `{"n":1}`, plain)
	broker.raw(orders.Name, `{"n":2}`, cloudEvent("good", "k"))
	store.waitFor(t, "k", 1, 2)
	dead := store.deadLetters(t)
	if len(dead) != len(bad) {
		t.Errorf("dead letters: got %d, want %d", len(dead), len(bad))
	}
	for _, d := range dead {
		if d.Attempts != 1 {
			t.Errorf("dead letter %q: got %d attempts, want 1: it was set aside before it came again", d.Reason, d.Attempts)
		}
	}
	for reason := range bad {
		if !slices.ContainsFunc(dead, func(d outbox.DeadLetter) bool { return strings.Contains(d.Reason, reason) }) {
			t.Errorf("no dead letter has a reason with %q: %+v", reason, dead)
		}
	}
	eventually(t, "the metrics", func() bool {
		return s.processed("store", "dead") == fmt.Sprint(len(bad)) && s.processed("store", "duplicate") == fmt.Sprint(len(bad))
	})
}

func TestOrderPerKey(t *testing.T) {
	t.Parallel()
	const keys, each = 20, 30 // where more wait behind one that fails, it is set aside
	var tries sync.Map
	store := newStore(func(_ context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
		_, again := tries.LoadOrStore(e.ID, true)
		if !again && e.Data.N%17 == 3 {
			return errors.New("not yet")
		}
		return nil
	})
	var shop shop
	start(t, t.TempDir(), map[string]string{"broker_url": startBroker(t).url()}, shop.service(), store.service())
	var publishers sync.WaitGroup
	var want []int
	for n := range each {
		want = append(want, n)
	}
	for k := range keys {
		publishers.Go(func() {
			for _, n := range want {
				shop.publish(t, fmt.Sprint(k), placed{N: n})
			}
		})
	}
	publishers.Wait()
	for k := range keys {
		store.waitFor(t, fmt.Sprint(k), want...)
	}
}

func TestSlowKeyHoldsNoOtherUp(t *testing.T) {
	t.Parallel()
	const others = 100 // so many that some would share a lane with the slow one if lanes were few
	release := make(chan struct{})
	slow := make(chan struct{}, 1)
	var seen atomic.Int64
	all := make(chan struct{})
	outside := kaptar.Service{Name: "outside", Setup: func(app *kaptar.App) error {
		return messaging.SubscribeAutoAck(app, orders, func(_ context.Context, e messaging.Event[placed]) error {
			if e.Key == "slow" {
				slow <- struct{}{}
				<-release
			} else if seen.Add(1) == others {
				close(all)
			}
			return nil
		}, nil)
	}}
	var shop shop
	start(t, t.TempDir(), map[string]string{"broker_url": startBroker(t).url()}, shop.service(), outside)
	defer close(release)
	shop.publish(t, "slow", placed{N: 1}, placed{N: 2})
	receive(t, "the slow event", slow)
	for n := range others {
		shop.publish(t, fmt.Sprint(n), placed{N: n})
	}
	receive(t, "all other keys", all)
	if len(slow) != 0 {
		t.Error("the second event of the slow key was begun before the first was done")
	}
}

func TestFailingKeyHoldsNoOtherUp(t *testing.T) {
	t.Parallel()
	const failing, others = 2, 40 // more failing ones than handlers run at the same time
	var done atomic.Int64
	store := newStore(func(_ context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
		if strings.HasPrefix(e.Key, "bad") && done.Load() < others {
			return errors.New("not before the others")
		}
		return nil
	})
	store.opts = &messaging.SubscribeOptions{Tries: 20, Concurrency: 1} // for half a minute and more, as a slow machine takes its time
	var shop shop
	s := start(t, t.TempDir(), map[string]string{"broker_url": startBroker(t).url()}, shop.service(), store.service())
	for n := range failing {
		shop.publish(t, fmt.Sprint("bad ", n), placed{N: n})
	}
	for n := range others {
		shop.publish(t, fmt.Sprint("good ", n), placed{N: n})
	}
	eventually(t, "the good keys", func() bool {
		good := 0
		for n := range others {
			good += len(store.effects(t, fmt.Sprint("good ", n)))
		}
		done.Store(int64(good))
		return good == others
	})
	eventually(t, "all", func() bool { return len(store.effects(t, "*")) == failing+others })
	if got := s.processed("store", "retrying"); got != "" {
		t.Errorf("deliveries that were out of tries before the good keys were done: got %s, want none", got)
	}
}

func TestAutoAckLosesWhatFails(t *testing.T) {
	t.Parallel()
	got := make(chan int, 10)
	consumer := kaptar.Service{Name: "store", Setup: func(app *kaptar.App) error {
		return messaging.SubscribeAutoAck(app, orders, func(_ context.Context, e messaging.Event[placed]) error {
			got <- e.Data.N
			switch e.Data.N {
			case 1:
				return errors.New("spilled milk")
			case 2:
				panic("broken glass")
			case 3:
				return messaging.Permanent(errors.New("gone for good"))
			}
			return nil
		}, nil)
	}}
	broker := startBroker(t)
	dir, values := t.TempDir(), map[string]string{"broker_url": broker.url()}
	s := start(t, dir, values, consumer)
	for n := 1; n <= 4; n++ {
		broker.raw(orders.Name, fmt.Sprintf(`{"n":%d}`, n), cloudEvent(fmt.Sprint(n), "k"))
	}
	broker.raw(orders.Name, `no json`, cloudEvent("5", "k"))
	for want := 1; want <= 4; want++ {
		if n := receive(t, "an event", got); n != want {
			t.Fatalf("event: got %d, want %d: each comes once", n, want)
		}
	}
	eventually(t, "the metrics", func() bool { return s.processed("store", "dropped") == "4" && s.processed("store", "ok") == "1" })
	for _, text := range []string{"event dropped", "spilled milk", "broken glass", "gone for good"} {
		if !strings.Contains(s.Log(), text) {
			t.Errorf("log does not say %q", text)
		}
	}
	s.Stop()
	start(t, dir, values, consumer)
	broker.raw(orders.Name, `{"n":6}`, cloudEvent("6", "k"))
	if n := receive(t, "an event after the restart", got); n != 6 {
		t.Errorf("event after the restart: got %d, want 6: those before were acknowledged", n)
	}
}

func TestAutoAckAcknowledgesFirst(t *testing.T) {
	t.Parallel()
	begun, finish := make(chan struct{}, 1), make(chan struct{})
	broker := startBroker(t)
	start(t, t.TempDir(), map[string]string{"broker_url": broker.url()}, kaptar.Service{Name: "store", Setup: func(app *kaptar.App) error {
		return messaging.SubscribeAutoAck(app, orders, func(context.Context, messaging.Event[placed]) error {
			begun <- struct{}{}
			<-finish
			return nil
		}, nil)
	}})
	defer close(finish)
	broker.raw(orders.Name, `{"n":1}`, cloudEvent("1", "k"))
	receive(t, "the handler", begun)
	conn, err := nats.Connect(broker.url())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the acknowledgement while the handler runs", func() bool {
		group, err := js.Consumer(t.Context(), "order_placed_v1", "store")
		if err != nil {
			t.Fatal(err)
		}
		return group.CachedInfo().NumAckPending == 0
	})
}

func TestEachGroupGetsEverything(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	dir, values := t.TempDir(), map[string]string{"broker_url": broker.url()}
	var shop shop
	early := &store{name: "early"}
	s := start(t, dir, values, shop.service(), early.service())
	shop.publish(t, "k", placed{N: 1})
	early.waitFor(t, "*", 1)
	s.Stop()
	// early's start counts no more: its group is known.
	early.opts = &messaging.SubscribeOptions{From: messaging.FromNow}
	now, beginning := &store{name: "now", opts: &messaging.SubscribeOptions{From: messaging.FromNow}}, &store{name: "beginning"}
	start(t, dir, values, shop.service(), early.service(), now.service(), beginning.service())
	beginning.waitFor(t, "*", 1)
	shop.publish(t, "k", placed{N: 2}, placed{N: 3})
	for _, store := range []*store{early, now, beginning} {
		eventually(t, store.name, func() bool { e := store.effects(t, "*"); return len(e) > 0 && e[len(e)-1] == 3 })
		want := []int{1, 2, 3}
		if store == now { // what is published once its Subscribe has returned
			want = want[1:]
		}
		if got := store.effects(t, "*"); !slices.Equal(got, want) {
			t.Errorf("effects of %s: got %v, want %v", store.name, got, want)
		}
	}
}

func TestHandlerPublishesInItsTransaction(t *testing.T) {
	t.Parallel()
	confirmed := messaging.Topic[placed]{Name: "order.confirmed.v1"}
	failed := make(chan struct{}, 1)
	failed <- struct{}{}
	middle := kaptar.Service{Name: "middle", Setup: func(app *kaptar.App) error {
		pub, err := messaging.NewPublisher(app, confirmed)
		if err != nil {
			return err
		}
		return messaging.Subscribe(app, orders, func(ctx context.Context, tx *sql.Tx, e messaging.Event[placed]) error {
			if err := pub.Publish(ctx, tx, e.Key, e.Data); err != nil {
				return err
			}
			select {
			case <-failed:
				return errors.New("after the event was published")
			default:
				return nil
			}
		}, nil)
	}}
	got := make(chan int, 10)
	end := kaptar.Service{Name: "end", Setup: func(app *kaptar.App) error {
		return messaging.Subscribe(app, confirmed, func(_ context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
			got <- e.Data.N
			return nil
		}, nil)
	}}
	var shop shop
	start(t, t.TempDir(), map[string]string{"broker_url": startBroker(t).url()}, shop.service(), middle, end)
	shop.publish(t, "k", placed{N: 1}, placed{N: 2})
	for _, want := range []int{1, 2} {
		if n := receive(t, "a confirmed order", got); n != want {
			t.Errorf("confirmed: got %d, want %d: the failed try must publish nothing", n, want)
		}
	}
}
