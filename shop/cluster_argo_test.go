package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

// argoPlan is released by Argo Rollouts in 30 s: its export takes six looks at each analysis, the first
// after 30 s, or 20 s here, where pods are scraped every second. A good version may be slower by what a
// busy machine makes of it.
const argoPlan = `canary:
  steps:
    - setWeight: 50
    - analysis: {}
analysis: {interval: 1s, metrics: [{name: latency, least: 1}]}
`

// argo: what rollout export writes is run by the controller of Argo Rollouts, which asks a
// Prometheus that scrapes the pods. A good version is Healthy in the end, and a bad one Degraded,
// with the good one still there.
func argo(t *testing.T, k *kube) {
	if err := k.cluster.ArgoRollouts(t.Context()); err != nil {
		t.Fatal(err)
	}
	measured := k.prometheus(t, "user-service", 8081)
	k.ctl(t, "delete", "hpa", "user-service")
	text := k.must(t, 0, argoPlan, "export", "user-service", "--namespace", "shop", "--replicas", "2", "--prometheus", "http://10.244.0.1:9090",
		"--port", "8081", "--plan", "/dev/stdin")
	sooner := strings.ReplaceAll(text, "initialDelay: 30s", "initialDelay: 20s")
	if _, err := k.cluster.Kubectl(t.Context(), sooner, "apply", "-f", "-"); err != nil || sooner == text {
		t.Fatalf("apply what is exported: %v\n%s", err, sooner)
	}
	phase := func(want string) {
		t.Helper()
		began := time.Now()
		eventually(t, func() string { // it has seen the pods' template
			got := k.ctl(t, "get", "rollouts.argoproj.io", "user-service", "-o", "jsonpath={.status.workloadObservedGeneration}")
			if observed := k.ctl(t, "get", "deployment", "user-service", "-o", "jsonpath={.metadata.generation}"); got != observed {
				return "it has seen generation " + got + ", not " + observed
			}
			return ""
		})
		k.ctl(t, "wait", "--for=jsonpath={.status.phase}="+want, "rollouts.argoproj.io/user-service", "--timeout=150s")
		t.Logf("%s after %v", want, time.Since(began).Round(time.Millisecond))
	}
	phase("Healthy")
	defer k.read(t)()
	measured(`sum(rate(http_requests_total{service="user-service"}[10s])) > 1`)
	template := func(image, env string) {
		k.ctl(t, "patch", "deployment", "user-service", "-p",
			`{"spec":{"template":{"spec":{"containers":[{"name":"shop","image":"localhost/shop:`+image+`","env":[`+env+`]}]}}}}`)
	}
	template("v2", "")
	phase("Healthy")
	if images := k.images(t, "user-service"); images != "localhost/shop:v2 localhost/shop:v2" {
		t.Errorf("after the release the images are %s, want two of v2", images)
	}
	template("v2", `{"name":"BAD","value":"errors"}`)
	phase("Degraded")
	if out := k.ctl(t, "get", "rollouts.argoproj.io", "user-service", "-o", "jsonpath={.status.abort} {.status.message}"); !strings.HasPrefix(out, "true") {
		t.Errorf("the bad version is not aborted: %s", out)
	}
}

// read has user-service called, whatever comes of it, until stop is called.
func (k *kube) read(t *testing.T) (stop func()) {
	t.Helper()
	end := make(chan struct{})
	var reads sync.WaitGroup
	reads.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_, _ = k.as(t).try(http.MethodGet, "gateway", "/v1/users/1", "") // of a bad version some fail
			case <-end:
				return
			}
		}
	})
	return func() {
		close(end)
		reads.Wait()
	}
}

// images returns the images of a service's pods that get calls.
func (k *kube) images(t *testing.T, service string) string {
	t.Helper()
	var images []string
	for _, pod := range k.pods(t, service) {
		images = append(images, k.ctl(t, "get", "pod", pod, "-o", "jsonpath={.spec.containers[0].image}"))
	}
	return strings.Join(images, " ")
}

// prometheus starts one that scrapes the pods of a service, with the label that says which, and is
// reached from the cluster at the port 9090 of its node. It goes into the cluster through a proxy.
// measured waits until a query has a result.
func (k *kube) prometheus(t *testing.T, service string, port int) (measured func(query string)) {
	t.Helper()
	proxy := httptest.NewServer(&httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(*httputil.ProxyRequest) {}, Transport: &http.Transport{DialContext: k.cluster.Dial}})
	t.Cleanup(proxy.Close)
	dir := t.TempDir()
	config := fmt.Sprintf("scrape_configs: [{job_name: pods, scrape_interval: 1s, proxy_url: %q, file_sd_configs: [{files: [targets.json], refresh_interval: 1s}]}]\n", proxy.URL)
	for name, text := range map[string]string{"prometheus.yml": config, "targets.json": "[]"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := servertest.Start(t, servers.Prometheus, servers.Options{Config: filepath.Join(dir, "prometheus.yml")})
	if err := k.cluster.Expose(t.Context(), 9090, s.Addr("")); err != nil {
		t.Fatal(err)
	}
	measured = func(query string) {
		t.Helper()
		eventually(t, func() string {
			got, err := servers.Request(t.Context(), nil, http.MethodGet, s.URL()+"/api/v1/query?query="+url.QueryEscape(query), nil)
			if err != nil || !strings.Contains(got, `"value"`) {
				return fmt.Sprintf("%s: %s %v", query, got, err)
			}
			return ""
		})
	}
	stop := make(chan struct{})
	var targets sync.WaitGroup
	t.Cleanup(func() { close(stop); targets.Wait() })
	targets.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			if err := k.targets(t, service, port, filepath.Join(s.Dir(), "config", "targets.json")); err != nil {
				t.Error(err)
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	return measured
}

// targets writes the pods of a service as Prometheus reads them.
func (k *kube) targets(t *testing.T, service string, port int, file string) error {
	ctx := context.WithoutCancel(t.Context()) // until the test's cleanup
	out, err := k.cluster.Kubectl(ctx, "", "-n", "shop", "get", "pods", "-l", "app.kubernetes.io/name="+service, "-o", "json")
	if err != nil {
		return err
	}
	var pods struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct{ PodIP string }
		}
	}
	if err := json.Unmarshal([]byte(out), &pods); err != nil {
		return err
	}
	type target struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	list := []target{}
	for _, pod := range pods.Items {
		if pod.Status.PodIP != "" {
			list = append(list, target{[]string{fmt.Sprintf("%s:%d", pod.Status.PodIP, port)}, map[string]string{"pod": pod.Metadata.Name}})
		}
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	part := file + ".part"
	if err := os.WriteFile(part, text, 0o644); err != nil {
		return err
	}
	return os.Rename(part, file)
}
