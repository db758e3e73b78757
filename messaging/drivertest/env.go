package drivertest

import (
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

// env is what a case works with: the harness and a topic of its own.
type env struct {
	t     *testing.T
	h     Harness
	topic string
}

func setup(t *testing.T, h Harness) *env {
	t.Helper()
	if h.Broker == nil || h.AckWait <= 0 {
		t.Fatal("drivertest: a Harness needs Broker and AckWait")
	}
	if h.Wait == 0 {
		h.Wait = 30 * time.Second
	}
	e := &env{t: t, h: h, topic: "t" + strings.ToLower(rand.Text()) + ".v1"}
	t.Cleanup(func() { e.close(h.Broker) })
	return e
}

func (e *env) close(b driver.Broker) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.t.Context()), e.h.Wait)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		e.t.Errorf("Close = %v, want nil", err)
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

func (e *env) publish(msgs ...driver.Message) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), e.h.Wait)
	defer cancel()
	if err := e.h.Broker.Publish(ctx, msgs); err != nil {
		e.t.Fatalf("Publish of %d messages = %v, want nil", len(msgs), err)
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

// subscribe starts a member that acknowledges everything.
func (e *env) subscribe(group string, from driver.Start) *member {
	return e.join(driver.Subscription{Topic: e.topic, Group: group, From: from}, e.ack)
}

// hold starts a member that acknowledges nothing.
func (e *env) hold(group string, from driver.Start, limit int) *member {
	return e.join(driver.Subscription{Topic: e.topic, Group: group, From: from, MaxInFlight: limit}, nil)
}

// ready makes the group known to the broker, placed at the end of the topic.
func (e *env) ready(group string) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), e.h.Wait)
	defer cancel()
	sub := driver.Subscription{Topic: e.topic, Group: group, From: driver.FromNow}
	if err := e.h.Broker.Declare(ctx, sub); err != nil {
		e.t.Fatalf("Declare(%+v) = %v, want nil", sub, err)
	}
}

func (e *env) ack(d driver.Delivery) {
	if err := d.Ack(context.WithoutCancel(e.t.Context())); err != nil {
		e.t.Errorf("Ack of %s = %v, want nil", d.ID, err)
	}
}

// attempt checks the number of a delivery, which has to be want, or want and more where the broker
// counts so.
func (e *env) attempt(d driver.Delivery, want int) {
	e.t.Helper()
	if d.Attempt != want && (d.Attempt < want || !e.h.CountsAhead) {
		e.t.Errorf("%s has attempt %d, want %d", d.ID, d.Attempt, want)
	}
}

func (e *env) join(sub driver.Subscription, handle func(driver.Delivery)) *member {
	return e.joinOn(e.h.Broker, sub, handle)
}

func (e *env) joinOn(b driver.Broker, sub driver.Subscription, handle func(driver.Delivery)) *member {
	ctx, cancel := context.WithCancel(e.t.Context())
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
	e.t.Cleanup(cancel)
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
	m.e.t.Helper()
	deadline := time.After(m.e.h.Wait)
	for {
		got, changed := m.all()
		if done(got) {
			return got
		}
		select {
		case <-changed:
		case err := <-m.result:
			m.result <- err
			m.e.t.Fatalf("waiting for %s: Subscribe returned %v after %v", what, err, ids(got))
		case <-deadline:
			m.e.t.Fatalf("waited %v for %s, got %v", m.e.h.Wait, what, ids(got))
		}
	}
}

// wait waits for n deliveries, probes not counted, and returns at least so many.
func (m *member) wait(n int) []driver.Delivery {
	m.e.t.Helper()
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
	m.e.t.Helper()
	seen, _ := m.all()
	deadline, tick := time.After(m.e.h.Wait), time.NewTicker(20*time.Millisecond)
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
			m.e.t.Fatalf("Subscribe returned %v at once", err)
		case <-deadline:
			m.e.t.Fatalf("no message reached the new member in %v", m.e.h.Wait)
		}
	}
	last := m.e.msg("probe-"+rand.Text(), "probe")
	m.e.publish(last)
	m.until("the last probe", func(got []driver.Delivery) bool { return slices.Contains(ids(got), last.ID) })
}

// stop cancels the member and waits for Subscribe to return nil.
func (m *member) stop() {
	m.e.t.Helper()
	m.cancel()
	m.ended("its context was cancelled")
}

// ended waits for Subscribe to return nil because of what happened.
func (m *member) ended(what string) {
	m.e.t.Helper()
	select {
	case err := <-m.result:
		if err != nil {
			m.e.t.Errorf("Subscribe = %v after %s, want nil", err, what)
		}
	case <-time.After(m.e.h.Wait):
		m.e.t.Fatalf("Subscribe did not return within %v after %s", m.e.h.Wait, what)
	}
}

// genuine returns the deliveries without the probes.
func genuine(list []driver.Delivery) []driver.Delivery {
	var out []driver.Delivery
	for _, d := range list {
		if !strings.HasPrefix(d.ID, "probe-") {
			out = append(out, d)
		}
	}
	return out
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
