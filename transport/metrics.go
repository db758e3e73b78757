package transport

import (
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/kaptar/kaptar/telemetry"
)

// metrics are those of one transport. Without a registry too: that saves a check at each call.
type metrics struct {
	caller   string
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	retries  *prometheus.CounterVec
	breakers *breakerCollector

	hedges    *prometheus.CounterVec
	hedgesWon *prometheus.CounterVec
	fallbacks *prometheus.CounterVec
	faults    *prometheus.CounterVec
	ejections *prometheus.CounterVec
	openings  *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer, caller string, t *Transport) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		opts := prometheus.CounterOpts{Name: name, Help: help}
		return telemetry.Register(registry, prometheus.NewCounterVec(opts, append([]string{"service", "target"}, labels...)))
	}
	m := &metrics{
		caller: caller,
		requests: counter("client_requests_total", "Calls to other services, retries not counted, by HTTP status, gRPC code or what kept them "+
			"from an answer, and by the version of the instance that the last attempt went to.", "version", "protocol", "code"),
		duration: telemetry.Register(registry, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "client_request_duration_seconds",
			Help:    "Time from the call to the response's head (HTTP) or end (gRPC), retries included.",
			Buckets: telemetry.Buckets(),
		}, []string{"service", "target", "version", "protocol"})),
		retries: counter("client_retries_total", "Attempts after the first."),
		hedges: counter("client_hedges_total",
			"Second attempts that were made because the first took longer than usual; client_retries_total has them too."),
		hedgesWon: counter("client_hedges_won_total", "Second attempts that answered before the first."),
		fallbacks: counter("client_fallbacks_total", "Calls that failed and were answered by their caller's fallback."),
		faults: counter("client_faults_total",
			"Attempts that were made to fail or wait on purpose, by what struck them: delay, status, abort or drop.", "kind"),
		ejections: counter("client_ejections_total", "Instances that were left out for a while because they failed several times in a row.", "version"),
		openings: counter("breaker_openings_total",
			"How often the breaker opened, failed probes included, by the version of the instance whose failure did it.", "version"),
		breakers: telemetry.Register(registry, &breakerCollector{
			desc:   prometheus.NewDesc("breaker_state", "State of the breaker: 0 closed, 1 half-open, 2 open.", []string{"service", "target"}, nil),
			series: map[seriesKey]*targetMetrics{},
		}),
	}
	m.breakers.transports.Store(t, nil)
	return m
}

// targetMetrics has the series of one target. Transports that share their metrics share it.
type targetMetrics struct {
	*metrics
	target   string
	users    int        // transports that know the target; guarded by the collector's mu
	mu       sync.Mutex // of changes
	left     bool       // the series are deleted: a last call must not make them again
	versions []*versionMetrics
	none     *versionMetrics // of calls that got to no instance, or to one without a version
}

// codeCounter counts calls that ended with an HTTP status or gRPC code or, with a word for why, in
// no answer.
type codeCounter struct {
	prometheus.Counter
	code int
	why  string
}

// otherTargets is the target in the series that all targets share for which there is no room.
const otherTargets = "_other"

// target returns the metrics of a target; leave must follow when it is forgotten. Once there are
// those of manyTargets, further external ones share one set; so do services once there are twice as
// many, since a name without a dot, too, can come from a URL that somebody has sent.
func (m *metrics) target(name string, external bool) *targetMetrics {
	c := m.breakers
	c.mu.Lock()
	defer c.mu.Unlock()
	key := seriesKey{m.caller, name}
	tm := c.series[key]
	if n := len(c.series); tm == nil && (n >= 2*manyTargets || external && n >= manyTargets) {
		name = otherTargets
		key = seriesKey{m.caller, name}
		tm = c.series[key]
	}
	if tm == nil {
		tm = &targetMetrics{metrics: m, target: name}
		tm.none = &versionMetrics{targetMetrics: tm}
		c.series[key] = tm
		m.retries.WithLabelValues(m.caller, name) // from 0 on, or a rate would not see the first
	}
	tm.users++
	return tm
}

// leave deletes the series of a target that no transport knows any more.
func (m *targetMetrics) leave() {
	c := m.breakers
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.users--; m.users > 0 {
		return
	}
	delete(c.series, seriesKey{m.caller, m.target})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = true
	m.forget(m.none)
	for _, v := range m.versions {
		m.forget(v)
	}
	for _, vec := range []*prometheus.CounterVec{m.retries, m.hedges, m.hedgesWon, m.fallbacks} {
		vec.DeleteLabelValues(m.caller, m.target)
	}
	m.faults.DeletePartialMatch(prometheus.Labels{"service": m.caller, "target": m.target})
}

// inc counts one in a vector of service and target. What is seldom is looked up each time.
func (m *targetMetrics) inc(vec *prometheus.CounterVec) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.left {
		vec.WithLabelValues(m.caller, m.target).Inc()
	}
}

func (c codeCounter) label(p protocol) string {
	switch {
	case c.why != "":
		return c.why
	case p == overGRPC:
		return codes.Code(c.code).String() //nolint:gosec // it was one
	}
	return strconv.Itoa(c.code)
}

// breakerCollector reads the breakers when it is asked: half-open begins without an event.
type breakerCollector struct {
	desc       *prometheus.Desc
	transports sync.Map // of *Transport → nil, those that are not closed

	mu     sync.Mutex
	series map[seriesKey]*targetMetrics // of all transports
}

type seriesKey struct{ caller, target string }

func (c *breakerCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect shows the worst of the targets that share their series.
func (c *breakerCollector) Collect(ch chan<- prometheus.Metric) {
	worst := map[seriesKey]float64{}
	for t := range c.transports.Range {
		t := t.(*Transport)
		t.mu.Lock()
		for _, tg := range t.byName {
			k := seriesKey{t.caller, tg.metrics.target}
			worst[k] = max(worst[k], gauges[tg.breaker.state(t.now())])
		}
		t.mu.Unlock()
	}
	for k, v := range worst {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, v, k.caller, k.target)
	}
}

var gauges = map[BreakerState]float64{Closed: 0, HalfOpen: 1, Open: 2}
