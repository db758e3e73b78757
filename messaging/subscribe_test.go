package messaging_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/outbox"
)

// setupError runs a service and returns why it did not come up.
func setupError(t *testing.T, values map[string]string, service kaptar.Service) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	return kaptar.Run(ctx, &kaptar.Options{
		Sources: config.Sources{Defaults: settings(t.TempDir(), values, []kaptar.Service{service})},
		Log:     io.Discard, Ready: func([]discovery.Instance) { cancel() },
	}, service)
}

// TestSecondSubscription: of two handlers in one group each event would reach one at random.
func TestSecondSubscription(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	tx := func(context.Context, *sql.Tx, messaging.Event[placed]) error { return nil }
	plain := func(context.Context, messaging.Event[placed]) error { return nil }
	subscribe := func(app *kaptar.App, o *messaging.SubscribeOptions) error {
		return messaging.Subscribe(app, orders, tx, o)
	}
	autoAck := func(app *kaptar.App, o *messaging.SubscribeOptions) error {
		return messaging.SubscribeAutoAck(app, orders, plain, o)
	}
	type step func(*kaptar.App, *messaging.SubscribeOptions) error
	for name, steps := range map[string][2]step{"both": {subscribe, subscribe}, "auto-ack": {autoAck, autoAck}, "mixed": {subscribe, autoAck}} {
		for _, groups := range [][2]string{{"", ""}, {"g", "g"}, {"", "shop"}, {"", "other"}} {
			err := setupError(t, map[string]string{"broker_url": broker.url()}, kaptar.Service{Name: "shop", Setup: func(app *kaptar.App) error {
				for i, subscribe := range steps {
					if err := subscribe(app, &messaging.SubscribeOptions{Group: groups[i]}); err != nil {
						return err
					}
				}
				return nil
			}})
			if groups[1] == "other" {
				if err != nil {
					t.Errorf("%s in groups %q: %v, want nil", name, groups, err)
				}
				continue
			}
			for _, part := range []string{"shop", orders.Name, "SubscribeOptions.Group"} {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("%s in groups %q: %v, want an error with %s", name, groups, err, part)
				}
			}
		}
	}
}

// TestGroupsOfOneService: each gets every event, and a group under a new name handles old ones
// again.
func TestGroupsOfOneService(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	got := make(map[string][]int)
	service := func(groups ...string) kaptar.Service {
		return kaptar.Service{Name: "store", Setup: func(app *kaptar.App) error {
			for _, group := range groups {
				err := messaging.Subscribe(app, orders, func(_ context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
					mu.Lock()
					defer mu.Unlock()
					got[group] = append(got[group], e.Data.N)
					return nil
				}, &messaging.SubscribeOptions{Group: group})
				if err != nil {
					return err
				}
			}
			return nil
		}}
	}
	wait := func(group string, want ...int) {
		t.Helper()
		have := func() []int {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(got[group])
		}
		eventually(t, fmt.Sprintf("%v in group %q", want, group), func() bool { return len(have()) >= len(want) })
		if got := have(); !slices.Equal(got, want) {
			t.Errorf("group %q got %v, want %v", group, got, want)
		}
	}
	broker, dir := startBroker(t), t.TempDir()
	values := map[string]string{"broker_url": broker.url()}
	var shop shop
	s := start(t, dir, values, shop.service(), service("", "store.mail"))
	shop.publish(t, "k", placed{N: 1}, placed{N: 2}, placed{N: 3})
	wait("", 1, 2, 3)
	wait("store.mail", 1, 2, 3)
	s.Stop()
	start(t, dir, values, service("", "store.again"))
	broker.raw(orders.Name, `{"n":4}`, cloudEvent("4", "k"))
	wait("store.again", 1, 2, 3, 4)
	wait("", 1, 2, 3, 4)
}

// TestLimitsOfSubscription: timeout, tries and retries are what the options say.
func TestLimitsOfSubscription(t *testing.T) {
	t.Parallel()
	var tries atomic.Int64
	store := newStore(func(ctx context.Context, _ *sql.Tx, _ messaging.Event[placed]) error {
		tries.Add(1)
		<-ctx.Done()
		return ctx.Err()
	})
	store.opts = &messaging.SubscribeOptions{Timeout: time.Second, Tries: 2, Retries: 1} // a try begins with that of its transaction
	broker := startBroker(t)
	start(t, t.TempDir(), map[string]string{"broker_url": broker.url()}, store.service())
	broker.raw(orders.Name, `{"n":1}`, cloudEvent("1", "k"))
	eventually(t, "the dead letter", func() bool { d := store.deadLetters(t); return len(d) == 1 && d[0].State == outbox.Dead })
	if got, d := tries.Load(), store.deadLetters(t)[0]; got == 0 || got > 3 || d.Attempts != 3 || d.Retries != 1 { // a slow begin counts as a try
		t.Errorf("tries: got %d, in the dead letter %d with %d retries, want 2 and one retry", got, d.Attempts, d.Retries)
	}
	if reason := store.deadLetters(t)[0].Reason; !strings.Contains(reason, context.DeadlineExceeded.Error()) {
		t.Errorf("reason: got %q, want the timeout", reason)
	}
}

// TestConcurrency: that many handlers run, of one key only with Unordered.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	for _, unordered := range []bool{false, true} {
		t.Run(fmt.Sprint("unordered ", unordered), func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var running, most int64
			var done atomic.Int64
			full := make(chan struct{})
			want := int64(3)
			if !unordered {
				want = 1
			}
			service := kaptar.Service{Name: "store", Setup: func(app *kaptar.App) error {
				return messaging.SubscribeAutoAck(app, orders, func(context.Context, messaging.Event[placed]) error {
					mu.Lock()
					running++
					n := running
					most = max(most, n)
					mu.Unlock()
					defer func() {
						mu.Lock()
						running--
						mu.Unlock()
						done.Add(1)
					}()
					if n == want {
						select {
						case <-full:
						default:
							close(full)
						}
					}
					<-full
					return nil
				}, &messaging.SubscribeOptions{Concurrency: 3, Unordered: unordered})
			}}
			broker := startBroker(t)
			start(t, t.TempDir(), map[string]string{"broker_url": broker.url()}, service)
			for n := range 9 {
				broker.raw(orders.Name, fmt.Sprintf(`{"n":%d}`, n), cloudEvent(fmt.Sprint(n), "k"))
			}
			eventually(t, "all events", func() bool { return done.Load() == 9 })
			mu.Lock()
			defer mu.Unlock()
			if most != want {
				t.Errorf("handlers at the same time: got %d, want %d", most, want)
			}
		})
	}
}

func TestOptionsBelowZero(t *testing.T) {
	t.Parallel()
	broker := startBroker(t)
	for name, opts := range map[string]*messaging.SubscribeOptions{
		"timeout": {Timeout: -1}, "tries": {Tries: -1}, "retries": {Retries: -1}, "concurrency": {Concurrency: -1}, "group": {Group: "a b"},
	} {
		err := setupError(t, map[string]string{"broker_url": broker.url()}, kaptar.Service{Name: "shop", Setup: func(app *kaptar.App) error {
			return messaging.Subscribe(app, orders, func(context.Context, *sql.Tx, messaging.Event[placed]) error { return errors.New("unused") }, opts)
		}})
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), orders.Name) {
			t.Errorf("%s: %v, want an error that names it and the topic", name, err)
		}
	}
}
