package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// clusterPlan is a release that takes little time; steps follow. It does not compare memory: one
// log-in takes tens of megabytes, and each version has few instances here.
const clusterPlan = "analysis: {interval: 1s, metrics: [{name: latency, least: 0.02}]}\ncanary:\n  steps:\n"

// rollout runs a command of the gateway's program in its pod, and returns what it prints and its
// exit code.
func (k *kube) rollout(t *testing.T, input string, args ...string) (out string, code int) {
	t.Helper()
	args = append([]string{"-n", "shop", "exec", "-i", "deployment/gateway", "--", "/shop", "rollout"}, args...)
	out, err := k.cluster.Kubectl(t.Context(), input, args...)
	if err == nil {
		return out, 0
	}
	_, said, ok := strings.Cut(err.Error(), "command terminated with exit code ")
	if _, scanned := fmt.Sscan(said, &code); !ok || scanned != nil {
		t.Fatalf("rollout %v: %s: %v", args, out, err)
	}
	return out + err.Error(), code
}

// must runs a command that has to end with the exit code.
func (k *kube) must(t *testing.T, code int, input string, args ...string) string {
	t.Helper()
	out, got := k.rollout(t, input, args...)
	if got != code {
		t.Fatalf("rollout %v: exit code %d, want %d:\n%s", args, got, code, out)
	}
	return out
}

// releasedOnCluster: version 2 of user-service comes beside version 1 by the overlay canary, and is released
// by our controller, which runs in the gateways: as a canary, taken back, and blue-green. No call
// fails. When the version is a bad one, it is taken back by itself.
func releasedOnCluster(t *testing.T, k *kube) {
	k.ctl(t, "apply", "-k", "../deploy/kubernetes/overlays/canary")
	k.rolledOut(t, "user-service-v2")
	k.under(t, func() {
		began := time.Now()
		step := func(what string) {
			t.Logf("%s after %v", what, time.Since(began).Round(time.Millisecond))
		}
		k.must(t, 0, clusterPlan+"  - setWeight: 20\n  - pause: {duration: 4s}\n  - setWeight: 50\n  - pause: {duration: 4s}\n", "start", "user-service", "v2", "--wait", "1m", "--plan", "/dev/stdin", "--watch")
		step("canary healthy")
		k.must(t, 0, "", "undo", "user-service")
		step("undone")
		k.must(t, 4, "", "start", "user-service", "v2", "--wait", "1m", "--strategy", "blueGreen", "--watch")
		step("preview")
		k.must(t, 0, "", "promote", "user-service")
		k.must(t, 0, "", "status", "user-service")
		step("active")
		k.must(t, 0, "", "undo", "user-service")
		step("undone")
	})
	k.ctl(t, "set", "env", "deployment/user-service-v2", "BAD=errors")
	k.rolledOut(t, "user-service-v2")
	defer k.read(t)()
	// The one user who reads stays with version 1 at 20, and has version 2 at 50.
	bad := clusterPlan + "  - setWeight: 20\n  - pause: {duration: 6s}\n  - setWeight: 50\n  - analysis: {timeout: 1m}\n"
	if out := k.must(t, 3, bad, "start", "user-service", "v2", "--wait", "1m", "--plan", "/dev/stdin", "--watch"); !strings.Contains(out, "Degraded") {
		t.Errorf("the release of a bad version says %s, want that it is Degraded", out)
	}
	k.ctl(t, "delete", "deployment", "user-service-v2")
}
