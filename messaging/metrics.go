package messaging

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/telemetry"
)

// metrics are the counters and gauges of one service's events.
type metrics struct {
	published *prometheus.CounterVec   // by topic
	processed *prometheus.CounterVec   // by topic and outcome: ok, duplicate, retrying, dead, parked, dropped, passed
	duration  *prometheus.HistogramVec // by topic
	circuit   *prometheus.GaugeVec     // by topic and group
	gaps      *prometheus.GaugeVec     // by topic and group
	lag       *prometheus.GaugeVec     // by topic, group and partition
}

func newMetrics(app *kaptar.App) *metrics {
	service := prometheus.Labels{"service": app.Name()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: service}, labels)
	}
	m := &metrics{
		published: counter("messaging_published_total", "Events committed to the outbox, or sent without it.", "topic"),
		processed: counter("messaging_processed_total", "Deliveries, and retries of what was set aside, by what became of them.", "topic", "outcome"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "messaging_process_duration_seconds", ConstLabels: service,
			Help:    "Time from delivery to the end of its handling.",
			Buckets: telemetry.Buckets(),
		}, []string{"topic"}),
	}
	gauge := func(name, help string, more ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: service}, append([]string{"topic", "group"}, more...))
	}
	m.circuit = gauge("messaging_circuit_open", "Whether a subscription has stopped its handlers, since nearly all of them fail: 1 or 0.")
	m.gaps = gauge("messaging_gap_keys", "Keys of an ordered topic whose events wait for missing ones longer than 30 s.")
	m.lag = gauge("messaging_lag", "Events in the broker that the group has not acknowledged; each instance tells of the whole group.", "partition")
	app.Metrics().MustRegister(m.published, m.processed, m.duration, m.circuit, m.gaps, m.lag)
	return m
}

// brokerUp is a gauge that is 1 while the broker of a setting can be reached.
func brokerUp(service, setting string, broker driver.HealthReporter) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "messaging_broker_up", ConstLabels: prometheus.Labels{"service": service, "broker": setting},
		Help: "Whether the broker can be reached: 1 or 0. While it cannot, events wait in the outbox.",
	}, func() float64 {
		if broker.Healthy() != nil {
			return 0
		}
		return 1
	})
}

// backlog is a collector that reads the size and age of a service's outbox at each scrape.
type backlog struct {
	relay   *outbox.Relay
	service string
}

func (b backlog) descs() (rows, age *prometheus.Desc) {
	service := prometheus.Labels{"service": b.service}
	return prometheus.NewDesc("outbox_backlog_rows", "Events not yet at the broker.", nil, service),
		prometheus.NewDesc("outbox_backlog_age_seconds", "Age of the oldest of them.", nil, service)
}

// Describe implements prometheus.Collector.
func (b backlog) Describe(out chan<- *prometheus.Desc) {
	rows, age := b.descs()
	out <- rows
	out <- age
}

// Collect implements prometheus.Collector. It sends nothing if the database does not answer within
// a second: an error would make all of /metrics fail, just when it is needed.
func (b backlog) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	n, oldest, err := b.relay.Backlog(ctx)
	if err != nil {
		return
	}
	rows, age := b.descs()
	out <- prometheus.MustNewConstMetric(rows, prometheus.GaugeValue, float64(n))
	out <- prometheus.MustNewConstMetric(age, prometheus.GaugeValue, oldest.Seconds())
}
