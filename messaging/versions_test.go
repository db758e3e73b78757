package messaging_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kv"
	"github.com/kaptar/kaptar/messaging"
)

// A release is a shop and versions of a store that have one database, one registry and one store of
// weights. The broker is that of the URL.
type release struct {
	t       *testing.T
	dir     string
	nats    *natsServer
	broker  string
	shop    *shop
	outbox  *system // the shop's
	weights kv.Store

	mu      sync.Mutex
	handled map[string]int // by version
	failing func(n int) error
	opts    messaging.SubscribeOptions
}

func newRelease(t *testing.T, broker string) *release {
	t.Helper()
	r := &release{t: t, dir: t.TempDir(), nats: startBroker(t), shop: &shop{topic: "versions." + rand.Text()}, handled: map[string]int{}, broker: broker}
	if r.broker == "" {
		r.broker = r.nats.url()
	}
	r.outbox = start(t, r.dir, r.settings(), r.shop.service())
	var err error
	if r.weights, err = r.shop.app.Store(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *release) settings() map[string]string {
	return map[string]string{"broker_url": r.broker, "discovery_url": r.nats.url()}
}

// set changes a weight of the store.
func (r *release) set(key, value string) {
	r.t.Helper()
	if _, err := r.weights.Put(r.t.Context(), "weights/store/"+key, []byte(value)); err != nil {
		r.t.Fatal(err)
	}
}

// run starts a version.
func (r *release) run(version string) (*system, *store) {
	r.t.Helper()
	s := newStore(func(_ context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.failing != nil {
			if err := r.failing(e.Data.N); err != nil {
				return err
			}
		}
		r.handled[version]++
		return nil
	})
	opts := r.opts
	opts.From = messaging.FromNow
	s.topic, s.opts = r.shop.topic, &opts
	service := s.service()
	service.Version = version
	sys := start(r.t, r.dir, r.settings(), service)
	return sys, s
}

// counts returns how many events each version has handled since the last call.
func (r *release) counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.handled
	r.handled = map[string]int{}
	return out
}

// publish publishes the events from one number to another, each with a key of its own.
func (r *release) publish(from, to int) {
	r.t.Helper()
	for n := from; n < to; n++ {
		r.shop.publish(r.t, fmt.Sprintf("order-%d", n), placed{N: n})
	}
}

// each fails unless every event below to was handled, and its effect is there once.
func (r *release) each(s *store, to int) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d effects", to), func() bool { return len(s.effects(r.t, "*")) >= to })
	got := s.effects(r.t, "*")
	slices.Sort(got)
	for n := range to {
		if len(got) != to || got[n] != n {
			r.t.Fatalf("%d effects of %d events, want each once", len(got), to)
		}
	}
}

// gauge waits until a metric of a version has a value.
func (r *release) gauge(sys *system, name, value string) {
	r.t.Helper()
	eventually(r.t, name+" to be "+value, func() bool { return sys.metric("store", name+`{service="store"}`) == value })
}

// TestVersionsShareEvents: two versions on one database get the events by weight, each once, and a
// change of the weights while they flow loses none.
func TestVersionsShareEvents(t *testing.T) {
	t.Parallel()
	r := newRelease(t, "")
	r.set("version/v1", "75")
	r.set("version/v2", "25")
	v1, s := r.run("v1")
	v2, _ := r.run("v2")
	from := 0
	eventually(t, "both versions to know of each other", func() bool {
		r.publish(from, from+1)
		from++
		passed := fmt.Sprintf(`messaging_processed_total{outcome="passed",service="store",topic=%q}`, r.shop.topic)
		return v1.metric("store", passed) != "" && v2.metric("store", passed) != ""
	})
	r.each(s, from)
	r.counts()
	const events = 1000
	r.publish(from, from+events)
	from += events
	r.each(s, from)
	if got := r.counts(); got["v1"]+got["v2"] != events || got["v2"] < events*18/100 || got["v2"] > events*32/100 { // 5 σ
		t.Errorf("handled %v of %d, want 25 %% at v2 to seven points", got, events)
	}
	for _, weight := range []string{"50", "0", "100", "0"} {
		r.set("version/v2", weight)
		r.publish(from, from+events/4)
		from += events / 4
	}
	r.each(s, from)
	r.gauge(v2, "messaging_paused", "1")
	r.counts()
	r.publish(from, from+50)
	r.each(s, from+50)
	if got := r.counts(); got["v1"] != 50 {
		t.Errorf("with a weight of 0 for v2 %v of 50, want all at v1", got)
	}
}

// TestEventsOfOneVersion: the others leave the group until it is their turn, on every broker; nothing
// is lost at the switch, nor while nobody of that version is there.
func TestEventsOfOneVersion(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func(t *testing.T) string{
		"NATS":     func(*testing.T) string { return "" },
		"Kafka":    func(t *testing.T) string { return servertest.Shared(t, servers.Kafka).URL() },
		"RabbitMQ": func(t *testing.T) string { return servertest.VHost(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRelease(t, url(t))
			r.set("version/v1", "50")
			r.set("version/v2", "50")
			r.set("events", "v1")
			v1, s := r.run("v1")
			v2, _ := r.run("v2")
			r.gauge(v2, "messaging_paused", "1")
			const events = 100
			r.publish(0, events)
			r.each(s, events)
			if got := r.counts(); got["v1"] != events {
				t.Errorf("handled %v, want all %d at v1", got, events)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				r.publish(events, 3*events)
			}()
			r.set("events", "v2")
			receive(t, "the events to be published", done)
			r.each(s, 3*events)
			r.gauge(v1, "messaging_paused", "1")
			r.counts()
			r.publish(3*events, 4*events)
			r.each(s, 4*events)
			if got := r.counts(); got["v2"] != events {
				t.Errorf("after the switch %v, want all %d at v2", got, events)
			}
			r.set("events", "v3")
			r.gauge(v1, "messaging_version_missing", "1")
			r.gauge(v2, "messaging_paused", "1")
			r.publish(4*events, 5*events)
			eventually(t, "the broker to have them", func() bool { return r.outbox.metric("shop", `outbox_backlog_rows{service="shop"}`) == "0" })
			if got := r.counts(); len(got) != 0 {
				t.Errorf("handled %v, though the events are those of v3", got)
			}
			r.run("v3")
			r.each(s, 5*events)
			r.gauge(v1, "messaging_version_missing", "0")
			if got := r.counts(); got["v3"] != events {
				t.Errorf("when v3 has come %v, want the %d that waited for it", got, events)
			}
		})
	}
}
