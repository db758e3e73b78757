package rollout

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/rollout/analysis"
)

// TestPlans are plans with the error that each must have.
func TestPlans(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                  "",
		"canary: {steps: [setWeight: 100]}": "",
		"blueGreen: {}":                     "",
		"analysis: {metrics: [{name: latency, tolerance: 0.5}]}":                                                  "",
		"analysis: {metrics: [{name: memory, kind: level, source: process_resident_memory_bytes}], interval: 1s}": "",
		"analysis: {metrics: [{name: paid, source: paid_total, bad: {result: failed}}]}":                          "",

		"canary: {steps: [setWieght: 5]}":                          `plan.yml:1: unknown key "setWieght": did you mean setWeight?`,
		"canary:\n  steps:\n    - setWeight: 5\n      colour: red": `plan.yml:4: unknown key "colour": expected one of canary,`,
		"canary: {steps: [setWeight: 50, setWeight: 50]}":          "steps[1]: setWeight: 50: expected more than the 50 before it",
		"canary: {steps: [setWeight: 50, setWeight: 5]}":           "steps[1]: setWeight: 5: expected more than the 50 before it",
		"canary: {steps: [setWeight: 101]}":                        "steps[0]: setWeight: 101: expected a share from 1 to 100",
		"canary: {steps: [setWeight: 0]}":                          "expected a share from 1 to 100",
		"canary: {steps: [setWeight: five]}":                       `plan.yml:1: "five": expected a whole number`,
		"canary: {steps: [setWeight: 5, setWeight: 7.5]}":          "canary.steps[1]: setWeight: 7.5: expected a whole number",
		"canary: {steps: [{setWeight: 5, pause: {}}]}":             "expected one of setWeight, pause and analysis",
		"canary:\n  steps:\n    - pause:":                          "expected one of setWeight, pause and analysis",
		"canary: {steps: [analysis: {}]}":                          "expected a setWeight before it",
		"canary: {steps: [setWeight: 100, analysis: {}]}":          "expected a setWeight below 100",
		"canary: {steps: [setWeight: 5, pause: {duration: 5}]}":    `"5": expected a duration such as 90s or 10m`,
		"canary: {steps: [setWeight: 5, pause: {duration: -5s}]}":  "expected a duration of 0s or more",
		"{canary: {steps: [setWeight: 5]}, blueGreen: {}}":         "canary and blueGreen: expected one of them",
		"blueGreen: {autoPromote: true, autoPromoteAfter: 1s}":     "autoPromoteAfter: 1s: expected analysis.interval, 10s, at least",
		"events: all":                                                                                 `events: "all": expected stable or share`,
		"analysis: {interval: 100ms}":                                                                 "analysis.interval: 100ms: expected 1s to 1h",
		"analysis: {timeout: 1s}":                                                                     "analysis.timeout: 1s: expected the interval",
		"analysis: {maxStableErrors: 2}":                                                              "maxStableErrors: 2: expected a share from 0 to 1",
		"analysis: {metrics: [{name: errors, source: x}]}":                                            "errors: it has a source already",
		"analysis: {metrics: [{name: memory, kind: level}]}":                                          "memory: expected a source",
		"analysis: {metrics: [{name: a, source: a_total}]}":                                           "a: bad: expected for a proportion",
		"analysis: {metrics: [{name: a, source: a, kind: levels}]}":                                   `kind "levels"`,
		"analysis: {metrics: [{name: a, source: a, bad: {s: '('}}]}":                                  "label s: \"(\": expected a regular expression",
		"analysis: {metrics: [{name: a, source: a, kind: level}, {name: a, source: b, kind: level}]}": "each name once",
		"[":                            "plan.yml:1: ",
		"canary: 5":                    "plan.yml:1: ",
		strings.Repeat("#", maxPlan+1): "expected at most 32768 bytes",
	} {
		if _, err := ParsePlan("plan.yml", []byte(text)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s\n%v, want %q", text, err, want)
		}
	}
	if _, err := ReadPlan(t.TempDir()); err == nil || !strings.Contains(err.Error(), "expected a file") {
		t.Errorf("a directory: %v, want an error", err)
	}
}

func FuzzPlan(f *testing.F) {
	f.Add("canary: {steps: [setWeight: 5, pause: {duration: 1m}, analysis: {timeout: 1h}]}\nanalysis: {callers: [a], interval: 1s}\nevents: share")
	f.Add("blueGreen: {autoPromote: true, autoPromoteAfter: 1m}\nanalysis: {metrics: [{name: a, kind: level, source: b, labels: {c: d}}]}")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePlan("plan.yml", []byte(text))
		if err != nil {
			return
		}
		r, err := New("a", "v1", "v2", p, testTime)
		if err != nil {
			t.Fatalf("a plan that was accepted is none: %v", err)
		}
		o := seen(1, 0, 1, 0)
		for range 5 {
			r = r.Advance(testTime, o)
		}
		state, err := encode(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(state); err != nil {
			t.Fatalf("%v\n%s", err, state)
		}
	})
}

// FuzzState reads what anybody could have written to the store.
func FuzzState(f *testing.F) {
	r, err := New("a", "v1", "v2", Plan{}, testTime)
	if err != nil {
		f.Fatal(err)
	}
	for range 3 {
		text, _ := encode(r)
		f.Add(text)
		r = r.Advance(testTime, seen(100, 1, 100, 1))
	}
	f.Add([]byte(`{"service":"a","stable":"v1","previous":"v0","phase":"Healthy","step":6,"plan":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := decode(text)
		if err != nil {
			return
		}
		for range 3 {
			r = r.Advance(testTime, seen(10, 1, 10, 1))
		}
		_ = table(r, true)
		_ = r.shown()
		for _, f := range []func() (Release, error){
			func() (Release, error) { return r.Promote(testTime, false) }, func() (Release, error) { return r.Undo(testTime) },
			func() (Release, error) { return r.Pause(testTime) }, func() (Release, error) { return r.Abort(testTime, "") },
		} {
			if next, err := f(); err == nil && next.Weights()[next.Stable]+next.Weights()[next.Canary] != 100 && next.Canary != "" {
				t.Fatalf("weights %v", next.Weights())
			}
		}
	})
}

// FuzzMetrics reads what an instance could answer at /metrics.
func FuzzMetrics(f *testing.F) {
	f.Add("text/plain", "# TYPE http_requests_total counter\nhttp_requests_total{service=\"a\",status=\"500\"} 3\nprocess_start_time_seconds 5\n")
	f.Add("text/plain", "# TYPE http_request_duration_seconds histogram\nhttp_request_duration_seconds_bucket{service=\"a\",le=\"1\"} 3\nhttp_request_duration_seconds_count{service=\"a\"} NaN\n")
	f.Add("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited", "\x05\x0a\x01a\x18\x00")
	r, err := New("a", "v1", "v2", Plan{}, testTime)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kind, body string) {
		s, err := read(http.Header{"Content-Type": {kind}}, strings.NewReader(body), names(r.sources()))
		if err != nil {
			return
		}
		all := s.totals(r.sources(), matcher())
		o := observations(all)
		test, _ := analysis.New(r.Plan.compared(), nil)
		_ = test.Add(o, o)
		for _, n := range all {
			n.since(n).plus(n)
		}
	})
}

func TestMetricsOfAnInstance(t *testing.T) {
	t.Parallel()
	r, err := New("users", "v1", "v2", plan(t, `
analysis:
  metrics:
    - {name: memory, kind: level, source: process_resident_memory_bytes}
    - {name: paid, source: paid_total, labels: {kind: "card|cash"}, bad: {result: failed}}`), testTime)
	if err != nil {
		t.Fatal(err)
	}
	get := func(text string) map[string]*numbers {
		t.Helper()
		s, err := read(http.Header{"Content-Type": {"text/plain"}}, strings.NewReader(text), names(r.sources()))
		if err != nil {
			t.Fatal(err)
		}
		return s.totals(r.sources(), matcher())
	}
	const text = `# TYPE http_requests_total counter
http_requests_total{service="users",status="200"} 90
http_requests_total{service="users",status="404"} 5
http_requests_total{service="users",status="503"} 5
http_requests_total{service="other",status="500"} 50
# TYPE rpc_requests_total counter
rpc_requests_total{service="users",code="OK"} 10
rpc_requests_total{service="users",code="Internal"} 2
rpc_requests_total{service="users",code="NotFound"} 3
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1e8
# TYPE paid_total counter
paid_total{kind="card",result="ok"} 7
paid_total{kind="cash",result="failed"} 1
paid_total{kind="gift",result="failed"} 1
`
	first := get(text)
	if n := first["errors"]; n.count != 115 || n.bad != 7 {
		t.Errorf("errors: %g of %g, want 7 of 115", n.bad, n.count)
	}
	if n := first["paid"]; n.count != 8 || n.bad != 1 {
		t.Errorf("paid: %g of %g, want 1 of 8", n.bad, n.count)
	}
	if got := first["memory"].observation().Level; got != 1e8 {
		t.Errorf("memory: %g, want 1e8", got)
	}
	later := get(strings.Replace(text, `"503"} 5`, `"503"} 15`, 1))
	if n := later["errors"].since(first["errors"]); n.count != 10 || n.bad != 10 {
		t.Errorf("errors since then: %g of %g, want 10 of 10", n.bad, n.count)
	}
	restarted := get(strings.Replace(text, `"200"} 90`, `"200"} 1`, 1))
	if n := restarted["errors"].since(first["errors"]); n.count != 26 || n.bad != 7 {
		t.Errorf("errors of one that has begun anew: %g of %g, want 7 of 26", n.bad, n.count)
	}
	if _, err := read(http.Header{}, strings.NewReader(strings.Repeat("# a comment of no use\n", maxScrape/20)), nil); err == nil {
		t.Error("a body without end was read")
	}
	if (time.Duration(defaultWait)) != time.Minute {
		t.Error("the default of Wait is another one")
	}
}
