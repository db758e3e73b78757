package messaging

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/transport"
)

const (
	// shareEvery is how often a service finds out which events its version handles.
	shareEvery = time.Second

	// shareWait is how long a service handles no events after its start because it does not know
	// that yet. Then it behaves as if there were no store of weights.
	shareWait = 10 * time.Second

	// An event of another version is given back up to mostPasses times: the first quickPasses at
	// once, later ones after growing pauses, about 20 s in all. Then its version seems to have no
	// room for it, and it is handled here.
	mostPasses  = 32
	quickPasses = 8
	firstPass   = 10 * time.Millisecond
	longestPass = time.Second
)

// A share says which events this version of the service handles.
type share struct {
	app       *kaptar.App
	last      atomic.Pointer[transport.EventShare] // nil: not known yet
	consuming atomic.Int64                         // subscriptions

	mu      sync.Mutex
	begun   time.Time // time of the first look
	missing string    // version that the log has named
}

func newShare(app *kaptar.App) *share {
	t := &share{app: app}
	gauge := func(name, help string, is func(s *transport.EventShare) bool) {
		app.Metrics().MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: name, Help: help, ConstLabels: prometheus.Labels{"service": app.Name()},
		}, func() float64 {
			if s := t.last.Load(); s != nil && is(s) {
				return 1
			}
			return 0
		}))
	}
	gauge("messaging_paused", "Whether this instance leaves all events to another version of the service, and has finished those that it had: 1 or 0.",
		func(s *transport.EventShare) bool { return s.None && t.consuming.Load() == 0 })
	gauge("messaging_version_missing", "Whether no instance is of a version that handles the events, which wait in the broker: 1 or 0.",
		func(s *transport.EventShare) bool { return s.Missing != "" })
	return t
}

func (t *share) follow(stop context.Context) error {
	for more := true; more; more = steady.Sleep(stop, shareEvery) {
		t.look(stop)
	}
	return nil
}

// look finds out which events are the service's now. It returns nil if that is not known yet.
func (t *share) look(ctx context.Context) *transport.EventShare {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.begun.IsZero() {
		t.begun = time.Now()
	}
	s := t.app.EventShare()
	if s.Unknown && time.Since(t.begun) < shareWait {
		return nil
	}
	if last := t.last.Swap(s); last == nil && s.None || last != nil && last.None != s.None {
		t.app.Logger().InfoContext(ctx, "events by version", "handles_events", !s.None, "version", t.app.Version())
	}
	if m := s.Missing; m != "" && m != t.missing {
		t.app.Logger().WarnContext(ctx, "events wait for a version of the service that has no instance: start one, "+
			"or change the weight "+t.app.Name()+"/events or those of its versions", "version", m)
	}
	t.missing = s.Missing
	return s
}

// now returns what look found last, or calls it.
func (t *share) now(ctx context.Context) *transport.EventShare {
	if s := t.last.Load(); s != nil {
		return s
	}
	return t.look(ctx)
}

// none reports whether the service has no events to handle, or does not know yet.
func (t *share) none(ctx context.Context) bool {
	s := t.now(ctx)
	return s == nil || s.None
}

// run consumes while the service has events to handle, and until stop ends.
func (c *consumer) run(stop context.Context, br driver.Broker, sub driver.Subscription) error {
	share := c.bus.share
	for done := false; !done; {
		if share.none(stop) {
			done = !steady.Sleep(stop, shareEvery/10)
			continue
		}
		ctx, end := context.WithCancel(stop)
		go func() {
			defer end()
			for steady.Sleep(ctx, shareEvery/10) {
				if share.none(ctx) {
					return
				}
			}
		}()
		share.consuming.Add(1)
		done = c.consume(ctx, br, sub) || stop.Err() != nil
		share.consuming.Add(-1)
		end()
	}
	return nil
}

// passOn gives d back if another version handles it.
func (c *consumer) passOn(ctx context.Context, d *driver.Delivery) bool {
	s := c.bus.share.now(ctx)
	if s == nil || !c.shares || !s.Partly {
		return false
	}
	if d.Attempt > mostPasses || s.Has(cmp.Or(d.Key, d.ID)) {
		return false
	}
	after := time.Duration(0)
	if d.Attempt > quickPasses {
		after = steady.Delay(d.Attempt-quickPasses-1, firstPass, longestPass)
	}
	c.tell(ctx, "nack", d, func(ctx context.Context) error { return d.Nack(ctx, after) })
	return true
}
