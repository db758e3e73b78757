package messaging_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// The three versions of an event: a number as text, a number, and a number with its unit.
type (
	weighedV1 struct {
		Weight string `json:"weight"`
	}
	weighedV2 struct {
		Weight int `json:"weight"`
	}
	weighedV3 struct {
		Weight int    `json:"weight"`
		Unit   string `json:"unit"`
	}
)

// Validate refuses what has no weight.
func (w weighedV3) Validate() error {
	if w.Weight <= 0 {
		return fmt.Errorf("weight %d: expected more than 0", w.Weight)
	}
	return nil
}

var (
	topicV1 = messaging.Topic[weighedV1]{Name: "parcel.weighed.v1"}
	topicV2 = messaging.Topic[weighedV2]{Name: "parcel.weighed.v2", Older: messaging.Upcast(topicV1, func(old weighedV1) (weighedV2, error) {
		var n int
		if _, err := fmt.Sscanf(old.Weight, "%d g", &n); err != nil {
			return weighedV2{}, errors.New("weight: expected a number of grams")
		}
		return weighedV2{n}, nil
	})}
	topicV3 = messaging.Topic[weighedV3]{Name: "parcel.weighed.v3", Older: messaging.Upcast(topicV2, func(old weighedV2) (weighedV3, error) {
		return weighedV3{old.Weight, "g"}, nil
	})}
)

// A scale publishes what it weighs as one version of the event.
type scale[T any] struct {
	name  string
	topic messaging.Topic[T]
	data  func(n int) T
	db    *sql.DB
	pub   *messaging.Publisher[T]
}

func (s *scale[T]) service() kaptar.Service {
	return kaptar.Service{Name: s.name, Setup: func(app *kaptar.App) (err error) {
		if s.db, err = app.DB(nil); err != nil {
			return err
		}
		s.pub, err = messaging.NewPublisher(app, s.topic)
		return err
	}}
}

func (s *scale[T]) weigh(key string, from, to int) error {
	for n := from; n <= to; n++ {
		err := sqldb.InTx(context.Background(), s.db, func(ctx context.Context, tx *sql.Tx) error { return s.pub.Publish(ctx, tx, key, s.data(n)) })
		if err != nil {
			return err
		}
	}
	return nil
}

// A reader has what it is told, by key, of the newest version and those before.
type reader struct {
	db *sql.DB

	mu    sync.Mutex
	seen  map[string][]weighedV3
	all   []messaging.Event[weighedV3]
	fails map[int]bool // weights that the handler refuses
}

func (r *reader) service() kaptar.Service {
	return kaptar.Service{Name: "reader", Setup: func(app *kaptar.App) (err error) {
		if r.db, err = app.DB(nil); err != nil {
			return err
		}
		return messaging.Subscribe(app, topicV3, func(_ context.Context, _ *sql.Tx, e messaging.Event[weighedV3]) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.fails[e.Data.Weight] {
				return messaging.Permanent(errors.New("the shelf is full"))
			}
			r.seen[e.Key], r.all = append(r.seen[e.Key], e.Data), append(r.all, e)
			return nil
		}, nil)
	}}
}

func (r *reader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

// TestOlderVersions: while publishers of three versions run at the same time, a consumer of the newest
// one gets every event once and in the order of its key and version, as data of the newest.
func TestOlderVersions(t *testing.T) {
	t.Parallel()
	const each = 30
	broker := startBroker(t)
	v1 := &scale[weighedV1]{name: "first", topic: topicV1, data: func(n int) weighedV1 { return weighedV1{fmt.Sprint(n, " g")} }}
	v2 := &scale[weighedV2]{name: "second", topic: topicV2, data: func(n int) weighedV2 { return weighedV2{n} }}
	v3 := &scale[weighedV3]{name: "third", topic: topicV3, data: func(n int) weighedV3 { return weighedV3{n, "kg"} }}
	r := &reader{seen: map[string][]weighedV3{}, fails: map[int]bool{}}
	start(t, t.TempDir(), map[string]string{"broker_url": broker.url()}, v1.service(), v2.service(), v3.service(), r.service())
	var work sync.WaitGroup
	for _, weigh := range []func(string, int, int) error{v1.weigh, v2.weigh, v3.weigh} {
		work.Go(func() {
			if err := weigh("p", 1, each); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	eventually(t, "all events", func() bool { return r.count() == 3*each })
	r.mu.Lock()
	defer r.mu.Unlock()
	bySource := map[string][]int{}
	for _, e := range r.all {
		bySource[e.Source] = append(bySource[e.Source], e.Data.Weight)
		if unit := map[string]string{"first": "g", "second": "g", "third": "kg"}[e.Source]; e.Data.Unit != unit || e.Key != "p" || e.ID == "" || e.Time.IsZero() {
			t.Errorf("got %+v, want it in %s, with its identity, key and time", e, unit)
		}
	}
	for source, weights := range bySource {
		if len(weights) != each || !slices.IsSorted(weights) {
			t.Errorf("%s: weights %v, want 1 to %d in order", source, weights, each)
		}
	}
}

// TestOlderVersionRefused: an old event that cannot be read as the new one, or that the handler refuses,
// is a dead letter as it was published; a version that nobody knows is one too.
func TestOlderVersionRefused(t *testing.T) {
	t.Parallel()
	r := &reader{seen: map[string][]weighedV3{}, fails: map[int]bool{13: true}}
	s := start(t, t.TempDir(), nil, r.service())
	deliver := func(id, topic, kind, data string) {
		headers := cloudEvent(id, "k")
		headers["ce-type"] = kind
		s.Deliver(driver.Message{ID: id, Topic: topic, Key: "k", Headers: driver.HeadersOf(headers), Data: []byte(data)})
	}
	deliver("words", topicV1.Name, topicV1.Name, `{"weight":"heavy"}`)
	deliver("number", topicV1.Name, topicV1.Name, `{"weight":7}`)
	deliver("nothing", topicV1.Name, topicV1.Name, `{"weight":"0 g"}`)
	deliver("thirteen", topicV1.Name, topicV1.Name, `{"weight":"13 g"}`)
	deliver("unknown", topicV1.Name, "parcel.weighed.v0", `{"weight":"1 g"}`)
	deliver("later", topicV3.Name, "parcel.weighed.v4", `{"weight":1}`)
	deliver("wrong topic", topicV3.Name, topicV1.Name, `{"weight":"1 g"}`)
	deliver("good", topicV1.Name, topicV1.Name, `{"weight":"1 g"}`)
	want := map[string]string{
		"words":       "messaging: words on parcel.weighed.v1: read as a later version: weight: expected a number of grams",
		"number":      "messaging: number on parcel.weighed.v1: data: weight: expected a string, got number",
		"nothing":     "messaging: nothing on parcel.weighed.v1: read as a later version: data: weight 0: expected more than 0",
		"thirteen":    "the shelf is full",
		"unknown":     `messaging: unknown on parcel.weighed.v1: header ce-type is "parcel.weighed.v0": expected the name of the topic`,
		"later":       `messaging: later on parcel.weighed.v3: header ce-type is "parcel.weighed.v4": expected the name of the topic`,
		"wrong topic": `messaging: wrong topic on parcel.weighed.v3: header ce-type is "parcel.weighed.v1": expected the name of the topic`,
	}
	st := &store{db: r.db}
	eventually(t, "all", func() bool { return len(st.deadLetters(t)) == len(want) && r.count() == 1 })
	for _, d := range st.deadLetters(t) {
		if d.Reason != want[d.Message.ID] {
			t.Errorf("%s: %q, want %q", d.Message.ID, d.Reason, want[d.Message.ID])
		}
		if d.Message.ID == "thirteen" && (d.Message.Topic != topicV1.Name || string(d.Message.Data) != `{"weight":"13 g"}`) {
			t.Errorf("dead letter %+v, want the event as it was published", d)
		}
	}
	if got := r.all[0]; got.Data != (weighedV3{1, "g"}) || got.ID != "good" {
		t.Errorf("handled %+v, want the good one", got)
	}

	// A replay goes through the same versions.
	r.mu.Lock()
	r.fails[13] = false
	r.mu.Unlock()
	for _, d := range st.deadLetters(t) {
		if d.Message.ID == "thirteen" || d.Message.ID == "words" {
			err := sqldb.InTx(t.Context(), r.db, func(ctx context.Context, tx *sql.Tx) error { return outbox.ReplayDeadLetter(ctx, tx, d.ID) })
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "the replay", func() bool { return len(st.deadLetters(t)) == len(want)-1 && r.count() == 2 })
	if got := r.all[1]; got.Data != (weighedV3{13, "g"}) || got.ID != "thirteen" || got.Source != "elsewhere" || got.Key != "k" {
		t.Errorf("handled %+v, want the old event with its identity, read as the new one", got)
	}
	eventually(t, "the other one", func() bool {
		for _, d := range st.deadLetters(t) {
			if d.Message.ID == "words" {
				return d.State == outbox.Dead && d.Reason == want["words"]
			}
		}
		return false
	})
}

// TestOlderTwice: one version cannot be subscribed to twice in a group, whichever way.
func TestOlderTwice(t *testing.T) {
	t.Parallel()
	app := func(app *kaptar.App) error {
		ignore := func(context.Context, messaging.Event[weighedV3]) error { return nil }
		if err := messaging.SubscribeAutoAck(app, topicV3, ignore, nil); err != nil {
			return err
		}
		err := messaging.SubscribeAutoAck(app, topicV1, func(context.Context, messaging.Event[weighedV1]) error { return nil }, nil)
		if err == nil || !strings.Contains(err.Error(), "subscribes to parcel.weighed.v1 twice") {
			t.Errorf("a second subscription to an older version: %v, want it refused", err)
		}
		return nil
	}
	start(t, t.TempDir(), nil, kaptar.Service{Name: "reader", Setup: app})
}
