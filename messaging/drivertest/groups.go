package drivertest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

func testFromBeginning(t *testing.T, h Harness) {
	e := setup(t, h)
	early := e.msgs("early", 5)
	e.publish(early[:1]...)
	e.publish(early[1:]...)
	m := e.subscribe("g", driver.FromBeginning)
	m.wait(5)
	late := e.msg("late", "k")
	e.publish(late)
	got := m.wait(6)
	if want := sent(append(early, late)); !slices.Equal(ids(got), want) {
		t.Errorf("a group from the beginning got %v, want %v", ids(got), want)
	}
	for _, d := range got {
		e.attempt(d, 1)
		if d.Topic != e.topic || d.Key != "k" || string(d.Data) != d.ID {
			t.Errorf("delivery %s has topic %q, key %q, data %q; want %q, \"k\" and the id", d.ID, d.Topic, d.Key, d.Data, e.topic)
		}
	}
}

func testFromBeginningRefused(t *testing.T, h Harness) {
	e := setup(t, h)
	sub := driver.Subscription{Topic: e.topic, Group: "g", From: driver.FromBeginning}
	if err := h.Broker.Declare(t.Context(), sub); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Declare FromBeginning without history = %v, want errors.ErrUnsupported", err)
	}
	if err := h.Broker.Subscribe(t.Context(), sub, func(driver.Delivery) {}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Subscribe FromBeginning without history = %v, want errors.ErrUnsupported", err)
	}
}

func testFromNow(t *testing.T, h Harness) {
	e := setup(t, h)
	e.publish(e.msgs("old", 3)...)
	m := e.subscribe("g", driver.FromNow)
	m.probe()
	e.publish(e.msgs("new", 3)...)
	got := m.wait(3)
	if want := sent(e.msgs("new", 3)); !slices.Equal(ids(got), want) {
		t.Errorf("a group from now got %v, want %v", ids(got), want)
	}
}

func testGroupKeepsItsPosition(t *testing.T, h Harness) {
	e := setup(t, h)
	e.ready("g")
	e.publish(e.msgs("away", 3)...)
	m := e.subscribe("g", driver.FromNow) // the group is known, so From does not count
	got := m.wait(3)
	if want := sent(e.msgs("away", 3)); !slices.Equal(ids(got), want) {
		t.Errorf("a group that was away got %v, want %v", ids(got), want)
	}
	m.stop()
	if h.NoReplay {
		return
	}
	m = e.subscribe("g", driver.FromBeginning)
	e.publish(e.msg("marker", "k"))
	if got := ids(m.wait(1)); !slices.Equal(got, []string{"marker"}) {
		t.Errorf("a known group that asks for the beginning got %v, want only the marker", got)
	}
}

func testTwoGroups(t *testing.T, h Harness) {
	e := setup(t, h)
	e.ready("a")
	e.ready("b")
	e.publish(e.msgs("m", 10)...)
	want := sent(e.msgs("m", 10))
	for _, group := range []string{"a", "b"} {
		if got := ids(e.subscribe(group, driver.FromNow).wait(10)); !slices.Equal(got, want) {
			t.Errorf("group %s got %v, want %v", group, got, want)
		}
	}
}

// testTwoMembersShare makes sure of the sharing without relying on chance: the first member is
// full, so that all the rest must go to the second.
func testTwoMembersShare(t *testing.T, h Harness) {
	e := setup(t, h)
	e.ready("g")
	second := h.Broker
	if h.Open != nil {
		second = h.Open(t)
		t.Cleanup(func() { e.close(second) })
	}
	e.publish(e.msgs("a", 2)...)
	first := e.hold("g", driver.FromNow, 2)
	held := first.wait(2)
	other := e.joinOn(second, driver.Subscription{Topic: e.topic, Group: "g", From: driver.FromNow}, e.ack)
	e.publish(e.msgs("b", 18)...)
	rest := other.wait(18)
	for _, d := range held {
		e.ack(d)
	}
	all := append(ids(first.quiet(h.AckWait*3/2)), ids(rest)...)
	slices.Sort(all)
	want := append(sent(e.msgs("a", 2)), sent(e.msgs("b", 18))...)
	slices.Sort(want)
	if !slices.Equal(all, want) {
		t.Errorf("two members got together %v, want each once: %v", all, want)
	}
	other.stop()
	e.publish(e.msg("c", "k"))
	if got := first.wait(3); got[2].ID != "c" {
		t.Errorf("after the second member left the first got %v, want c as the last", ids(got))
	}
}

// testMembersShareKeys publishes rounds of many keys to two members until two rounds in a row went
// the same way: each key to the member it went to before, both members with some. Chance alone
// would need 2 to the 64th rounds.
func testMembersShareKeys(t *testing.T, h Harness) {
	const keys = 64
	e := setup(t, h)
	e.ready("g")
	second := h.Open(t)
	t.Cleanup(func() { e.close(second) })
	sub := driver.Subscription{Topic: e.topic, Group: "g", From: driver.FromNow}
	members := []*member{e.joinOn(h.Broker, sub, e.ack), e.joinOn(second, sub, e.ack)}
	deadline := time.Now().Add(e.h.Wait)
	var before, now map[string]int
	for round := 0; before == nil || !maps.Equal(before, now); round++ {
		if time.Now().After(deadline) {
			t.Fatalf("keys still move between two members after %d rounds: member of each key %v, then %v", round, before, now)
		}
		prefix := fmt.Sprint("r", round, "-")
		var batch []driver.Message
		for k := range keys {
			batch = append(batch, e.msg(fmt.Sprint(prefix, k), fmt.Sprint("k", k)))
		}
		e.publish(batch...)
		before, now = now, e.round(members, prefix, keys)
	}
	for _, m := range members {
		m.stop()
	}
}

// round waits until the members have got the n messages of one round and returns which member got
// each key, or nil when a message came twice or one member got none.
func (e *env) round(members []*member, prefix string, n int) map[string]int {
	e.t.Helper()
	deadline := time.After(e.h.Wait)
	for {
		owner := make(map[string]int)
		count := make([]int, len(members))
		var changed []<-chan struct{}
		for i, m := range members {
			got, c := m.all()
			changed = append(changed, c)
			for _, d := range got {
				if strings.HasPrefix(d.ID, prefix) {
					owner[d.Key] = i
					count[i]++
				}
			}
		}
		switch {
		case len(owner) < n:
		case count[0]+count[1] > n || count[0] == 0 || count[1] == 0:
			return nil
		default:
			return owner
		}
		select {
		case <-changed[0]:
		case <-changed[1]:
		case <-deadline:
			e.t.Fatalf("waited %v for a round of %d messages, the members got %v of it", e.h.Wait, n, count)
		}
	}
}

// testSimilarNames is about brokers that cannot have dots in names.
func testSimilarNames(t *testing.T, h Harness) {
	e := setup(t, h)
	base := e.topic[:len(e.topic)-len(".v1")]
	topics := []string{base + ".v1", base + "_v1", base + "-v1", base + ".v1.x", base}
	groups := []string{"g.x", "g_x", "g-x"}
	for _, topic := range topics {
		e.topic = topic
		for _, group := range groups {
			e.ready(group)
		}
	}
	for _, topic := range topics {
		e.publish(driver.Message{ID: "to " + topic, Topic: topic})
	}
	for _, topic := range topics {
		e.topic = topic
		for _, group := range groups {
			m := e.subscribe(group, driver.FromNow)
			if got := ids(m.wait(1)); !slices.Equal(got, []string{"to " + topic}) {
				t.Errorf("group %s of topic %s got %v, want only its own message", group, topic, got)
			}
			m.stop()
		}
	}
}

func testDeclareTwice(t *testing.T, h Harness) {
	e := setup(t, h)
	declare := func() {
		if err := h.Broker.Declare(t.Context(), driver.Subscription{Topic: e.topic}); err != nil {
			t.Fatalf("Declare(%q) = %v, want nil", e.topic, err)
		}
	}
	declare()
	e.ready("g")
	e.publish(e.msgs("m", 2)...)
	declare()
	e.ready("g") // keeps its position
	if got := ids(e.subscribe("g", driver.FromNow).wait(2)); !slices.Equal(got, sent(e.msgs("m", 2))) {
		t.Errorf("after a second Declare the group got %v, want m0 and m1", got)
	}
	for _, bad := range []string{"", ".a", "a..b", "a.", "a b", "a*", "a>", "é", "$a", "a/b"} {
		if err := h.Broker.Declare(t.Context(), driver.Subscription{Topic: bad}); !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("Declare(%q) = %v, want driver.ErrInvalid", bad, err)
		}
	}
}

func testInvalidSubscription(t *testing.T, h Harness) {
	e := setup(t, h)
	good := driver.Subscription{Topic: e.topic, Group: "g", From: driver.FromNow}
	for name, change := range map[string]func(*driver.Subscription){
		"no topic":      func(s *driver.Subscription) { s.Topic = "" },
		"wild topic":    func(s *driver.Subscription) { s.Topic = "a.*" },
		"no group":      func(s *driver.Subscription) { s.Group = "" },
		"no start":      func(s *driver.Subscription) { s.From = 0 },
		"negative size": func(s *driver.Subscription) { s.MaxInFlight = -1 },
	} {
		sub := good
		change(&sub)
		if err := h.Broker.Subscribe(t.Context(), sub, func(driver.Delivery) {}); !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("Subscribe with %s = %v, want driver.ErrInvalid", name, err)
		}
	}
}
