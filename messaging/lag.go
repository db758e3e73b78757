package messaging

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/outbox"
)

// lagEvery is how often a broker is asked what waits for a subscription.
const lagEvery = 15 * time.Second

// followLag tells the metric what waits for c's group, until stop ends. What a broker does not tell is
// not there.
func (c *consumer) followLag(stop context.Context) error {
	for more := true; more; more = steady.Sleep(stop, lagEvery) {
		all, err := c.lag(stop)
		c.bus.metrics.lag.DeletePartialMatch(prometheus.Labels{"topic": c.topic, "group": c.opts.Group})
		if err != nil {
			continue
		}
		for _, p := range all {
			c.bus.metrics.lag.WithLabelValues(c.topic, c.opts.Group, p.Partition).Set(float64(p.Waiting))
		}
	}
	return nil
}

// setAside reads what a service has set aside when it is scraped.
type setAside struct {
	store *store
	bus   *bus
}

func (s setAside) descs() (count, oldest *prometheus.Desc) {
	service := prometheus.Labels{"service": s.bus.app.Name()}
	return prometheus.NewDesc("messaging_dead_letters", "Events that are set aside, by state.", []string{"topic", "group", "state"}, service),
		prometheus.NewDesc("messaging_dead_letters_oldest_seconds", "How long ago the oldest of them failed first.", []string{"topic", "group", "state"}, service)
}

// Describe implements prometheus.Collector.
func (s setAside) Describe(out chan<- *prometheus.Desc) {
	count, oldest := s.descs()
	out <- count
	out <- oldest
}

// Collect implements prometheus.Collector. As with backlog, a database that does not answer leaves the
// figures out.
func (s setAside) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	all, err := outbox.CountDeadLetters(ctx, s.store.db)
	if err != nil {
		return
	}
	type labels struct{ topic, group, state string }
	sums := map[labels]outbox.Count{}
	now := time.Now()
	s.bus.mu.Lock()
	for key := range s.bus.subscribed { // so that an alert can be tried before it is needed
		sums[labels{key[0], key[1], outbox.Dead}] = outbox.Count{Oldest: now}
	}
	s.bus.mu.Unlock()
	for _, n := range all { // of all generations of a group, and of both kinds
		group, _, _ := strings.Cut(n.Group, "#")
		key := labels{n.Topic, group, n.State}
		sum, ok := sums[key]
		if sum.N += n.N; !ok || n.Oldest.Before(sum.Oldest) {
			sum.Oldest = n.Oldest
		}
		sums[key] = sum
	}
	count, oldest := s.descs()
	for l, sum := range sums {
		out <- prometheus.MustNewConstMetric(count, prometheus.GaugeValue, float64(sum.N), l.topic, l.group, l.state)
		out <- prometheus.MustNewConstMetric(oldest, prometheus.GaugeValue, max(0, now.Sub(sum.Oldest).Seconds()), l.topic, l.group, l.state)
	}
}

// observe adds what waits in a service's outbox and what it has set aside to its metrics, and the
// latter to its readiness if that is wanted.
func (s *store) observe(b *bus) {
	app, waiting, aside := b.app, backlog{s.relay, b.app.Name()}, setAside{s, b}
	app.Metrics().MustRegister(waiting, aside)
	app.OnStop("outbox and dead letters", func(context.Context) error { // before the database, which they are read from
		app.Metrics().Unregister(waiting)
		app.Metrics().Unregister(aside)
		return nil
	})
	most := kaptar.SectionOf[Settings](app).DeadLetters.UnreadyAfter
	if most <= 0 {
		return
	}
	app.AddReadiness("dead letters", func(ctx context.Context) error {
		all, err := outbox.DeadLetters(ctx, s.db, &outbox.Filter{State: outbox.Dead, FailedBefore: time.Now().Add(-most), Limit: 1})
		if err != nil || len(all) == 0 {
			return err
		}
		d := &all[0]
		return fmt.Errorf("dead letter %d of %s is older than dead_letters.unready_after, which is %v: replay or drop it", d.ID, d.Message.Topic, most)
	})
}
