package drivertest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// testBadLink publishes and consumes over a link that is bad for a while, in each of several ways:
// once it is good again all that was published comes.
func testBadLink(e *env) {
	b, link := e.Linked(e.T)
	e.Cleanup(func() { e.close(b) })
	m := e.joinOn(b, e.sub("g"), func(d driver.Delivery) {
		if err := d.Ack(context.WithoutCancel(e.Context())); err != nil {
			e.Logf("Ack of %s: %v", d.ID, err) // then it comes again
		}
	})
	e.insistOn(b, e.msgs("first", 1))
	m.sees("first0")
	for _, c := range []struct {
		name string
		make func()
	}{
		{"delay", func() { link.Slow(150*time.Millisecond, 0) }},
		{"one byte a second", func() { link.Slow(0, 1) }},
		{"reset", link.Cut},
		{"nothing to the server", func() { link.Block(true, false) }},
		{"nothing from the server", func() { link.Block(false, true) }},
		{"half-open", func() { link.Block(true, true) }},
		{"half-open, then reset", func() { link.Block(true, true); time.AfterFunc(time.Second, link.Cut) }},
	} {
		start := time.Now()
		c.make()
		done := make(chan struct{})
		var want []string
		go func() {
			defer close(done)
			for i := range 3 {
				batch := e.msgs(fmt.Sprint(c.name, i, "-"), 40)
				want = append(want, sent(batch)...)
				e.insistOn(b, batch)
			}
		}()
		<-time.After(1500 * time.Millisecond)
		link.Slow(0, 0)
		link.Block(false, false)
		<-done
		m.until("all messages after "+c.name, func(got []driver.Delivery) bool {
			have := ids(got)
			return !slices.ContainsFunc(want, func(id string) bool { return !slices.Contains(have, id) })
		})
		e.Logf("%s: all there after %v", c.name, time.Since(start))
	}
	m.stop()
}
