package drivertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// orderedKeys are enough for every partition to have some, nearly always.
const orderedKeys = 96

// A ledger has what the members of one group with Ordered got, all together.
type ledger struct {
	e    *env
	hold time.Duration // between a delivery and its acknowledgement
	acks sync.WaitGroup

	mu      sync.Mutex
	last    map[string]int       // key → the highest number that came
	seen    map[string]int       // id → how often it came
	holders map[string]string    // key → the member with a message that is not acknowledged
	open    map[string]int       // key → how many such messages
	since   map[string]time.Time // key → since when it has some
	member  map[string]string    // key → the member that had it last
	changed chan struct{}
}

func (e *env) ledger() *ledger {
	return &ledger{
		e: e, hold: 10 * time.Millisecond, last: make(map[string]int), seen: make(map[string]int), holders: make(map[string]string),
		open: make(map[string]int), since: make(map[string]time.Time),
		member: make(map[string]string), changed: make(chan struct{}),
	}
}

func (e *env) ordered() driver.Subscription {
	sub := e.sub("g")
	sub.Ordered = true
	return sub
}

// join starts a member that acknowledges each message some time after it came, from another
// goroutine.
func (l *ledger) join(b driver.Broker, name string) *member {
	sub := l.e.ordered()
	sub.MaxInFlight = 512
	return l.e.joinOn(b, sub, func(d driver.Delivery) {
		l.came(name, d)
		l.acks.Add(1)
		time.AfterFunc(l.hold, func() {
			defer l.acks.Done()
			l.mu.Lock()
			if l.open[d.Key]--; l.open[d.Key] == 0 {
				delete(l.holders, d.Key)
			}
			l.mu.Unlock()
			if err := d.Ack(context.WithoutCancel(l.e.Context())); err != nil {
				l.e.Logf("Ack of %s by member %s: %v", d.ID, name, err) // the partition has moved: it comes again
			}
		})
	})
}

// came notes a delivery, and finds what must not be: one that was overtaken by a later one of its
// key, and a key that two members have at a time.
func (l *ledger) came(name string, d driver.Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int
	if _, err := fmt.Sscan(string(d.Data), &n); err != nil {
		l.e.Errorf("data of %s is %q, want its number", d.ID, d.Data)
	}
	if l.open[d.Key] == 0 {
		l.since[d.Key] = time.Now()
	}
	// Nothing is said of one that was held for long, as happens on a busy machine.
	if holder, held := l.holders[d.Key]; held && holder != name && time.Since(l.since[d.Key]) < l.e.AckWait/2 {
		l.e.Errorf("%s went to member %s while member %s had messages of key %s", d.ID, name, holder, d.Key)
	}
	l.holders[d.Key] = name
	l.open[d.Key]++
	if l.seen[d.ID]++; l.seen[d.ID] == 1 {
		if n != l.last[d.Key]+1 {
			l.e.Errorf("number %d of key %s came first after number %d, to member %s, want %d", n, d.Key, l.last[d.Key], name, l.last[d.Key]+1)
		}
		l.last[d.Key] = max(n, l.last[d.Key])
	}
	l.member[d.Key] = name
	close(l.changed)
	l.changed = make(chan struct{})
}

// send publishes the number n of each key.
func (l *ledger) send(n int) {
	l.e.Helper()
	batch := make([]driver.Message, orderedKeys)
	for i := range batch {
		key := fmt.Sprint("k", i)
		batch[i] = l.e.msg(fmt.Sprint(key, "-", n), key)
		batch[i].Data = fmt.Append(nil, n)
	}
	l.e.publish(batch...)
}

// until waits until done says so of what came.
func (l *ledger) until(what string, done func() bool) {
	l.e.Helper()
	deadline := time.After(l.e.Wait)
	for {
		l.mu.Lock()
		ok, changed := done(), l.changed
		l.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			l.mu.Lock()
			defer l.mu.Unlock()
			l.e.Fatalf("waited %v for %s; the last number of each key is %v, the last member %v", l.e.Wait, what, l.last, l.member)
		}
	}
}

// burst sends some numbers from n on, and returns the next.
func (l *ledger) burst(n int) int {
	l.e.Helper()
	for range 6 {
		l.send(n)
		n++
		<-time.After(20 * time.Millisecond)
	}
	return n
}

// all waits until number n of every key has come.
func (l *ledger) all(n int) {
	l.e.Helper()
	l.until(fmt.Sprint("number ", n, " of every key"), func() bool { return l.complete(n) })
}

func (l *ledger) complete(n int) bool {
	for i := range orderedKeys {
		if l.last[fmt.Sprint("k", i)] < n {
			return false
		}
	}
	return true
}

// parts returns how many keys each member had last.
func (l *ledger) parts() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	count := make(map[string]int)
	for _, name := range l.member {
		count[name]++
	}
	return count
}

// balanced sends numbers from n on until all the members have their part of the keys, and returns
// the next number.
func (l *ledger) balanced(n int, members ...string) int {
	l.e.Helper()
	deadline := time.Now().Add(l.e.Wait)
	for {
		l.send(n)
		l.all(n)
		n++
		parts, fair := l.parts(), true
		for _, name := range members {
			fair = fair && parts[name] > 0
		}
		if fair && len(parts) == len(members) {
			return n
		}
		if time.Now().After(deadline) {
			l.e.Fatalf("after %v the members have of %d keys %v, want all of %v to have some", l.e.Wait, orderedKeys, parts, members)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// connections returns n brokers of as many connections, where there can be more than one.
func (e *env) connections(n int) []driver.Broker {
	list := []driver.Broker{e.Broker}
	for len(list) < n {
		if e.Open == nil {
			list = append(list, e.Broker)
			continue
		}
		b := e.Open(e.T)
		e.Cleanup(func() { e.close(b) })
		list = append(list, b)
	}
	return list
}

// testOrderedShares: members come and go, and each key has one of them at a time.
func testOrderedShares(e *env) {
	l, b := e.ledger(), e.connections(e.Parts)
	l.hold = e.AckWait / 4 // longer than a partition takes to move
	var members []*member
	var names []string
	n := 1
	for i := range b {
		names = append(names, fmt.Sprint(i))
		members = append(members, l.join(b[i], names[i]))
		n = l.balanced(l.burst(n), names...) // partitions move with messages in flight
	}
	parts := l.parts()
	e.Logf("of %d keys the members have %v", orderedKeys, parts)
	for len(members) > 1 {
		n = l.burst(n)
		members[0].stop()
		members, names = members[1:], names[1:]
		n = l.balanced(l.burst(n), names...)
	}
	members[0].stop()
	e.once(l)
}

// once waits for the acknowledgements, and logs how often messages came more than once: that costs time, and is no error.
func (e *env) once(l *ledger) {
	l.acks.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	more := 0
	for _, times := range l.seen {
		more += times - 1
	}
	e.Logf("%d messages, %d deliveries more", len(l.seen), more)
}

// testOrderedStorm: while two members stay, a third joins and leaves every 200 ms.
func testOrderedStorm(e *env) {
	l, b := e.ledger(), e.connections(3)
	stay := []*member{l.join(b[0], "0"), l.join(b[1], "1")}
	n := 1
	for round := range 12 {
		name := fmt.Sprint("guest ", round)
		guest := l.join(b[2], name)
		for end := time.After(200 * time.Millisecond); ; n++ {
			l.send(n)
			select {
			case <-time.After(20 * time.Millisecond):
				continue
			case <-end:
			}
			break
		}
		n++
		guest.stop()
	}
	l.all(n - 1)
	for _, m := range stay {
		m.stop()
	}
	e.once(l)
}

// testOrderedComesAgain: what is not acknowledged in time, or given back, comes again to a group
// with Ordered too, and then the later ones of the key in order.
func testOrderedComesAgain(e *env) {
	want := e.send("m", 2)
	sub := e.ordered()
	sub.MaxInFlight = 2
	first := e.join(sub, nil)
	e.same("the first member", first.wait(2)[:2], want...)
	again := first.wait(4)
	e.attempt(again[2], 2)
	first.stop()
	second := e.join(sub, e.ack)
	e.publish(e.msg("last", "k"))
	got := ids(second.sees("last"))
	if got[0] != want[0] || !slices.Contains(got, want[1]) {
		e.Errorf("the second member got %v, want %v before last", got, want)
	}
}

// testOrderedMemberDies kills a process that is a member and has messages in flight.
func testOrderedMemberDies(e *env) {
	l, b := e.ledger(), e.connections(2)
	for i := range b {
		l.join(b[i], fmt.Sprint(i))
	}
	n := l.balanced(1, "0", "1")
	dead := e.startMember()
	deadline := time.Now().Add(e.Wait)
	for !dead.has() { // some keys are its own now, and it acknowledges nothing
		if time.Now().After(deadline) {
			e.Fatalf("the member in a process of its own got nothing within %v", e.Wait)
		}
		l.send(n)
		n++
		<-time.After(20 * time.Millisecond)
	}
	l.send(n)
	dead.kill()
	start := time.Now()
	l.send(n + 1)
	l.all(n + 1)
	e.Logf("all that the dead member had was with others after %v", time.Since(start))
	e.once(l)
}
