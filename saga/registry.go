package saga

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/sqldb"
)

func init() { config.RegisterSection[Settings]("github.com/kaptar/kaptar/saga") }

// Settings are this package's section of the configuration.
type Settings struct {
	Saga struct {
		Keep time.Duration `config:"keep" default:"168h" help:"how long finished sagas are kept; until then a new one with the same id is refused"`
	} `config:"saga"`
}

// A registry has what the sagas of one service share.
type registry struct {
	app     *kaptar.App
	db      *sql.DB
	keep    time.Duration
	metrics *metrics
	runners []*runner // not changed after Setup
}

type registryKey struct{}

// registryOf returns the registry of app. It has no database before the first saga is registered.
func registryOf(app *kaptar.App) *registry {
	g, _ := kaptar.Attach(app, registryKey{}, func() (*registry, error) { return &registry{app: app}, nil })
	return g
}

// register adds a runner of d, which app starts.
func register(app *kaptar.App, d *definition) (*runner, error) {
	g := registryOf(app)
	if err := g.open(); err != nil {
		return nil, err
	}
	if g.find(d.name, d.version) != nil {
		return nil, fmt.Errorf("version %d is registered already", d.version)
	}
	r := newRunner(app, g.db, d, g.metrics)
	g.runners = append(g.runners, r)
	app.Go(leaseName(d.name, d.version), r.run)
	return r, nil
}

func (g *registry) open() error {
	if g.db != nil {
		return nil
	}
	db, err := g.app.DB(nil)
	if err != nil {
		return err
	}
	if err := sqldb.Migrate(g.app.Context(), db, migrations, versionTable); err != nil {
		return err
	}
	g.db, g.keep, g.metrics = db, kaptar.SectionOf[Settings](g.app).Saga.Keep, newMetrics(g.app)
	unfinished := waiting{g}
	g.app.Metrics().MustRegister(unfinished)
	g.app.OnStop("sagas", func(context.Context) error { // before the database, which it reads
		g.app.Metrics().Unregister(unfinished)
		return nil
	})
	g.app.Go("saga purge", g.watch)
	return nil
}

func (g *registry) find(name string, version int) *runner {
	i := slices.IndexFunc(g.runners, func(r *runner) bool { return r.def.name == name && r.def.version == version })
	if i < 0 {
		return nil
	}
	return g.runners[i]
}

const (
	watchEvery = time.Minute
	purgeSlice = 1000 // rows in one transaction
)

// watch purges old sagas and reports those of unknown versions, until ctx ends.
func (g *registry) watch(ctx context.Context) error {
	reported := make(map[string]bool)
	for more := true; more; more = steady.Sleep(ctx, watchEvery) {
		if err := errors.Join(g.reportUnknown(ctx, reported), g.purge(ctx)); err != nil && ctx.Err() == nil {
			g.app.Logger().WarnContext(ctx, "look for old sagas failed, next one in a minute", "error", err)
		}
	}
	return nil
}

// reportUnknown logs each name and version that has sagas and no definition, once.
func (g *registry) reportUnknown(ctx context.Context, reported map[string]bool) error {
	type kind struct {
		name    string
		version int
		count   int
	}
	kinds, err := sqldb.Select(ctx, g.db, func(r sqldb.Row) (k kind, err error) {
		err = r.Scan(&k.name, &k.version, &k.count)
		return k, err
	}, `SELECT name, version, count(*) FROM kaptar_sagas WHERE due_at IS NOT NULL GROUP BY name, version`)
	for _, k := range kinds {
		key := fmt.Sprint(k.name, " ", k.version)
		if g.find(k.name, k.version) == nil && !reported[key] {
			reported[key] = true
			g.app.Logger().ErrorContext(ctx, "sagas wait: this program does not know their version: register its definition beside the new one",
				"saga", k.name, "version", k.version, "sagas", k.count)
		}
	}
	return err
}

// purge deletes sagas that ended more than keep ago, in small transactions so that no writer waits
// long.
func (g *registry) purge(ctx context.Context) error {
	before := time.Now().Add(-g.keep).UnixMilli()
	for n := int64(purgeSlice); n == purgeSlice && ctx.Err() == nil; {
		err := sqldb.InTx(ctx, g.db, func(ctx context.Context, tx *sql.Tx) (err error) {
			n, err = sqldb.Affected(tx.ExecContext(ctx, `DELETE FROM kaptar_sagas WHERE (name, id) IN
				(SELECT name, id FROM kaptar_sagas WHERE ended_at < $1 LIMIT $2)`, before, purgeSlice))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// metrics are the counters of one service's sagas.
type metrics struct {
	steps *prometheus.CounterVec // by saga, step, action and result
	ended *prometheus.CounterVec // by saga and status
}

func newMetrics(app *kaptar.App) *metrics {
	service := prometheus.Labels{"service": app.Name()}
	m := &metrics{
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "saga_steps_total", ConstLabels: service, Help: "Attempts at steps of sagas (action do or undo) by result: ok, refused, error.",
		}, []string{"saga", "step", "action", "result"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "saga_ended_total", ConstLabels: service, Help: "Sagas that are over, by how they ended: completed or compensated.",
		}, []string{"saga", "status"}),
	}
	app.Metrics().MustRegister(m.steps, m.ended)
	return m
}

// waiting is a collector that reads the unfinished sagas of a service at each scrape. Each
// registered definition has its gauges of running sagas even while there are none, so that alerts
// find them.
type waiting struct{ *registry }

func (c waiting) descs() (unfinished, age, stuck *prometheus.Desc) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, prometheus.Labels{"service": c.app.Name()})
	}
	return desc("saga_unfinished", "Sagas that are not over, by status and version of the definition.", "saga", "version", "status"),
		desc("saga_oldest_seconds", "Age of the oldest saga that is not over.", "saga", "version", "status"),
		desc("saga_stuck", fmt.Sprintf("Sagas whose step has failed %d times or more.", stuckAfter), "saga", "version", "status")
}

// Describe implements prometheus.Collector.
func (c waiting) Describe(out chan<- *prometheus.Desc) {
	unfinished, age, stuck := c.descs()
	out <- unfinished
	out <- age
	out <- stuck
}

// Collect implements prometheus.Collector. It sends nothing if the database does not answer within
// a second.
func (c waiting) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	unfinished, age, stuck := c.descs()
	none := make(map[[2]string]bool) // name and version of definitions without running sagas
	for _, r := range c.runners {
		none[[2]string{r.def.name, strconv.Itoa(r.def.version)}] = true
	}
	gauges := func(name, version string, status Status, count, late int64, oldest time.Duration) {
		for d, v := range map[*prometheus.Desc]float64{unfinished: float64(count), age: max(0, oldest.Seconds()), stuck: float64(late)} {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, name, version, string(status))
		}
	}
	_, err := sqldb.Select(ctx, c.db, func(r sqldb.Row) (_ struct{}, err error) {
		var name, version string
		var status Status
		var count, late, oldest int64
		if err := r.Scan(&name, &version, &status, &count, &late, &oldest); err != nil {
			return struct{}{}, err
		}
		if status == Running {
			delete(none, [2]string{name, version})
		}
		gauges(name, version, status, count, late, time.Since(time.UnixMilli(oldest)))
		return struct{}{}, nil
	}, `SELECT name, version, status, count(*), sum(CASE WHEN attempts >= $1 THEN 1 ELSE 0 END), min(created_at)
		FROM kaptar_sagas WHERE due_at IS NOT NULL GROUP BY name, version, status`, stuckAfter)
	if err != nil {
		return
	}
	for def := range none {
		gauges(def[0], def[1], Running, 0, 0, 0)
	}
}
