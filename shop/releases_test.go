package main

import (
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaptar/kaptar/rollout"
)

// releaseRate is the flag that says at which rate customers order beside TestReleases.
var releaseRate = flag.Int("releases", 20, "orders a second beside TestReleases; with reads of users it is 200 calls a second at least")

// The subjects who call, in turn. The hash of a subject decides its version, so a thousand of them have
// no exact share, but always the same: these have 5.0, 25.2 and 49.9 % at the weights below.
const (
	firstSubject = 1001
	subjects     = 1000
	offMost      = 2.0 // points that a share may be off when all have called
)

// waiting are the settings of all services: a machine that is busy with other tests stands still now and
// then, which is no reason to refuse calls or to end them.
const waiting = "drain_delay: 300ms\nlimit: {wait: 4s}\nrequest_timeout: 20s\n"

// planMetrics are those of the plans here: memory beside errors and latency, of which differences below
// 20 ms and 40 MB say nothing on a machine that is busy with other tests.
const planMetrics = "  metrics:\n  - {name: latency, least: 0.02}\n  - {name: memory, kind: level, source: process_resident_memory_bytes, least: 4e+7}\n"

// pauses is a plan with a pause at each weight.
func pauses(interval, pause time.Duration, weights ...int) string {
	return canaryPlan(interval, fmt.Sprintf("pause: {duration: %v}", pause), weights)
}

// analyses is a plan with an analysis at each weight.
func analyses(interval time.Duration, weights ...int) string {
	return canaryPlan(interval, "analysis: {timeout: 1m}", weights)
}

func canaryPlan(interval time.Duration, step string, weights []int) string {
	plan := fmt.Sprintf("analysis:\n  interval: %v\n%scanary:\n  steps:\n", interval, planMetrics)
	for _, w := range weights {
		plan += fmt.Sprintf("  - setWeight: %d\n  - %s\n", w, step)
	}
	return plan
}

// TestReleases releases a second version of a service of the split shop, good and bad, under load:
// no call fails but those that a bad version spoils, and those are few. It is not parallel: the load has
// the machine to itself.
func TestReleases(t *testing.T) {
	if testing.Short() {
		t.Skip("go test -short leaves out what takes minutes")
	}
	s := openStage(t, "")
	s.load = s.beginLoad(t, loadOptions{
		rate: *releaseRate, users: 20 + 2**releaseRate, reads: []string{"/v1/users/1"}, each: max(1, 200 / *releaseRate - 1), tokens: s.tokens(t, subjects),
	}, byBalancer(t, []string{s.in.HTTP("gateway")}))
	for _, how := range []string{"errors", "slow", "leak"} {
		t.Run("bad by "+how, func(t *testing.T) { badVersion(t, s, how) })
	}
	t.Run("canary", func(t *testing.T) {
		s.load.unharmed(t, func() { goodVersion(t, s) }, func() { s.want(t, 0, "undo", released) })
	})
	t.Run("stable fails", func(t *testing.T) { stableFails(t, s) })
	t.Run("blue-green", func(t *testing.T) { s.load.unharmed(t, func() { blueGreen(t, s) }, func() {}) })
	s.load.end(t)
	s.audit(t)
	s.stopAll(t)
}

// badVersion releases v2 with a flaw: it is taken back by itself within two intervals.
func badVersion(t *testing.T, s *stage, how string) {
	interval := 3 * time.Second
	if how == "leak" {
		interval = 5 * time.Second // for its 10 MiB a second to make a difference
	}
	s.bad(t, how)
	began := s.load.mark()
	ended := s.begin(t, "v2", analyses(interval, 5, 50))
	last := s.follow(t, func(rollout.Release) bool { return true })
	calls, failed := s.load.since(began)
	looks := last.Test.Result().Looks - 1 // the first was of v1 alone
	t.Logf("%s after %d intervals, %d of %d calls failed: %s", last.Phase, looks, len(failed), calls, last.Message)
	if last.Phase != rollout.Degraded || looks > 2 {
		t.Errorf("%s after %d intervals with %q, want Degraded after two", last.Phase, looks, last.Message)
	}
	if 100*len(failed) > calls {
		t.Errorf("%d of %d calls failed, want at most 1 %%", len(failed), calls)
	}
	if stdout, code := ended(); code != 3 || !strings.Contains(stdout, "Degraded") {
		t.Errorf("start --watch: exit code %d, want 3, with\n%s", code, stdout)
	}
	s.bad(t, "")
	s.only(t, 1)
	if how == "leak" { // its memory is let go of
		s.endBeside(t)
	}
}

// endBeside ends v2's process, which the supervisor starts again.
func (s *stage) endBeside(t *testing.T) {
	t.Helper()
	before := beside.FindAllStringSubmatch(s.proc(everything).screen.String(), -1)
	pid := 0
	if _, err := fmt.Sscan(before[len(before)-1][2], &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if now := beside.FindAllString(s.proc(everything).screen.String(), -1); len(now) == len(before) {
			return "v2 is not there again"
		}
		return ""
	})
}

// goodVersion releases v2 through all weights: no call fails, and each weight is the share.
func goodVersion(t *testing.T, s *stage) {
	began := time.Now()
	ended := s.begin(t, "v2", pauses(time.Second, 6*time.Second, 5, 25, 50))
	last, shares := s.canary(t)
	if last.Phase != rollout.Healthy || last.Stable != "v2" {
		t.Fatalf("%s with %q, want Healthy with v2 as stable", last.Phase, last.Message)
	}
	stdout, code := ended()
	if code != 0 {
		t.Errorf("start --watch: exit code %d, want 0, with\n%s", code, stdout)
	}
	t.Logf("Healthy after %v:\n%s", time.Since(began).Round(time.Millisecond), stdout)
	var weights []int
	for _, share := range shares {
		weights = append(weights, share.weight)
		t.Logf("at %d %%: v1 answered %v calls and v2 %v, which is off by %.2f points", share.weight, share.v1, share.v2, share.off())
		if !(share.off() <= share.most()) {
			t.Errorf("at %d %%: off by %.2f points, want at most %.2f", share.weight, share.off(), share.most())
		}
	}
	if want := []int{5, 25, 50, 100}; !slices.Equal(weights, want) {
		t.Errorf("shares were measured at %v, want %v", weights, want)
	}
}

// stableFails releases v1 again while v2, which has the calls, fails: what would it be compared with?
func stableFails(t *testing.T, s *stage) {
	s.bad(t, "errors")
	s.spoiled(t, true)
	// At 200 orders a second the reads that fail are fewer than a tenth of all calls.
	plan := strings.Replace(pauses(time.Second, time.Second, 5), "analysis:\n", "analysis:\n  maxStableErrors: 0.04\n", 1)
	stdout := s.want(t, 3, "start", released, "v1", "--plan", s.plan(t, plan), "--watch")
	if !strings.Contains(stdout, "fails itself") || !strings.Contains(stdout, "--force") {
		t.Errorf("it does not say that v2 fails, and what to do:\n%s", stdout)
	}
	s.bad(t, "")
	s.spoiled(t, false)
}

// spoiled waits until v2 fails reads, each fifth, or none.
func (s *stage) spoiled(t *testing.T, want bool) {
	t.Helper()
	_, v2 := s.addresses(t)
	c := s.as(t)
	c.install = &install{Dir: s.in.Dir, http: map[string]string{released: v2}}
	eventually(t, func() string {
		failed := 0
		for range 50 { // the load reads too, so it is a matter of chance which of these are a fifth
			if c.call(http.MethodGet, released, "/users/1", "").status != http.StatusOK {
				failed++
			}
		}
		if want != (failed > 0) {
			return fmt.Sprintf("v2 fails %d of 50 reads, want some of them: %t", failed, want)
		}
		return ""
	})
}

// only waits until the first or the second version has all calls for a second.
func (s *stage) only(t *testing.T, version int) {
	t.Helper()
	v1, v2 := s.addresses(t)
	eventually(t, func() string {
		n1, n2 := s.answered(t, v1), s.answered(t, v2)
		<-time.After(time.Second)
		n1, n2 = s.answered(t, v1)-n1, s.answered(t, v2)-n2
		has, lacks := n1, n2
		if version == 2 {
			has, lacks = n2, n1
		}
		if has == 0 || lacks != 0 {
			return fmt.Sprintf("v1 has %v calls and v2 %v, want all of them for v%d", n1, n2, version)
		}
		return ""
	})
}

// blueGreen gives v1 no call until it is promoted, then all at once, and v2 all of them back.
func blueGreen(t *testing.T, s *stage) {
	ended := s.begin(t, "v1", "blueGreen: {}\nanalysis:\n  interval: 1s\n"+planMetrics)
	if stdout, code := ended(); code != 4 {
		t.Fatalf("start --watch: exit code %d, want 4, with\n%s", code, stdout)
	}
	s.only(t, 2)
	s.want(t, 0, "promote", released)
	s.only(t, 1)
	last := s.follow(t, func(r rollout.Release) bool { return r.Phase == rollout.Progressing })
	t.Logf("switched: %s %s", last.Phase, last.Message)
	if last.Phase == rollout.Paused { // too little was measured before the switch
		s.want(t, 0, "promote", released, "--full")
	}
	if r := s.release(t); r.Phase != rollout.Healthy || r.Stable != "v1" {
		t.Errorf("switched: %s with %q, want Healthy with v1", r.Phase, r.Message)
	}
	s.only(t, 1)
	s.want(t, 0, "undo", released)
	s.only(t, 2)
}
