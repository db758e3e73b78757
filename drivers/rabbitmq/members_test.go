package rabbitmq_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

// A ledger checks what the members of a group get: each key's first deliveries in the order of
// publishing, and never a key with two members at once.
type ledger struct {
	t  *testing.T
	mu sync.Mutex

	last    map[string]int            // by key: the highest number delivered
	busy    map[string]map[string]int // by key: deliveries in hand by member
	count   map[string]int            // by member
	seen    map[string]bool           // ids
	ordered bool                      // check busy, too
}

func newLedger(t *testing.T) *ledger {
	return &ledger{t: t, last: map[string]int{}, busy: map[string]map[string]int{}, count: map[string]int{}, seen: map[string]bool{}, ordered: true}
}

func (l *ledger) begin(member string, d driver.Delivery) {
	var n int
	if _, err := fmt.Sscanf(d.ID, d.Key+"-%d", &n); err != nil {
		l.t.Errorf("id %q of key %q: %v", d.ID, d.Key, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.seen[d.ID] && n != l.last[d.Key]+1 {
		l.t.Errorf("member %s got %s for the first time after %s-%d", member, d.ID, d.Key, l.last[d.Key])
	}
	l.last[d.Key] = max(l.last[d.Key], n)
	l.seen[d.ID] = true
	l.count[member]++
	if l.busy[d.Key] == nil {
		l.busy[d.Key] = map[string]int{}
	}
	l.busy[d.Key][member]++
	for other, n := range l.busy[d.Key] {
		if l.ordered && other != member && n > 0 {
			l.t.Errorf("member %s got %s while %s has %d messages of its key in hand", member, d.ID, other, n)
		}
	}
}

func (l *ledger) end(member string, d driver.Delivery) {
	l.mu.Lock()
	l.busy[d.Key][member]--
	l.mu.Unlock()
}

func (l *ledger) counts(members ...string) (least int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	least = l.count[members[0]]
	for _, m := range members {
		least = min(least, l.count[m])
	}
	return least
}

func (l *ledger) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.count)
}

// handle takes a while for each delivery, as a handler does, without keeping deliver from the next.
func (l *ledger) handle(member string, d driver.Delivery) {
	if d.ID == "probe" { // of join
		_ = d.Ack(context.Background())
		return
	}
	l.begin(member, d)
	time.AfterFunc(5*time.Millisecond, func() {
		l.end(member, d)
		if err := d.Ack(context.Background()); err != nil {
			l.t.Logf("Ack: %v", err) // comes again
		}
	})
}

// A publisher publishes one message for each key, numbered, again and again. It goes on only when
// all are confirmed.
type publisher struct {
	b     driver.Broker
	topic string
	keys  int
	round int
}

func (p *publisher) publish(ctx context.Context) error {
	batch := make([]driver.Message, p.keys)
	for k := range batch {
		key := fmt.Sprint("key", k)
		batch[k] = message(p.topic, fmt.Sprintf("%s-%d", key, p.round+1), key)
	}
	err := p.b.Publish(ctx, batch)
	if err == nil {
		p.round++
	}
	return err
}

// TestMembersShareByKey: three members of a group get shares, of which no key has two owners, while
// members come and go.
func TestMembersShareByKey(t *testing.T) {
	t.Parallel()
	url := servertest.VHost(t) + "?partitions=6"
	l := newLedger(t)
	brokers := map[string]driver.Broker{}
	stops := map[string]func(){}
	o := options()
	o.AckWait = time.Minute // what comes again on a busy machine would be with two members
	start := func(name string) {
		b := open(t, url, o)
		brokers[name] = b
		ctx, stop := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() {
			sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromNow}
			result <- b.Subscribe(ctx, sub, func(d driver.Delivery) { l.handle(name, d) })
		}()
		stops[name] = func() {
			stop()
			if err := <-result; err != nil {
				t.Errorf("Subscribe of %s = %v, want nil", name, err)
			}
		}
		t.Cleanup(func() { closeNow(t, b) })
	}
	ready := join(t, open(t, url, options()), driver.Subscription{Topic: "t", Group: "g"}) // so that nothing is published before the group is there
	ready.stop()
	if err := ready.ended(t); err != nil {
		t.Fatal(err)
	}
	start("a")
	p := &publisher{b: brokers["a"], topic: "t", keys: 40}
	await := func(what string, members ...string) {
		l.reset()
		until(t, what, func() bool {
			if err := p.publish(t.Context()); err != nil {
				t.Fatalf("Publish = %v", err)
			}
			return l.counts(members...) >= 3*40/4
		})
	}
	await("the first member to work", "a")
	start("b")
	start("c")
	await("all three to work", "a", "b", "c")
	stops["b"]() // in the middle of its work
	await("the other two to work", "a", "c")
	start("b")
	await("all three to work again", "a", "b", "c")
	until(t, "the last messages", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.seen) == 40*p.round
	})
	for _, stop := range stops {
		stop()
	}
	t.Logf("%d messages", 40*p.round)
}

// TestCrash kills the server twice in the middle of traffic, with the suite's own case for that and
// three members of a group: nothing that was confirmed is lost, a delay goes on, everybody gets
// back to work. It has a server of its own.
func TestCrash(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.RabbitMQ)
	url := server.URL()
	l := newLedger(t)
	l.ordered = false // what a broken connection left in a handler's hand is with another member at once
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ready := join(t, open(t, url, options()), driver.Subscription{Topic: "t", Group: "g"})
	ready.stop()
	if err := ready.ended(t); err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 10)
	for _, name := range []string{"a", "b"} {
		b := open(t, url, options())
		t.Cleanup(func() { closeNow(t, b) })
		go func() {
			sub := driver.Subscription{Topic: "t", Group: "g", From: driver.FromNow}
			results <- b.Subscribe(ctx, sub, func(d driver.Delivery) { l.handle(name, d) })
		}()
	}
	b := open(t, url, options())
	t.Cleanup(func() { closeNow(t, b) })
	delayed := join(t, b, driver.Subscription{Topic: "delayed", Group: "g"})
	if err := b.Publish(t.Context(), messages("delayed", "m", 1)); err != nil {
		t.Fatal(err)
	}
	if err := delayed.next(t).Nack(t.Context(), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	p := &publisher{b: b, topic: "t", keys: 20}
	publishing, stopPublishing := context.WithCancel(t.Context())
	failures := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for publishing.Err() == nil {
			if p.publish(context.WithoutCancel(publishing)) != nil {
				failures++
			}
			<-tick.C
		}
	}()
	for _, c := range drivertest.Cases() {
		if c.Needs == nil || c.Needs(drivertest.Harness{}) || !c.Needs(drivertest.Harness{Restart: func(*testing.T) {}}) {
			continue // not about restarts
		}
		t.Run(c.Name, func(t *testing.T) {
			h := harness(t, url)
			h.Wait = 90 * time.Second
			h.Restart = func(t *testing.T) {
				t.Helper()
				if err := server.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			c.Run(t, h)
		})
	}
	stopPublishing()
	<-done
	if failures == 0 {
		t.Error("no Publish failed while the server was killed twice")
	}
	until(t, "everything that was confirmed", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for k := range p.keys {
			for n := range p.round {
				if !l.seen[fmt.Sprintf("key%d-%d", k, n+1)] {
					return false
				}
			}
		}
		return true
	})
	if d := delayed.next(t); d.ID != "m0" || d.Attempt < 2 {
		t.Errorf("after its delay came %s, attempt %d; want m0, 2 or more", d.ID, d.Attempt)
	}
	stop()
	for range 2 {
		if err := <-results; err != nil {
			t.Errorf("Subscribe = %v, want nil", err)
		}
	}
	t.Logf("%d messages, %d failed calls of Publish", p.keys*p.round, failures)
}
