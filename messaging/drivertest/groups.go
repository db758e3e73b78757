package drivertest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

func (e *env) fromBeginning() driver.Subscription {
	return driver.Subscription{Topic: e.topic, Group: "g", From: driver.FromBeginning}
}

func testFromBeginning(e *env) {
	want := append(e.send("early", 1), e.send("more", 4)...)
	m := e.join(e.fromBeginning(), e.ack)
	m.wait(5)
	e.publish(e.msg("late", "k"))
	got := m.wait(6)
	e.same("a group from the beginning", got, append(want, "late")...)
	for _, d := range got {
		e.attempt(d, 1)
		if d.Topic != e.topic || d.Key != "k" || string(d.Data) != d.ID {
			e.Errorf("delivery %s has topic %q, key %q, data %q; want %q, \"k\" and the id", d.ID, d.Topic, d.Key, d.Data, e.topic)
		}
	}
}

func testFromBeginningRefused(e *env) {
	sub := e.fromBeginning()
	if err := e.Broker.Declare(e.Context(), sub); !errors.Is(err, errors.ErrUnsupported) {
		e.Errorf("Declare FromBeginning without history = %v, want errors.ErrUnsupported", err)
	}
	if err := e.Broker.Subscribe(e.Context(), sub, func(driver.Delivery) {}); !errors.Is(err, errors.ErrUnsupported) {
		e.Errorf("Subscribe FromBeginning without history = %v, want errors.ErrUnsupported", err)
	}
}

func testFromNow(e *env) {
	e.send("old", 3)
	m := e.subscribe("g")
	m.probe()
	want := e.send("new", 3)
	e.same("a group from now", m.wait(3), want...)
}

func testGroupKeepsItsPosition(e *env) {
	want := e.send("away", 3)
	m := e.subscribe("g") // the group is known, so From does not count
	e.same("a group that was away", m.wait(3), want...)
	m.stop()
	if e.NoReplay {
		return
	}
	m = e.join(e.fromBeginning(), e.ack)
	e.publish(e.msg("marker", "k"))
	e.same("a known group that asks for the beginning", m.wait(1), "marker")
}

func testTwoGroups(e *env) {
	want := e.send("m", 10)
	for _, group := range []string{"a", "b"} {
		e.same("group "+group, e.subscribe(group).wait(10), want...)
	}
}

// testTwoMembersShare makes sure of the sharing without relying on chance: the first member is
// full, so that all the rest must go to the second.
func testTwoMembersShare(e *env) {
	second := e.Broker
	if e.Open != nil {
		second = e.Open(e.T)
		e.Cleanup(func() { e.close(second) })
	}
	want := e.send("a", 2)
	begun := time.Now()
	first := e.take("g", 2, nil)
	held := first.wait(2)
	other := e.joinOn(second, e.sub("g"), e.ack)
	more := e.send("b", 18)
	rest := other.until("all that the first member has no room for", func(got []driver.Delivery) bool {
		have := ids(got)
		return !slices.ContainsFunc(more, func(id string) bool { return !slices.Contains(have, id) })
	})
	for _, d := range held {
		e.ack(d)
	}
	late := time.Since(begun) >= e.AckWait
	all := append(ids(first.quiet(e.AckWait*3/2)), ids(rest)...)
	want = append(want, more...)
	slices.Sort(all)
	slices.Sort(want)
	if late { // on a busy machine those that were held have come again
		all = slices.Compact(all)
	}
	if !slices.Equal(all, want) {
		e.Errorf("two members got together %v, want each once: %v", all, want)
	}
	other.stop()
	e.publish(e.msg("c", "k"))
	first.sees("c") // from then on all is for the first
}

// testMembersShareKeys publishes rounds of many keys to two members until two rounds in a row went
// the same way: each key to the member it went to before, both members with some. Chance alone
// would need 2 to the 64th rounds.
func testMembersShareKeys(e *env) {
	const keys = 64
	second := e.Open(e.T)
	e.Cleanup(func() { e.close(second) })
	members := []*member{e.subscribe("g"), e.joinOn(second, e.sub("g"), e.ack)}
	deadline := time.Now().Add(e.Wait)
	var before, now map[string]int
	for round := 0; before == nil || !maps.Equal(before, now); round++ {
		if time.Now().After(deadline) {
			e.Fatalf("keys still move between two members after %d rounds: member of each key %v, then %v", round, before, now)
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
	e.Helper()
	deadline := time.After(e.Wait)
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
			e.Fatalf("waited %v for a round of %d messages, the members got %v of it", e.Wait, n, count)
		}
	}
}

// testSimilarNames is about brokers that cannot have dots in names.
func testSimilarNames(e *env) {
	base := e.topic[:len(e.topic)-len(".v1")]
	topics := []string{base + ".v1", base + "_v1", base + "-v1", base + ".v1.x", base}
	groups := []string{"g.x", "g_x", "g-x"}
	for _, topic := range topics {
		e.topic = topic
		e.ready(groups...)
	}
	for _, topic := range topics {
		e.publish(driver.Message{ID: "to " + topic, Topic: topic})
	}
	for _, topic := range topics {
		e.topic = topic
		for _, group := range groups {
			m := e.subscribe(group)
			e.same("group "+group+" of topic "+topic, m.wait(1), "to "+topic)
			m.stop()
		}
	}
}

func testDeclareTwice(e *env) {
	declare := func() {
		if err := e.Broker.Declare(e.Context(), driver.Subscription{Topic: e.topic}); err != nil {
			e.Fatalf("Declare(%q) = %v, want nil", e.topic, err)
		}
	}
	declare()
	e.ready("g")
	want := e.send("m", 2)
	declare()
	e.ready("g") // keeps its position
	e.same("after a second Declare the group", e.subscribe("g").wait(2), want...)
	for _, bad := range []string{"", ".a", "a..b", "a.", "a b", "a*", "a>", "é", "$a", "a/b"} {
		if err := e.Broker.Declare(e.Context(), driver.Subscription{Topic: bad}); !errors.Is(err, driver.ErrInvalid) {
			e.Errorf("Declare(%q) = %v, want driver.ErrInvalid", bad, err)
		}
	}
}

func testInvalidSubscription(e *env) {
	for name, change := range map[string]func(*driver.Subscription){
		"no topic":      func(s *driver.Subscription) { s.Topic = "" },
		"wild topic":    func(s *driver.Subscription) { s.Topic = "a.*" },
		"no group":      func(s *driver.Subscription) { s.Group = "" },
		"no start":      func(s *driver.Subscription) { s.From = 0 },
		"negative size": func(s *driver.Subscription) { s.MaxInFlight = -1 },
	} {
		sub := e.sub("g")
		change(&sub)
		if err := e.Broker.Subscribe(e.Context(), sub, func(driver.Delivery) {}); !errors.Is(err, driver.ErrInvalid) {
			e.Errorf("Subscribe with %s = %v, want driver.ErrInvalid", name, err)
		}
	}
}
