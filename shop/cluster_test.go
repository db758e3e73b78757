package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/cluster"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

// clusterRate is the flag that says at which rate customers order.
var clusterRate = flag.Int("cluster", 20, "orders a second beside the parts of TestCluster that have a load, each with four reads")

// A kube is the shop on a Kubernetes cluster, as deploy/kubernetes/overlays/local has it, except
// that PostgreSQL runs beside the cluster.
type kube struct {
	*site
	cluster *cluster.Cluster
}

// TestCluster is about the manifests of deploy/kubernetes on a real cluster, one for all of it.
// It is not parallel: the load has the machine to itself.
func TestCluster(t *testing.T) {
	k := openKube(t)
	for _, part := range []struct {
		name string
		run  func(t *testing.T, k *kube)
	}{
		{"sign up and log in", func(t *testing.T, k *kube) { users(t, k.site) }},
		{"order confirmed, with mail and sales", func(t *testing.T, k *kube) { confirmed(t, k.site) }}, // the first order
		{"order for more than there is", func(t *testing.T, k *kube) { outOfStock(t, k.site) }},
		{"discovery follows the pods", scaled},
		{"kill -9 of a container", killed},
		{"a drain respects the budget", drained},
		{"rolling update and undo under load", rolled},
		{"canary and blue-green by our controller", releasedOnCluster},
		{"what is exported, by Argo Rollouts", argo},
	} {
		if t.Failed() {
			return
		}
		t.Run(part.name, func(t *testing.T) { part.run(t, k) })
	}
	k.audit(t)
}

// openKube starts a cluster with the shop.
func openKube(t *testing.T) *kube {
	t.Helper()
	k := &kube{cluster: servertest.Cluster(t), site: &site{shape: &shape{name: "kubernetes"}, in: &install{Dir: t.TempDir(), http: map[string]string{}}}}
	key := filepath.Join(k.in.Dir, "data", "operator.key")
	if err := errors.Join(os.MkdirAll(filepath.Dir(key), 0o700), os.WriteFile(key, []byte(cluster.OperatorKey), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			k.explain(t)
		}
	})
	began, second := time.Now(), make(chan error, 1)
	go func() { second <- k.cluster.ShopImage(t.Context(), "v2", "user_v2") }()
	if err := errors.Join(k.cluster.Shop(t.Context()), <-second); err != nil {
		t.Fatal(err)
	}
	t.Logf("the shop was available after %v", time.Since(began).Round(time.Millisecond))
	for _, service := range served() {
		eventually(t, func() string { // the autoscaler wants two
			if pods := k.pods(t, service); len(pods) != 2 {
				return fmt.Sprintf("%s has the pods %q, want two", service, pods)
			}
			return ""
		})
		address := fmt.Sprintf("127.0.0.1:%d", cluster.ShopPort)
		if service != "gateway" {
			address = k.ctl(t, "get", "service", service, "-o", "jsonpath={.spec.clusterIP}:{.spec.ports[?(@.name==\"http\")].port}")
		}
		var err error
		if k.in.http[service], err = k.cluster.Forward(t.Context(), "127.0.0.1:0", address); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// explain logs what helps to find out why a test failed.
func (k *kube) explain(t *testing.T) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	commands := [][]string{{"get", "pods", "-o", "wide"}, {"get", "events"}}
	for _, service := range served() {
		commands = append(commands, []string{"logs", "--tail=40", "--prefix", "-l", "app.kubernetes.io/name=" + service})
	}
	for _, args := range commands {
		out, err := k.cluster.Kubectl(ctx, "", append([]string{"-n", "shop"}, args...)...)
		t.Log(args, err, "\n"+out)
	}
}

// ctl runs kubectl in the shop's namespace, again and again for a minute while the API server or its
// etcd is too busy to answer.
func (k *kube) ctl(t *testing.T, args ...string) string {
	t.Helper()
	for begun := time.Now(); ; <-time.After(time.Second) {
		out, err := k.cluster.Kubectl(t.Context(), "", append([]string{"-n", "shop"}, args...)...)
		if err == nil {
			return strings.TrimSpace(out)
		}
		if text := err.Error(); time.Since(begun) > time.Minute ||
			!strings.Contains(text, "etcdserver: ") && !strings.Contains(text, "handshake timeout") && !strings.Contains(text, "currently unable to handle") {
			t.Fatal(err)
		}
	}
}

// rolledOut waits until a Deployment has as many ready pods of its newest version as it should.
func (k *kube) rolledOut(t *testing.T, name string) {
	t.Helper()
	k.ctl(t, "rollout", "status", "deployment/"+name, "--timeout=120s")
}

// pods returns those of a service that get calls.
func (k *kube) pods(t *testing.T, service string) []string {
	t.Helper()
	return strings.Fields(k.ctl(t, "get", "endpointslices", "-l", "kubernetes.io/service-name="+service,
		"-o", "jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].targetRef.name}"))
}

// audit is the site's without the metrics of the outboxes, of which each pod has its own.
func (k *kube) audit(t *testing.T) {
	t.Helper()
	k.ended(t, k.entries())
	for _, check := range []func(client, []entry) string{k.checkCharges, k.checkMails, k.checkSales, k.checkStock} {
		eventually(t, func() string { return check(k.as(t), k.entries()) })
	}
}

// entrance is the way through the gateway's port of the node.
func (k *kube) entrance() door {
	return door{
		name: "the node's port", gateway: func() string { return fmt.Sprintf("127.0.0.1:%d", cluster.ShopPort) },
		client: &http.Client{Transport: &http.Transport{DialContext: k.cluster.Dial, MaxIdleConnsPerHost: 64}},
	}
}

// under runs f beside a load of orders and reads, 100 calls a second in all, none of which may fail.
// A machine that is slower than its load, or stands still for a moment, has the services refuse calls
// whatever is rolled out. So if calls fail, f runs again beside half of the load, and once more beside a
// quarter: a defect comes again.
func (k *kube) under(t *testing.T, f func()) {
	t.Helper()
	for rate := *clusterRate; ; rate /= 2 {
		name := fmt.Sprintf("load-%d-", len(k.entries()))
		reads := slices.Concat(allReads()[1:], []string{"/v1/stock/" + name + "0"})
		l := k.beginLoad(t, loadOptions{rate: rate, users: 10 + rate, reads: reads, each: 4, name: name}, k.entrance())
		began := time.Now()
		f()
		calls, failed := l.end(t)
		if len(failed) == 0 {
			return
		}
		text := fmt.Sprintf("%d of %d calls at %d orders a second failed, want none, such as\n%s", len(failed), calls, rate, some(failed, began))
		if rate <= max(1, *clusterRate/4) {
			t.Error(text)
			return
		}
		t.Log(text)
	}
}

// rolled: every service is updated to another version and back.
func rolled(t *testing.T, k *kube) {
	const v2 = `{"spec":{"template":{"metadata":{"labels":{"app.kubernetes.io/version":"v2"}},"spec":{"containers":[{"name":"shop","image":"localhost/shop:v2"}]}}}}`
	k.under(t, func() {
		for _, change := range [][]string{{"patch", "-p", v2}, {"rollout", "undo"}} {
			for _, service := range served() {
				began := time.Now()
				k.ctl(t, slices.Concat(change, []string{"deployment/" + service})...)
				k.rolledOut(t, service)
				t.Logf("%s %s took %v", change[0], service, time.Since(began).Round(time.Millisecond))
			}
		}
	})
}

// scaled: calls of other services come to new pods, and to those that are left.
func scaled(t *testing.T, k *kube) {
	for _, n := range []string{"3", "2"} {
		k.ctl(t, "patch", "hpa", "user-service", "-p", `{"spec":{"minReplicas":`+n+`}}`)
		k.ctl(t, "scale", "deployment/user-service", "--replicas="+n)
		k.rolledOut(t, "user-service")
		eventually(t, func() string {
			pods := k.pods(t, "user-service")
			if fmt.Sprint(len(pods)) != n {
				return fmt.Sprintf("the pods %q are ready, want %s", pods, n)
			}
			return k.reached(t, pods)
		})
	}
}

// reached returns "" when each of the pods of user-service gets calls of the gateways.
func (k *kube) reached(t *testing.T, pods []string) string {
	t.Helper()
	for _, pod := range pods {
		before := k.served(t, pod)
		for range 30 {
			k.as(t).call(http.MethodGet, "gateway", "/v1/users/999999", "")
		}
		if after := k.served(t, pod); after == before {
			return pod + " gets no calls"
		}
	}
	return ""
}

// served returns what a pod says of the requests that it has served for one user.
func (k *kube) served(t *testing.T, pod string) string {
	t.Helper()
	out := k.ctl(t, "get", "--raw", "/api/v1/namespaces/shop/pods/"+pod+":8081/proxy/metrics")
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "http_requests_total{") && strings.Contains(line, `/users/{id}`) && strings.Contains(line, `status="404"`) {
			return line
		}
	}
	return ""
}

// killed: a container that ends is ready again, and meanwhile calls go to the other pod.
func killed(t *testing.T, k *kube) {
	pod := k.pods(t, "user-service")[0]
	status := func(field string) string {
		return k.ctl(t, "get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0]."+field+"}")
	}
	restarts, began := status("restartCount"), time.Now()
	if err := k.cluster.KillContainer(t.Context(), status("containerID")); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if a := k.as(t).call(http.MethodGet, "gateway", "/v1/users/999999", ""); a.status != http.StatusNotFound {
			t.Errorf("%v after the kill: %d %s", time.Since(began), a.status, a.body)
		}
		if status("restartCount") == restarts || status("ready") != "true" {
			return "it is not ready again"
		}
		return ""
	})
	t.Logf("ready again after %v", time.Since(began).Round(time.Millisecond))
}

// drained: of two pods one may be evicted, and the other only when there is a new one.
func drained(t *testing.T, k *kube) {
	evict := func(pod string) (string, error) {
		body, err := json.Marshal(map[string]any{
			"apiVersion": "policy/v1", "kind": "Eviction", "metadata": map[string]string{"name": pod, "namespace": "shop"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return k.cluster.Kubectl(t.Context(), string(body), "create", "--raw", "/api/v1/namespaces/shop/pods/"+pod+"/eviction", "-f", "-")
	}
	var pods []string
	eventually(t, func() string {
		if pods = k.pods(t, "order-service"); len(pods) != 2 {
			return fmt.Sprintf("the pods are %q, want two", pods)
		}
		return ""
	})
	k.ctl(t, "cordon", "node1") // or there may be a new one before the second is to go
	if out, err := evict(pods[0]); err != nil {
		t.Fatalf("the first eviction: %s %v", out, err)
	}
	if _, err := evict(pods[1]); err == nil || !strings.Contains(err.Error(), "Cannot evict pod as it would violate the pod's disruption budget") {
		t.Errorf("the eviction of the last pod = %v, want that it would violate the budget", err)
	}
	k.ctl(t, "uncordon", "node1")
	k.rolledOut(t, "order-service")
	k.under(t, func() {
		k.ctl(t, "cordon", "node1")
		defer k.ctl(t, "uncordon", "node1")
		_, err := k.cluster.Kubectl(t.Context(), "", "drain", "node1", "--pod-selector=app.kubernetes.io/part-of=shop", "--delete-emptydir-data", "--timeout=12s")
		if err == nil || !strings.Contains(err.Error(), "disruption budget") {
			t.Errorf("drain of the only node = %v, want that budgets forbid it", err)
		}
	})
	for _, service := range served() {
		k.rolledOut(t, service)
	}
}
