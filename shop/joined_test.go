package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

// TestJoined runs the shop in the real shape with Jaeger and Prometheus beside it, and lets programs that have nothing of kaptar
// join: the Python clients of test/interop, whose Flask service is the bank here, and what deploy/ has for Prometheus and Grafana.
func TestJoined(t *testing.T) {
	t.Parallel()
	jaeger := servertest.Start(t, servers.Jaeger)
	s := openSite(t, shapes()[2], fmt.Sprintf("bank_url: http://flask-bank\notel:\n  exporter_otlp_endpoint: http://%s\n", jaeger.Addr("otlp-grpc")))
	t.Run("python", func(t *testing.T) { runPython(t, s, jaeger) })
	t.Run("prometheus", func(t *testing.T) { runPrometheus(t, s) })
}

// runPython runs test/interop/interop.py.
func runPython(t *testing.T, s *site, jaeger *servers.Server) {
	python := servertest.Python(t)
	host := func(e servers.Engine) string {
		u, err := url.Parse(s.servers[e].URL())
		if err != nil {
			t.Fatal(err)
		}
		return u.Host
	}
	proto, err := filepath.Abs("proto")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "interop.py")
	cmd.Dir = filepath.Join("..", "test", "interop")
	cmd.Env = append(os.Environ(),
		"CONSUL="+host(servers.Consul), "KAFKA="+host(servers.Kafka), "AMQP="+s.servers[servers.RabbitMQ].URL(),
		"JAEGER="+jaeger.URL(), "OTLP=http://"+jaeger.Addr("otlp-http"), "PROTO="+proto, "OPERATOR_KEY="+s.in.operator(), "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("interop.py: %v", err)
	}
}

// series finds the names of series in a query: they hold a colon or an underscore, as no label here does.
var series = regexp.MustCompile(`\b[a-z]+_[a-z0-9_]*:[a-z0-9_:]+|\bservice:[a-z0-9_:]+|\b[a-z]+_[a-z0-9_]+`)

// runPrometheus runs deploy/prometheus against the shop's Consul: every service is found and scraped, and every query of the rules and
// the dashboards is one that Prometheus takes, over metrics that the shop has.
func runPrometheus(t *testing.T, s *site) {
	deploy := filepath.Join("..", "deploy")
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(deploy, "prometheus"))); err != nil {
		t.Fatal(err)
	}
	consul, err := url.Parse(s.servers[servers.Consul].URL())
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	text := read(t, config)
	here := strings.NewReplacer("consul:8500", consul.Host, "15s", "1s", "refresh_interval: 10s", "refresh_interval: 1s").Replace(text)
	if !strings.Contains(here, consul.Host) {
		t.Fatal("prometheus.yml does not name consul:8500")
	}
	if err := os.WriteFile(config, []byte(here), 0o600); err != nil {
		t.Fatal(err)
	}
	p := servertest.Start(t, servers.Prometheus, servers.Options{Config: config})
	eventually(t, func() string {
		var up []string
		for _, sample := range query(t, p, `up{job="kaptar"} == 1`) {
			if !strings.HasPrefix(sample["instance"], sample["service"]+"-") {
				return fmt.Sprintf("the instance of %v is not its id", sample)
			}
			up = append(up, sample["service"])
		}
		slices.Sort(up)
		if !slices.Equal(up, serviceNames()) {
			return fmt.Sprintf("Prometheus scrapes %v, want %v", up, serviceNames())
		}
		return ""
	})
	queries := dashboardQueries(t, filepath.Join(deploy, "grafana", "dashboards"))
	for _, file := range []string{"recording.yml", "alerts.yml"} {
		for _, m := range regexp.MustCompile(`(?m)^        expr: ([^|\n].*)$`).FindAllStringSubmatch(read(t, filepath.Join(dir, "rules", file)), -1) {
			queries = append(queries, m[1])
		}
	}
	if len(queries) < 20 {
		t.Fatalf("found %d queries in the rules and dashboards, want them all", len(queries))
	}
	for _, q := range queries {
		query(t, p, q)
	}
	eventually(t, func() string { // rules need some scrapes
		known := labels(t, p, "__name__")
		for _, q := range queries {
			for _, name := range series.FindAllString(q, -1) {
				if !slices.Contains(known, name) && name != "histogram_quantile" {
					return fmt.Sprintf("query %s: no series %s came from the shop", q, name)
				}
			}
		}
		return ""
	})
	var rules struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	get(t, p.URL()+"/api/v1/rules", &rules)
	n := 0
	for _, g := range rules.Data.Groups {
		for _, r := range g.Rules {
			n++
			if r.Health == "err" {
				t.Errorf("rule %s: %s", r.Name, r.LastError)
			}
		}
	}
	if n < 14 {
		t.Errorf("Prometheus has %d rules, want those of recording.yml and alerts.yml", n)
	}
}

// TestRules lets promtool check what deploy/ has for Prometheus, and run its tests of the alerts.
func TestRules(t *testing.T) {
	t.Parallel()
	promtool := servertest.Promtool(t)
	for _, args := range [][]string{{"check", "config", "prometheus.yml"}, {"test", "rules", "rules/test.yml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = filepath.Join("..", "deploy", "prometheus")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	// What the rules are tested against has to be able to turn them red: with the threshold moved, it does.
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "deploy", "prometheus", "rules"))); err != nil {
		t.Fatal(err)
	}
	alerts := filepath.Join(dir, "alerts.yml")
	broken := strings.ReplaceAll(read(t, alerts), "== 2", "== 1")
	if err := os.WriteFile(alerts, []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), promtool, "test", "rules", "test.yml")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("promtool test rules passes with a broken alert:\n%s", out)
	}
}

// dashboardQueries returns the expressions of all panels, with the variable of the services filled in.
func dashboardQueries(t *testing.T, dir string) (queries []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards in %s: %v", dir, err)
	}
	for _, file := range files {
		var d struct {
			UID    string
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal([]byte(read(t, file)), &d); err != nil || d.UID == "" || len(d.Panels) == 0 {
			t.Fatalf("%s is no dashboard: %v", file, err)
		}
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				queries = append(queries, strings.ReplaceAll(target.Expr, "$service", ".*"))
			}
		}
	}
	return queries
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// query returns the labels of the series of a query.
func query(t *testing.T, p *servers.Server, q string) (series []map[string]string) {
	t.Helper()
	var answer struct {
		Data struct {
			Result []struct{ Metric map[string]string }
		}
	}
	get(t, p.URL()+"/api/v1/query?query="+url.QueryEscape(q), &answer)
	for _, r := range answer.Data.Result {
		series = append(series, r.Metric)
	}
	return series
}

func labels(t *testing.T, p *servers.Server, name string) []string {
	t.Helper()
	var answer struct{ Data []string }
	get(t, p.URL()+"/api/v1/label/"+name+"/values", &answer)
	return answer.Data
}

func get(t *testing.T, url string, into any) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: status %d, %v", url, resp.StatusCode, err)
	}
}
