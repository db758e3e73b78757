package rollout

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar/telemetry"
)

// metrics are those of a controller; the gauges are there while it leads.
type metrics struct {
	weight, phase *prometheus.GaugeVec
	transitions   *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return telemetry.Register(registry, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels))
	}
	return &metrics{
		weight: gauge("rollout_weight", "Share of a version in the calls to a service in per cent.", "service", "version"),
		phase:  gauge("rollout_phase", "1 for the phase that the last release of a service is in.", "service", "phase"),
		transitions: telemetry.Register(registry, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollout_transitions_total", Help: "Changes of phase, step or weight of releases, by the phase after it.",
		}, []string{"service", "phase"})),
	}
}

func (m *metrics) show(r Release) {
	m.forget(r.Service)
	for version, weight := range r.Weights() {
		m.weight.WithLabelValues(r.Service, version).Set(float64(weight))
	}
	m.phase.WithLabelValues(r.Service, string(r.Phase)).Set(1)
}

func (m *metrics) forget(service string) {
	m.weight.DeletePartialMatch(prometheus.Labels{"service": service})
	m.phase.DeletePartialMatch(prometheus.Labels{"service": service})
}

func (m *metrics) reset() {
	m.weight.Reset()
	m.phase.Reset()
}
