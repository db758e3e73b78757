package export

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kaptar/kaptar/rollout"
	"github.com/kaptar/kaptar/rollout/analysis"
)

// The number of Argo's checks in each analysis, and how many may fail.
const (
	checks        = 6
	failuresAtAll = 1
)

// template is the AnalysisTemplate with the metrics of a plan.
func (o Options) template(plan rollout.Plan) object {
	interval := plan.Analysis.Interval
	q := queries{service: o.Service, window: max(time.Minute, 4*time.Duration(interval))}
	q.before = q.window
	if plan.BlueGreen != nil {
		q.before = 10 * time.Minute // stable had its calls before the switch
	}
	var metrics []any
	// The first check waits for half the window: new pods have to be found, and scraped twice.
	for _, m := range plan.Metrics() {
		m.Metric = m.WithDefaults()
		query, limit := q.query(m)
		metrics = append(metrics, object{
			"name": m.Name, "interval": seconds(interval), "initialDelay": seconds(rollout.Duration(q.window / 2)), "count": checks, "failureLimit": failuresAtAll,
			// Without calls there is no number, and the analysis is Inconclusive: neither condition
			// holds.
			"successCondition": fmt.Sprintf("len(result) > 0 && result[0] <= %g", limit),
			"failureCondition": fmt.Sprintf("len(result) > 0 && result[0] > %g", limit),
			"provider":         object{"prometheus": object{"address": o.Prometheus, "query": query}},
		})
	}
	return o.object("argoproj.io/v1alpha1", "AnalysisTemplate", o.Service, object{
		"args": []any{object{"name": "canary-hash"}, object{"name": "stable-hash"}}, "metrics": metrics,
	})
}

// queries writes PromQL for one service.
type queries struct {
	service        string
	window, before time.Duration // of the canary's and of stable's calls
}

// query is the canary's value minus stable's for a proportion, and also minus the tolerance for
// other kinds. It is good up to limit.
func (q queries) query(m rollout.Metric) (query string, limit float64) {
	var value func(version string, window time.Duration) string
	switch m.Kind {
	case analysis.Quantile:
		value = func(version string, window time.Duration) string {
			name := `{__name__=~"(http|rpc)_request_duration_seconds_bucket",service="` + q.service + `",`
			if m.Source != "" {
				name = named(m.Source + "_bucket")
			}
			return fmt.Sprintf("histogram_quantile(%g, sum by (le) (%s))", m.Quantile, rate(name, q.pods(version), m.Labels, nil, window))
		}
	case analysis.Level:
		value = func(version string, _ time.Duration) string {
			return "avg(" + join(named(m.Source), q.pods(version), m.Labels, nil) + ")"
		}
	default:
		share := func(version string, window time.Duration) string { return q.share(m, version, window) }
		return share("canary", q.window) + "\n- " + share("stable", q.before), m.Tolerance
	}
	stable := value("stable", q.before)
	return fmt.Sprintf("%s\n- %s\n- clamp_min(%g * %s, %g)", value("canary", q.window), stable, m.Tolerance, stable, m.Least), 0
}

// share is bad calls by all calls.
func (q queries) share(m rollout.Metric, version string, window time.Duration) string {
	own := `service="` + q.service + `",`
	sum := func(name string, bad map[string]string) string {
		return "(sum(" + rate(name, q.pods(version), m.Labels, bad, window) + ") or vector(0))"
	}
	if m.Source != "" {
		name := named(m.Source)
		return sum(name, m.Bad) + "\n/ " + sum(name, nil)
	}
	http, rpc := named("http_requests_total")+own, named("rpc_requests_total")+own
	bad := sum(http, map[string]string{"status": "5.."}) + "\n+ " + sum(rpc, map[string]string{"code": "Unavailable|DeadlineExceeded|Internal|ResourceExhausted"})
	return "(" + bad + ")\n/ (" + sum(http, nil) + "\n+ " + sum(rpc, nil) + ")"
}

// pods selects one version's pods by their names, which have the Rollout's name and the hash.
func (q queries) pods(version string) string {
	return `pod=~"` + q.service + `-{{args.` + version + `-hash}}-.+"`
}

func named(metric string) string { return metric + "{" }

func rate(name, pods string, labels, bad map[string]string, window time.Duration) string {
	return fmt.Sprintf("rate(%s[%ds])", join(name, pods, labels, bad), int(window.Seconds()))
}

// join writes a selector that begins with name.
func join(name, pods string, labels, bad map[string]string) string {
	list := []string{pods}
	for _, set := range []map[string]string{labels, bad} {
		for _, k := range slices.Sorted(maps.Keys(set)) {
			list = append(list, fmt.Sprintf("%s=~%q", k, set[k]))
		}
	}
	return name + strings.Join(list, ",") + "}"
}
