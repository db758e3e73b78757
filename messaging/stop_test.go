package messaging_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging"
)

// told tells when tasks of the service are told to stop.
func told(service kaptar.Service) (kaptar.Service, <-chan struct{}) {
	told, setup := make(chan struct{}), service.Setup
	service.Setup = func(app *kaptar.App) error {
		app.Go("told", func(ctx context.Context) error {
			<-ctx.Done()
			close(told)
			return nil
		})
		return setup(app)
	}
	return service, told
}

func TestStopLetsTheHandlerFinish(t *testing.T) {
	t.Parallel()
	begun, finish := make(chan struct{}, 10), make(chan struct{})
	store := newStore(func(ctx context.Context, _ *sql.Tx, _ messaging.Event[placed]) error {
		begun <- struct{}{}
		<-finish
		return ctx.Err() // must not have ended
	})
	broker := startBroker(t)
	dir, values := t.TempDir(), map[string]string{"broker_url": broker.url()}
	service, stopping := told(store.service())
	s := start(t, dir, values, service)
	broker.raw(orders.Name, `{"n":1}`, cloudEvent("1", "k"))
	receive(t, "the handler", begun)
	go func() {
		<-stopping
		close(finish)
	}()
	s.Stop()
	s = start(t, dir, values, store.service())
	broker.raw(orders.Name, `{"n":2}`, cloudEvent("2", "k"))
	store.waitFor(t, "k", 1, 2)
	eventually(t, "the metrics", func() bool { return s.processed("store", "ok") == "1" })
	if got := s.processed("store", "duplicate"); got != "" {
		t.Errorf("duplicates after the restart: got %s, want none: the event was acknowledged", got)
	}
}

// Events that came and were not begun are the next start's, at once. In which order
// is the broker's affair.
func TestStopHandsBackWhatWaits(t *testing.T) {
	t.Parallel()
	const n = 600 // more than is in flight
	begun := make(chan struct{}, n)
	var hold chan struct{}
	store := newStore(func(ctx context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
		if hold != nil && e.Data.N == 5 {
			begun <- struct{}{}
			<-hold
		}
		return nil
	})
	hold = make(chan struct{})
	var shop shop
	broker := startBroker(t)
	dir, values := t.TempDir(), map[string]string{"broker_url": broker.url()}
	service, stopping := told(store.service())
	s := start(t, dir, values, shop.service(), service)
	var data []placed
	var want []int
	for i := range n {
		data, want = append(data, placed{N: i}), append(want, i)
	}
	shop.publish(t, "k", data...)
	receive(t, "the event that holds", begun)
	eventually(t, "an empty outbox", func() bool { return s.metric("shop", `outbox_backlog_rows{service="shop"}`) == "0" })
	go func() {
		<-stopping
		close(hold)
	}()
	s.Stop()
	hold = nil
	store.open(t, dir)
	before := len(store.effects(t, "*"))
	if before < 6 || before > 100 { // as much as 256 are here and wait
		t.Errorf("effects after the stop: got %d, want about 6: no event may be begun after it", before)
	}
	s = start(t, dir, values, store.service())
	begin := time.Now()
	store.arrive(t, "k", before+1)
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("the events began to come after %v, want them at once", took)
	}
	store.waitForAll(t, "k", want...)
	if got := s.processed("store", "duplicate"); got != "" {
		t.Errorf("duplicates after the restart: got %s, want none", got)
	}
}

// A stop between two tries acknowledges nothing.
func TestStopBetweenTries(t *testing.T) {
	t.Parallel()
	tried := make(chan struct{}, 100)
	fail := true
	store := newStore(func(context.Context, *sql.Tx, messaging.Event[placed]) error {
		if fail {
			tried <- struct{}{}
			return errors.New("not yet")
		}
		return nil
	})
	store.opts = &messaging.SubscribeOptions{Tries: 20}
	broker := startBroker(t)
	dir, values := t.TempDir(), map[string]string{"broker_url": broker.url()}
	s := start(t, dir, values, store.service())
	for n := 1; n <= 3; n++ {
		broker.raw(orders.Name, fmt.Sprintf(`{"n":%d}`, n), cloudEvent(fmt.Sprint(n), "k"))
	}
	for range 7 {
		receive(t, "a try", tried)
	}
	s.Stop() // TestStopInAPause: it waits for no other try
	fail = false
	start(t, dir, values, store.service())
	begin := time.Now()
	store.waitForAll(t, "k", 1, 2, 3)
	if took := time.Since(begin); took > 15*time.Second { // a redelivery takes twice as long
		t.Errorf("the events came after %v, want them at once", took)
	}
	if dead := store.deadLetters(t); len(dead) != 0 {
		t.Errorf("dead letters: got %+v, want none", dead)
	}
}

// What fails at its last try during the stop does not wait for its redelivery.
func TestStopDuringTheLastTry(t *testing.T) {
	t.Parallel()
	last, finish := make(chan struct{}, 1), make(chan struct{})
	tries := 0
	store := newStore(func(context.Context, *sql.Tx, messaging.Event[placed]) error {
		if tries++; tries > 5 {
			return nil
		}
		if tries == 5 {
			last <- struct{}{}
			<-finish
		}
		return errors.New("not yet")
	})
	broker := startBroker(t)
	dir, values := t.TempDir(), map[string]string{"broker_url": broker.url()}
	service, stopping := told(store.service())
	s := start(t, dir, values, service)
	broker.raw(orders.Name, `{"n":1}`, cloudEvent("1", "k"))
	receive(t, "the last try", last)
	go func() {
		<-stopping
		close(finish)
	}()
	s.Stop()
	start(t, dir, values, store.service())
	begin := time.Now()
	store.waitFor(t, "k", 1)
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("the event came after %v, want it at once", took)
	}
}
