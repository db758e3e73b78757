package transport

import (
	"strconv"
	"sync"
	"time"

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

	hedges     *prometheus.CounterVec
	hedgesWon  *prometheus.CounterVec
	faults     *prometheus.CounterVec
	faultRules *prometheus.GaugeVec
}

func newMetrics(registry prometheus.Registerer, caller string, t *Transport) *metrics {
	m := &metrics{
		caller: caller,
		requests: telemetry.Register(registry, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "client_requests_total",
			Help: "Calls to other services, retries not counted, by HTTP status, gRPC code or what kept them from an answer.",
		}, []string{"service", "target", "protocol", "code"})),
		duration: telemetry.Register(registry, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "client_request_duration_seconds",
			Help:    "Time from the call to the response's head (HTTP) or end (gRPC), retries included.",
			Buckets: telemetry.Buckets(),
		}, []string{"service", "target", "protocol"})),
		retries: telemetry.Register(registry, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "client_retries_total",
			Help: "Attempts after the first.",
		}, []string{"service", "target"})),
		hedges: telemetry.Register(registry, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "client_hedges_total",
			Help: "Second attempts that were made because the first took longer than usual; client_retries_total has them too.",
		}, []string{"service", "target"})),
		hedgesWon: telemetry.Register(registry, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "client_hedges_won_total", Help: "Second attempts that answered before the first.",
		}, []string{"service", "target"})),
		faults: telemetry.Register(registry, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "client_faults_total",
			Help: "Attempts that were made to fail or wait on purpose, by what struck them: delay, status, abort or drop.",
		}, []string{"service", "target", "kind"})),
		faultRules: telemetry.Register(registry, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "client_fault_rules",
			Help: "Rules for faults by target: active, refused because faults.enabled is not set, or unreadable.",
		}, []string{"service", "target", "state"})),
		breakers: telemetry.Register(registry, &breakerCollector{
			desc: prometheus.NewDesc("breaker_state", "State of the breaker: 0 closed, 1 half-open, 2 open.", []string{"service", "target"}, nil),
		}),
	}
	m.breakers.transports.Store(t, nil)
	return m
}

// targetMetrics has the children of one target, each resolved once.
type targetMetrics struct {
	caller, target string
	requests       *prometheus.CounterVec
	retries        prometheus.Counter
	hedges         prometheus.Counter
	hedgesWon      prometheus.Counter
	duration       [protocols]prometheus.Observer
	statuses       telemetry.Counters // by HTTP status - 100
	codes          telemetry.Counters // by gRPC code
}

func (m *metrics) target(name string) targetMetrics {
	return targetMetrics{
		caller: m.caller, target: name, requests: m.requests,
		statuses: make(telemetry.Counters, 500), codes: make(telemetry.Counters, codes.Unauthenticated+1),
		retries: m.retries.WithLabelValues(m.caller, name),
		hedges:  m.hedges.WithLabelValues(m.caller, name), hedgesWon: m.hedgesWon.WithLabelValues(m.caller, name),
		duration: [protocols]prometheus.Observer{
			m.duration.WithLabelValues(m.caller, name, overHTTP.String()),
			m.duration.WithLabelValues(m.caller, name, overGRPC.String()),
		},
	}
}

func (m *targetMetrics) http(status int, took time.Duration) {
	m.duration[overHTTP].Observe(took.Seconds())
	m.statuses.Add(status-100, func() prometheus.Counter { return m.counter(overHTTP, strconv.Itoa(status)) })
}

func (m *targetMetrics) grpc(code codes.Code, took time.Duration) {
	m.duration[overGRPC].Observe(took.Seconds())
	m.codes.Add(int(code), func() prometheus.Counter { return m.counter(overGRPC, code.String()) })
}

// failed counts a call that got no answer; why is a word.
func (m *targetMetrics) failed(p protocol, why string, took time.Duration) {
	m.duration[p].Observe(took.Seconds())
	m.counter(p, why).Inc()
}

func (m *targetMetrics) counter(p protocol, code string) prometheus.Counter {
	return m.requests.WithLabelValues(m.caller, m.target, p.String(), code)
}

// breakerCollector reads the breakers when it is asked: half-open begins without an event.
type breakerCollector struct {
	desc       *prometheus.Desc
	transports sync.Map // of *Transport → nil, those that are not closed
}

func (c *breakerCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect shows the worse of two transports of one service with the same target.
func (c *breakerCollector) Collect(ch chan<- prometheus.Metric) {
	type key struct{ caller, target string }
	worst := map[key]float64{}
	for t := range c.transports.Range {
		t := t.(*Transport)
		t.mu.Lock()
		for name, tg := range t.byName {
			k := key{t.caller, name}
			worst[k] = max(worst[k], gauges[tg.breaker.state(t.now())])
		}
		t.mu.Unlock()
	}
	for k, v := range worst {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, v, k.caller, k.target)
	}
}

var gauges = map[BreakerState]float64{Closed: 0, HalfOpen: 1, Open: 2}
