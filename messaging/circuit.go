package messaging

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar/internal/steady"
)

const (
	circuitTries    = 20 // number of recent tries that count
	circuitFailures = 10 // how many of them must have failed
	circuitKeys     = 3  // with how many keys; one bad key must not open it
	firstProbe      = time.Second
	lastProbe       = 30 * time.Second
)

// A circuit stops the handlers of a subscription while nearly all of them fail, as during an outage
// of something that they need. While it is open, one try at a time probes whether the outage is
// over, and no event is set aside. A nil circuit never opens.
type circuit struct {
	open   prometheus.Gauge
	outage steady.Outage

	mu      sync.Mutex
	last    []attempt // the oldest first
	opened  bool
	probing bool
	delay   time.Duration // after the next failed probe
	probeAt time.Time
	changed chan struct{} // closed when a probe ends; nil while nobody waits
}

type attempt struct {
	key    string
	failed bool
}

func newCircuit(c *consumer) *circuit {
	return &circuit{
		open: c.bus.metrics.circuit.WithLabelValues(c.topic, c.opts.Group),
		outage: steady.Outage{What: "what the handler needs", Log: c.bus.app.Logger(), Attrs: []slog.Attr{
			slog.String("topic", c.topic), slog.String("group", c.opts.Group),
		}},
	}
}

// enter waits until a handler may be called. ok is false if stop ended first. probe must be passed
// to note.
func (c *circuit) enter(stop context.Context) (probe, ok bool) {
	for {
		if stop.Err() != nil {
			return false, false
		}
		probe, ok, after, changed := c.try()
		if ok {
			return probe, true
		}
		timer := time.NewTimer(after)
		select {
		case <-timer.C:
		case <-changed:
		case <-stop.Done():
		}
		timer.Stop()
	}
}

// try is enter without waiting. If ok is false, the caller may try again after the time, or when
// changed is closed.
func (c *circuit) try() (probe, ok bool, after time.Duration, changed <-chan struct{}) {
	if c == nil {
		return false, true, 0, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.opened {
		return false, true, 0, nil
	}
	after = time.Until(c.probeAt)
	if !c.probing && after <= 0 {
		c.probing = true
		return true, true, 0, nil
	}
	if c.probing {
		after = lastProbe
	}
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return false, false, after, c.changed
}

// wait returns how long no try is possible, 0 if one is now. While a probe is under way that is not
// known, and it returns retryPoll.
func (c *circuit) wait() time.Duration {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.opened:
		return 0
	case c.probing:
		return retryPoll
	}
	return max(0, time.Until(c.probeAt))
}

// isOpen reports whether failures do not count now.
func (c *circuit) isOpen() bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened
}

// note records the result of a try. A try that called no handler or failed permanently does not
// show whether what the handler needs is available, so it does not count.
func (c *circuit) note(ctx context.Context, key string, probe bool, result outcome, err error) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	silent := err == nil && result != handled || err != nil && isPermanent(err)
	switch {
	case probe:
		c.probing = false
		if err == nil && !silent {
			c.opened, c.last = false, c.last[:0]
			c.open.Set(0)
			c.outage.Back(ctx)
		} else if !silent {
			c.probeAt = time.Now().Add(c.delay)
			c.delay = min(2*c.delay, lastProbe)
		}
		if c.changed != nil {
			close(c.changed)
			c.changed = nil
		}
	case !c.opened && !silent:
		c.last = append(c.last, attempt{key, err != nil})
		c.last = c.last[max(0, len(c.last)-circuitTries):]
		if c.broken() {
			c.opened, c.delay, c.probeAt = true, 2*firstProbe, time.Now().Add(firstProbe)
			c.open.Set(1)
			c.outage.Lost(ctx, err)
		}
	}
}

func (c *circuit) broken() bool {
	failures, keys := 0, make([]string, 0, circuitKeys)
	for _, a := range c.last {
		if !a.failed {
			continue
		}
		failures++
		if len(keys) < circuitKeys && !slices.Contains(keys, a.key) {
			keys = append(keys, a.key)
		}
	}
	return failures >= circuitFailures && len(keys) == circuitKeys
}
