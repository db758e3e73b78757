package telemetry_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar/telemetry"
)

// TestRegister: parts share a metric, and the log names one that a metric of the service keeps out.
func TestRegister(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	tel, err := telemetry.New(t.Context(), telemetry.Options{Service: "shop", Log: telemetry.LogOptions{Output: &log}})
	if err != nil {
		t.Fatal(err)
	}
	counter := func(help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "calls_total", Help: help}, labels)
	}
	first := telemetry.Register(tel.Registry(), counter("Calls.", "peer"))
	if again := telemetry.Register(tel.Registry(), counter("Calls.", "peer")); again != first {
		t.Error("the same metric again is not the one that was registered")
	}
	if apart := telemetry.Register(nil, counter("Calls.", "peer")); apart == first {
		t.Error("without a registry the metric is that of another one")
	}
	if log.Len() > 0 {
		t.Errorf("log = %s, want nothing", log.String())
	}
	for _, refused := range []*prometheus.CounterVec{counter("Calls.", "other"), counter("Other calls.", "peer")} {
		log.Reset()
		if got := telemetry.Register(tel.Registry(), refused); got != refused {
			t.Error("a metric that is refused is not returned")
		}
		refused.WithLabelValues("x").Inc()
		if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, `"level":"WARN"`) || !strings.Contains(text, "calls_total") {
			t.Errorf("log = %s, want one warning that names calls_total", text)
		}
	}
}
