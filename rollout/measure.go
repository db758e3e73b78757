package rollout

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/kaptar/kaptar/rollout/analysis"
)

// A numbers has one metric's counts at an instance or version, in all or in an interval.
type numbers struct {
	count, bad float64
	hist       buckets
	level      float64
	levels     int // instances that have the level
}

// A source is where /metrics has the numbers of a metric.
type source struct {
	metric string            // of the analysis
	name   string            // in /metrics
	labels map[string]string // of the series that count, as regular expressions
	bad    map[string]string // of those that are bad; none for gauges and latencies
	level  bool
	// never marks calls that did not arrive: all are bad, and only the caller counts them.
	never bool
}

// failedCodes are the gRPC codes that breakers count as failures, failedStatus the HTTP statuses.
const (
	failedCodes  = "Unavailable|DeadlineExceeded|Internal|ResourceExhausted"
	failedStatus = "5.."
)

// sources are those of the released service's own instances.
func (r Release) sources() []source {
	own := map[string]string{"service": regexp.QuoteMeta(r.Service)}
	all := []source{
		{metric: errorsMetric, name: "http_requests_total", labels: own, bad: map[string]string{"status": failedStatus}},
		{metric: errorsMetric, name: "rpc_requests_total", labels: own, bad: map[string]string{"code": failedCodes}},
		{metric: latencyMetric, name: "http_request_duration_seconds", labels: own},
		{metric: latencyMetric, name: "rpc_request_duration_seconds", labels: own},
	}
	for _, m := range r.Plan.Analysis.Metrics {
		if !m.builtIn() {
			all = append(all, source{metric: m.Name, name: m.Source, labels: m.Labels, bad: m.Bad, level: m.Kind == analysis.Level})
		}
	}
	return all
}

// callerSources are those of a caller's instances: its calls to a version that got no answer, and
// the ejections and breaker openings that followed.
func (r Release) callerSources(version string) []source {
	labels := map[string]string{"target": regexp.QuoteMeta(r.Service), "version": regexp.QuoteMeta(version)}
	unanswered := maps.Clone(labels)
	unanswered["code"] = "error|timeout"
	return []source{
		{metric: errorsMetric, name: "client_requests_total", never: true, labels: unanswered},
		{metric: errorsMetric, name: "client_ejections_total", never: true, labels: labels},
		{metric: errorsMetric, name: "breaker_openings_total", never: true, labels: labels},
	}
}

// startName is the gauge that shows the restart of a process.
const startName = "process_start_time_seconds"

// scrape is one instance's answer.
type scrape struct {
	families map[string]*dto.MetricFamily
	start    float64
}

// maxScrape bounds the body of /metrics in bytes.
const maxScrape = 16 << 20

// read reads an answer of /metrics, as text or protobuf, and keeps the families in keep.
func read(h http.Header, body io.Reader, keep map[string]bool) (*scrape, error) {
	limited := &io.LimitedReader{R: body, N: maxScrape}
	decoder := expfmt.NewDecoder(limited, expfmt.ResponseFormat(h))
	s := &scrape{families: map[string]*dto.MetricFamily{}}
	for {
		family := new(dto.MetricFamily)
		err := decoder.Decode(family)
		switch {
		case limited.N <= 0:
			return nil, fmt.Errorf("more than %d bytes", maxScrape)
		case errors.Is(err, io.EOF):
			return s, nil
		case err != nil:
			return nil, err
		case family.GetName() == startName && len(family.GetMetric()) > 0:
			s.start = value(family.GetMetric()[0])
		case keep[family.GetName()]:
			s.families[family.GetName()] = family
		}
	}
}

// totals are the numbers that a scrape has of sources, by metric.
func (s *scrape) totals(sources []source, match func(pattern, text string) bool) map[string]*numbers {
	out := map[string]*numbers{}
	for _, from := range sources {
		n := out[from.metric]
		if n == nil {
			n = &numbers{hist: buckets{}}
			out[from.metric] = n
		}
		for _, m := range s.families[from.name].GetMetric() {
			labels := map[string]string{}
			for _, pair := range m.GetLabel() {
				labels[pair.GetName()] = pair.GetValue()
			}
			fits := func(patterns map[string]string) bool {
				for name, pattern := range patterns {
					if !match(pattern, labels[name]) {
						return false
					}
				}
				return true
			}
			if !fits(from.labels) {
				continue
			}
			if from.level {
				n.level, n.levels = n.level+value(m), 1
				continue
			}
			n.count += value(m)
			if from.never || len(from.bad) > 0 && fits(from.bad) {
				n.bad += value(m)
			}
			if h := m.GetHistogram(); h != nil {
				n.hist.add(analysis.Buckets(h))
			}
		}
	}
	return out
}

// value is the value of a series; for a histogram the number of samples. Nonsensical values are 0.
func value(m *dto.Metric) float64 {
	v := m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue() // it is one of them
	v += float64(m.GetHistogram().GetSampleCount())
	if !(v >= 0 && v < 1e18) {
		return 0
	}
	return v
}

// since is the growth since before: all of n if anything has decreased, after a restart.
func (n *numbers) since(before *numbers) *numbers {
	hist, ok := n.hist.since(before.hist)
	if !ok || n.count < before.count || n.bad < before.bad {
		return n
	}
	return &numbers{count: n.count - before.count, bad: n.bad - before.bad, hist: hist, level: n.level, levels: n.levels}
}

func (n *numbers) plus(o *numbers) {
	n.count += o.count
	n.bad += o.bad
	n.level += o.level
	n.levels += o.levels
	for at, count := range o.hist {
		n.hist[at] += count
	}
}

// observation is n as package analysis takes it.
func (n *numbers) observation() analysis.Observation {
	o := analysis.Observation{Count: uint64(n.count), Bad: uint64(min(n.bad, n.count))}
	if len(n.hist) > 0 {
		o.Histogram = n.hist.list()
	}
	if n.levels > 0 {
		o.Level = n.level / float64(n.levels)
	}
	return o
}

// matcher matches whole texts by regular expressions, each compiled once. An invalid one, which
// Plan.Check refuses, matches nothing.
func matcher() func(pattern, text string) bool {
	compiled := map[string]*regexp.Regexp{}
	return func(pattern, text string) bool {
		re, ok := compiled[pattern]
		if !ok {
			re, _ = regexp.Compile("^(?:" + pattern + ")$")
			compiled[pattern] = re
		}
		return re != nil && re.MatchString(text)
	}
}

func names(lists ...[]source) map[string]bool {
	out := map[string]bool{}
	for _, list := range lists {
		for _, s := range list {
			out[s.name] = true
		}
	}
	return out
}

// observations are those of a version, for metrics that package analysis is to compare.
func observations(all map[string]*numbers) map[string]analysis.Observation {
	out := map[string]analysis.Observation{}
	for name, n := range all {
		if n.levels > 0 || n.count > 0 {
			out[name] = n.observation()
		}
	}
	return out
}
