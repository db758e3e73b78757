package rollout

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/kv"
	"github.com/kaptar/kaptar/rollout/analysis"
)

// Options configure Control. Nil and the zero value are ready to use.
type Options struct {
	// Store has releases and weights; default App.Store.
	Store kv.Store
	// Resolver says which instances there are; default: that of the app's calls.
	Resolver discovery.Resolver
	// Lease is how long a controller may be silent before another one takes over; default 10s.
	Lease time.Duration
}

// Control adds a controller of the releases of all services to app. Call it during Setup. One
// controller of the system leads at a time. It measures instances by calling their /metrics with
// App.Client. opts may be nil. Without a store, as in a single process, Control only logs that
// there are no releases.
func Control(app *kaptar.App, opts *Options) error {
	if opts == nil {
		opts = new(Options)
	}
	store := opts.Store
	if store == nil {
		var err error
		if store, err = app.Store(app.Context()); err != nil {
			return err
		}
	}
	if store == nil {
		app.Logger().Info("no store, so no releases: set settings_url or discovery_url to nats:// or consul://")
		return nil
	}
	resolver := opts.Resolver
	if resolver == nil {
		resolver = app.Transport().Resolver
	}
	c := newController(app.Name(), store, resolver, app.Client(), app.Logger(), app.Metrics())
	app.Go("releases", func(ctx context.Context) error {
		c.campaign(ctx, cmp.Or(opts.Lease, 10*time.Second))
		return nil
	})
	return nil
}

// A controller advances the releases of all services while it leads.
type controller struct {
	store   kv.Store
	log     *slog.Logger
	caller  string // the service that controls
	metrics *metrics
	outage  *steady.Outage // of the store
	meter   func() *meter
}

func newController(
	caller string, store kv.Store, resolver discovery.Resolver, client *http.Client, log *slog.Logger, registry prometheus.Registerer,
) *controller {
	return &controller{
		store: store, log: log, caller: caller, metrics: newMetrics(registry), outage: &steady.Outage{What: "releases", Log: log},
		meter: func() *meter {
			outage := &steady.Outage{What: "discovery", Log: log}
			return &meter{client: client, resolver: resolver, note: outage.Note}
		},
	}
}

// campaign controls while it has the lease, until ctx ends.
func (c *controller) campaign(ctx context.Context, life time.Duration) {
	l := &lease{store: c.store, name: c.caller + " " + rand.Text(), life: life, note: c.outage.Note}
	l.campaign(ctx, c.lead)
}

// maxServices bounds how many releases are controlled, and so the series of metrics.
const maxServices = 500

// storeTimeout bounds one look at the store, or one change.
const storeTimeout = 5 * time.Second

// lead controls all releases until ctx ends.
func (c *controller) lead(ctx context.Context) {
	c.log.InfoContext(ctx, "controls releases")
	defer c.log.InfoContext(context.WithoutCancel(ctx), "does not control releases any more")
	defer c.metrics.reset()
	workers := map[string]*worker{}
	var all sync.WaitGroup
	defer all.Wait()
	var wait steady.Backoff
	for {
		err := c.store.Watch(ctx, releasesPrefix, func(list []kv.Entry) {
			c.outage.Back(ctx)
			wait.Reset()
			for _, e := range list[:min(len(list), maxServices)] {
				service := strings.TrimPrefix(e.Key, releasesPrefix)
				w := workers[service]
				if w == nil {
					w = &worker{controller: c, service: service, woken: make(chan struct{}, 1)}
					workers[service] = w
					all.Go(func() { w.run(ctx) })
				}
				steady.Signal(w.woken)
			}
		})
		if ctx.Err() != nil {
			return
		}
		c.outage.Lost(ctx, err)
		steady.Sleep(ctx, wait.Next())
	}
}

// A worker controls the release of one service.
type worker struct {
	*controller

	service string
	woken   chan struct{} // somebody has changed the release

	meter   *meter // nil while no release goes on
	release string // that the meter is for
	stop    func() // ends it
	last    time.Time
	missing string // what was said of it last
}

// idle is how often the weights of a release that is over are looked at.
const idle = 10 * time.Second

// run advances the release at each interval, and corrects the weights in between when somebody has
// changed it. It continues with the service's next release, until ctx ends.
func (w *worker) run(ctx context.Context) {
	defer w.unmeasured()
	next := time.Now()
	for ctx.Err() == nil {
		due := !time.Now().Before(next)
		pause, err := w.tick(ctx, due)
		switch {
		case errors.Is(err, kv.ErrNotFound):
			w.metrics.forget(w.service)
			w.unmeasured()
		case ctx.Err() == nil:
			w.outage.Note(ctx, err)
		}
		if at := time.Now().Add(pause); due || at.Before(next) {
			next = at
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-w.woken:
		}
		timer.Stop()
	}
}

// tick looks at the release, advances it if that is due, and writes its weights. It returns how
// long to wait for the next one.
func (w *worker) tick(ctx context.Context, due bool) (time.Duration, error) {
	look, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	r, _, err := load(look, w.store, w.service)
	if err != nil {
		return idle, err
	}
	pause := idle
	if !r.Done() {
		pause = time.Duration(r.Plan.Analysis.Interval)
		if w.measured(ctx, r) || due {
			if r, err = w.advance(ctx, r); err != nil {
				return pause, err
			}
		}
	} else {
		w.unmeasured()
	}
	w.metrics.show(r)
	write, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return pause, apply(write, w.store, w.service)
}

// measured makes a meter for r, unless there is one, and reports whether it did.
func (w *worker) measured(ctx context.Context, r Release) bool {
	release := r.Canary + " " + r.Started.String()
	if w.meter != nil && w.release == release {
		return false
	}
	w.unmeasured()
	ctx, cancel := context.WithCancel(ctx)
	w.meter, w.release, w.last = w.controller.meter(), release, time.Now()
	followers := w.meter.follow(ctx, append([]string{r.Service}, w.callers(r)...))
	w.stop = func() {
		cancel()
		followers.Wait()
	}
	return true
}

func (w *worker) unmeasured() {
	if w.meter != nil {
		w.stop()
		w.meter, w.missing = nil, ""
	}
}

func (w *worker) callers(r Release) []string {
	if len(r.Plan.Analysis.Callers) > 0 {
		return r.Plan.Analysis.Callers
	}
	return []string{w.caller}
}

// advance measures, and changes the release accordingly.
func (w *worker) advance(ctx context.Context, r Release) (Release, error) {
	o := w.meter.observe(ctx, r, w.callers(r))
	now := time.Now()
	o.Elapsed, w.last = now.Sub(w.last), now
	if o.Missing != w.missing && w.meter.last != nil {
		w.missing = o.Missing
		if o.Missing != "" {
			w.log.WarnContext(ctx, "not all instances could be measured", "of", r.Service, "error", o.Missing)
		}
	}
	change, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	before, after, err := update(change, w.store, w.service, func(is Release) (Release, error) {
		if is.Canary != r.Canary || !is.Started.Equal(r.Started) {
			return is, nil // another release, which was not measured
		}
		return is.Advance(now, o), nil
	})
	if err != nil {
		return r, err
	}
	w.tell(ctx, before, after, o)
	return after, nil
}

// tell logs the result of an interval, and counts a change.
func (w *worker) tell(ctx context.Context, before, after Release, o Observed) {
	level, text := slog.LevelDebug, "release measured"
	if before.Phase != after.Phase || before.Step != after.Step || before.Weight != after.Weight {
		level, text = slog.LevelInfo, "release advanced"
		if after.Phase == Degraded || after.Phase == Paused {
			level = slog.LevelWarn
		}
		w.metrics.transitions.WithLabelValues(w.service, string(after.Phase)).Inc()
	}
	attrs := []slog.Attr{
		slog.String("of", after.Service), slog.String("stable", after.Stable), slog.String("canary", after.Canary), slog.String("phase", string(after.Phase)),
		slog.Int("step", after.Step), slog.Int("weight", after.Weight), slog.String("message", after.Message), slog.Any("instances", o.Instances),
	}
	if after.Test != nil {
		result := after.Test.Result()
		attrs = append(attrs, slog.String("analysis", string(result.Phase)))
		for _, m := range slices.DeleteFunc(result.Metrics, func(m analysis.MetricResult) bool { return m.CanarySamples == 0 }) {
			attrs = append(attrs, slog.String(m.Name, m.String()))
		}
	}
	w.log.LogAttrs(ctx, level, text, attrs...)
}
