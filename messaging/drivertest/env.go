package drivertest

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// env is what a case works with: the test, the harness and a topic of its own.
type env struct {
	*testing.T
	Harness

	topic string
}

// with makes a Run of test. The groups are known to the broker before it begins.
func with(test func(e *env), groups ...string) func(*testing.T, Harness) {
	return func(t *testing.T, h Harness) {
		if h.Broker == nil || h.AckWait <= 0 {
			t.Fatal("drivertest: a Harness needs Broker and AckWait")
		}
		h.Wait, h.Parts = cmp.Or(h.Wait, 30*time.Second), cmp.Or(h.Parts, 3)
		e := &env{T: t, Harness: h, topic: "t" + strings.ToLower(rand.Text()) + ".v1"}
		t.Cleanup(func() { e.close(h.Broker) })
		e.ready(groups...)
		test(e)
	}
}

func (e *env) close(b driver.Broker) {
	e.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.Context()), e.Wait)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		e.Errorf("Close = %v, want nil", err)
	}
}

// same compares the ids of deliveries.
func (e *env) same(who string, got []driver.Delivery, want ...string) {
	e.Helper()
	if !slices.Equal(ids(got), want) {
		e.Errorf("%s got %v, want %v", who, ids(got), want)
	}
}

// msg makes a message to the case's topic whose data is its id.
func (e *env) msg(id, key string) driver.Message {
	return driver.Message{ID: id, Topic: e.topic, Key: key, Data: []byte(id)}
}

// msgs makes n messages with ids prefix0, prefix1… that share a key.
func (e *env) msgs(prefix string, n int) []driver.Message {
	list := make([]driver.Message, n)
	for i := range list {
		list[i] = e.msg(fmt.Sprint(prefix, i), "k")
	}
	return list
}

// send publishes msgs(prefix, n) and returns their ids.
func (e *env) send(prefix string, n int) []string {
	e.Helper()
	list := e.msgs(prefix, n)
	e.publish(list...)
	return sent(list)
}

func (e *env) publish(msgs ...driver.Message) {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.Context(), e.Wait)
	defer cancel()
	if err := e.Broker.Publish(ctx, msgs); err != nil {
		e.Fatalf("Publish of %d messages = %v, want nil", len(msgs), err)
	}
}

// A member is a Subscribe call that runs, and what it received.
type member struct {
	e      *env
	cancel context.CancelFunc
	result chan error

	mu      sync.Mutex
	got     []driver.Delivery
	changed chan struct{} // closed and replaced at every delivery
}

// sub is a subscription of group from now on.
func (e *env) sub(group string) driver.Subscription {
	return driver.Subscription{Topic: e.topic, Group: group, From: driver.FromNow}
}

// subscribe starts a member from now on that acknowledges everything.
func (e *env) subscribe(group string) *member { return e.join(e.sub(group), e.ack) }

// take starts a member with a limit of messages in flight; nil handle acknowledges nothing.
func (e *env) take(group string, limit int, handle func(driver.Delivery)) *member {
	sub := e.sub(group)
	sub.MaxInFlight = limit
	return e.join(sub, handle)
}

// held publishes one message, m, and returns it and the member that holds it.
func (e *env) held(limit int) (*member, driver.Delivery) {
	e.Helper()
	e.publish(e.msg("m", "k"))
	m := e.take("g", limit, nil)
	return m, m.wait(1)[0]
}

// ready makes the groups known to the broker, each at the end of the topic.
func (e *env) ready(groups ...string) {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.Context(), e.Wait)
	defer cancel()
	for _, group := range groups {
		if err := e.Broker.Declare(ctx, e.sub(group)); err != nil {
			e.Fatalf("Declare(%+v) = %v, want nil", e.sub(group), err)
		}
	}
}

func (e *env) ack(d driver.Delivery) {
	if err := d.Ack(context.WithoutCancel(e.Context())); err != nil {
		e.Errorf("Ack of %s = %v, want nil", d.ID, err)
	}
}

func (e *env) nack(d driver.Delivery, after time.Duration) {
	if err := d.Nack(context.WithoutCancel(e.Context()), after); err != nil {
		e.Errorf("Nack of %s = %v, want nil", d.ID, err)
	}
}

// attempt checks the number of a delivery, which has to be want, or want and more where the broker
// counts so.
func (e *env) attempt(d driver.Delivery, want int) {
	e.Helper()
	if d.Attempt != want && (d.Attempt < want || !e.CountsAhead) {
		e.Errorf("%s has attempt %d, want %d", d.ID, d.Attempt, want)
	}
}

func (e *env) join(sub driver.Subscription, handle func(driver.Delivery)) *member {
	return e.joinOn(e.Broker, sub, handle)
}

func (e *env) joinOn(b driver.Broker, sub driver.Subscription, handle func(driver.Delivery)) *member {
	ctx, cancel := context.WithCancel(e.Context())
	m := &member{e: e, cancel: cancel, result: make(chan error, 1), changed: make(chan struct{})}
	go func() {
		m.result <- b.Subscribe(ctx, sub, func(d driver.Delivery) {
			if handle != nil {
				handle(d) // first, so that what was waited for is also acknowledged
			}
			m.mu.Lock()
			m.got = append(m.got, d)
			close(m.changed)
			m.changed = make(chan struct{})
			m.mu.Unlock()
		})
	}()
	e.Cleanup(cancel)
	return m
}

// all returns what was delivered so far and a channel that closes at the next delivery.
func (m *member) all() ([]driver.Delivery, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clip(m.got), m.changed
}

// until waits for deliveries of which done says that they are enough, and returns them.
func (m *member) until(what string, done func([]driver.Delivery) bool) []driver.Delivery {
	m.e.Helper()
	deadline := time.After(m.e.Wait)
	for {
		got, changed := m.all()
		if done(got) {
			return got
		}
		select {
		case <-changed:
		case err := <-m.result:
			m.result <- err
			m.e.Fatalf("waiting for %s: Subscribe returned %v after %v", what, err, ids(got))
		case <-deadline:
			m.e.Fatalf("waited %v for %s, got %v", m.e.Wait, what, ids(got))
		}
	}
}

// sees waits for the delivery with an id and returns all until then.
func (m *member) sees(id string) []driver.Delivery {
	m.e.Helper()
	return m.until(id, func(got []driver.Delivery) bool { return slices.Contains(ids(got), id) })
}

// wait waits for n deliveries, probes not counted, and returns at least so many.
func (m *member) wait(n int) []driver.Delivery {
	m.e.Helper()
	got := m.until(fmt.Sprint(n, " deliveries"), func(got []driver.Delivery) bool { return len(genuine(got)) >= n })
	return genuine(got)
}

// quiet lets d pass and returns everything that was delivered until then, probes not counted.
func (m *member) quiet(d time.Duration) []driver.Delivery {
	<-time.After(d)
	got, _ := m.all()
	return genuine(got)
}

// probe publishes until a message arrives: then the member is known to the broker. It leaves no
// probe behind.
func (m *member) probe() {
	m.e.Helper()
	seen, _ := m.all()
	deadline, tick := time.After(m.e.Wait), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		m.e.publish(m.e.msg("probe-"+rand.Text(), "probe"))
		got, changed := m.all()
		if len(got) > len(seen) {
			break
		}
		select {
		case <-changed:
		case <-tick.C:
		case err := <-m.result:
			m.e.Fatalf("Subscribe returned %v at once", err)
		case <-deadline:
			m.e.Fatalf("no message reached the new member in %v", m.e.Wait)
		}
	}
	last := m.e.msg("probe-"+rand.Text(), "probe")
	m.e.publish(last)
	m.sees(last.ID)
}

// stop cancels the member and waits for Subscribe to return nil.
func (m *member) stop() {
	m.e.Helper()
	m.cancel()
	m.ended("its context was cancelled")
}

// ended waits for Subscribe to return nil because of what happened.
func (m *member) ended(what string) {
	m.e.Helper()
	select {
	case err := <-m.result:
		if err != nil {
			m.e.Errorf("Subscribe = %v after %s, want nil", err, what)
		}
	case <-time.After(m.e.Wait):
		m.e.Fatalf("Subscribe did not return within %v after %s", m.e.Wait, what)
	}
}

// genuine returns the deliveries without the probes.
func genuine(list []driver.Delivery) []driver.Delivery {
	return slices.DeleteFunc(slices.Clone(list), func(d driver.Delivery) bool { return strings.HasPrefix(d.ID, "probe-") })
}

func ids(list []driver.Delivery) []string {
	out := make([]string, len(list))
	for i, d := range list {
		out[i] = d.ID
	}
	return out
}

func sent(list []driver.Message) []string {
	out := make([]string, len(list))
	for i, m := range list {
		out[i] = m.ID
	}
	return out
}
