package drivertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/messaging/driver"
)

// Opening tests what open says of URLs, whose password is "secret", by the text that its error has
// to have. Of those in refused it says that they cannot be used. Those in away are of servers that
// cannot be reached, which is an error of Healthy and Declare alone.
func Opening(t *testing.T, open func(ctx context.Context, url string) (driver.Broker, error), refused, away map[string]string) {
	t.Helper()
	check := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s = %v, want an error with %q and no password", what, err, want)
		}
	}
	for url, want := range refused {
		b, err := open(t.Context(), url)
		if check("Open of "+url, err, want); err == nil {
			_ = b.Close(t.Context())
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for url, want := range away {
		if _, err := open(ended, url); !errors.Is(err, context.Canceled) {
			t.Errorf("Open of %s with a cancelled context = %v, want context.Canceled", url, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		b, err := open(ctx, url)
		cancel()
		if err != nil {
			t.Errorf("Open of %s = %v, want nil", url, err)
			continue
		}
		healthy := b.(driver.HealthReporter).Healthy //nolint:forcetypeassert // all drivers are
		check("Healthy at "+url, healthy(), "")
		waittest.Said(t, func() string { // a machine that stood still has made Open end before it knew why
			if err := healthy(); err == nil || !strings.Contains(err.Error(), want) {
				return fmt.Sprintf("Healthy at %s = %v, want an error with %q", url, err, want)
			}
			return ""
		})
		check("Healthy at "+url, healthy(), want)
		check("Declare at "+url, b.Declare(t.Context(), driver.Subscription{Topic: "t"}), want)
		if err := b.Close(t.Context()); err != nil {
			t.Errorf("Close at %s = %v, want nil", url, err)
		}
	}
}

func testCancelEndsSubscribe(e *env) {
	m := e.subscribe("g")
	m.probe()
	start := time.Now()
	m.stop()
	if took := time.Since(start); took > 10*time.Second {
		e.Errorf("Subscribe took %v to return after its context was cancelled, want about none", took)
	}
	ctx, cancel := context.WithCancel(e.Context())
	cancel()
	if err := e.Broker.Subscribe(ctx, e.sub("g"), func(d driver.Delivery) { e.Errorf("delivery of %s to a cancelled Subscribe", d.ID) }); err != nil {
		e.Errorf("Subscribe with a cancelled context = %v, want nil", err)
	}
}

func testCloseEndsAll(e *env) {
	a, b := e.subscribe("a"), e.subscribe("b")
	a.probe()
	b.probe()
	e.close(e.Broker)
	a.ended("Close")
	b.ended("Close")
	e.close(e.Broker)
	for name, err := range map[string]error{
		"Declare":   e.Broker.Declare(e.Context(), driver.Subscription{Topic: e.topic}),
		"Publish":   e.Broker.Publish(e.Context(), e.msgs("m", 1)),
		"Publish30": e.Broker.Publish(e.Context(), e.msgs("m", 30)),
		"Subscribe": e.Broker.Subscribe(e.Context(), e.sub("a"), func(driver.Delivery) {}),
	} {
		if !errors.Is(err, driver.ErrClosed) {
			e.Errorf("%s after Close = %v, want driver.ErrClosed", name, err)
		}
	}
}

// testNoGoroutineLeft marks all goroutines that come from opening and using a connection by a
// profiler label, which they hand down, and looks for the mark after Close.
func testNoGoroutineLeft(e *env) {
	mark := rand.Text()
	pprof.Do(e.Context(), pprof.Labels("drivertest", mark), func(context.Context) {
		e.Broker = e.Open(e.T)
		m := e.subscribe("g")
		m.probe()
		e.send("m", 30)
		m.wait(30)
		stays := e.take("h", 0, nil)
		stays.probe()
		m.stop()
		e.close(e.Broker)
		stays.ended("Close")
	})
	deadline, tick := time.After(e.Wait+10*time.Second), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		left := marked(mark)
		if left == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			e.Fatalf("goroutines left after Close:\n%s", left)
		}
	}
}

// marked returns the stacks of the goroutines with a label.
func marked(mark string) string {
	var buf bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&buf, 1); err != nil {
		return err.Error()
	}
	var out []string
	for block := range strings.SplitSeq(buf.String(), "\n\n") {
		if strings.Contains(block, mark) {
			out = append(out, block)
		}
	}
	return strings.Join(out, "\n\n")
}

// testRestartLosesNothing publishes, restarts the server twice in the middle and expects every
// message whose Publish returned nil. A publisher that gets an error tries again with the same ids,
// as the outbox does.
func testRestartLosesNothing(e *env) {
	try := func(d driver.Delivery) { // an Ack may fail meanwhile: then the message comes again
		if err := d.Ack(context.WithoutCancel(e.Context())); err != nil {
			e.Logf("Ack of %s: %v", d.ID, err)
		}
	}
	m := e.join(e.sub("g"), try)
	var want []string
	publish := func(round int) {
		for _, size := range []int{1, 3, 20} {
			batch := e.msgs(fmt.Sprintf("r%d-%d-", round, size), size)
			e.insist(batch)
			want = append(want, sent(batch)...)
		}
	}
	publish(0)
	m.wait(len(want)) // the member has joined: whether a server that dies in the middle of that is waited for is another question
	for round := 1; round <= 2; round++ {
		restarted, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for n := 0; ; n++ {
				publish(1000*round + n)
				select {
				case <-restarted:
					publish(1000*round + n + 1)
					return
				default:
				}
			}
		}()
		e.Restart(e.T)
		close(restarted)
		<-done
	}
	missing := func(got []driver.Delivery) []string {
		have := ids(got)
		return slices.DeleteFunc(slices.Clone(want), func(id string) bool { return slices.Contains(have, id) })
	}
	got := m.until("all messages around two restarts", func(got []driver.Delivery) bool { return len(missing(got)) == 0 })
	e.Logf("%d messages, %d deliveries around two restarts", len(want), len(genuine(got)))
	m.stop()
	next := e.subscribe("g")
	e.insist(e.msgs("marker", 1))
	next.sees("marker0")
}

// insistTimeout bounds one try: an answer that is late may never come.
const insistTimeout = 5 * time.Second

// insist publishes until it works.
func (e *env) insist(batch []driver.Message) { e.insistOn(e.Broker, batch) }

func (e *env) insistOn(b driver.Broker, batch []driver.Message) {
	ctx, cancel := context.WithTimeout(e.Context(), e.Wait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		once, end := context.WithTimeout(ctx, insistTimeout)
		err := b.Publish(once, batch)
		end()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			e.Errorf("Publish still fails after %v: %v", e.Wait, err)
			return
		}
	}
}
