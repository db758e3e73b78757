package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/rollout"
)

// TestReleasesRefused types what cannot be meant: the exit code and the text say what to do, and
// nothing has changed.
func TestReleasesRefused(t *testing.T) {
	t.Parallel()
	s := openStage(t, "")
	canary := func(steps string) string { return s.plan(t, "canary: {steps: ["+steps+"]}\n") }
	missing := filepath.Join(t.TempDir(), "missing")
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"no command", []string{"begin"}, 2, []string{"begin", "start"}},
		{"no version", []string{"start", released}, 2, []string{"VERSION", "--help"}},
		{"unknown flag", []string{"start", released, "v2", "--stpes"}, 2, []string{"--stpes", "--help"}},
		{"unknown strategy", []string{"start", released, "v2", "--strategy", "rolling"}, 2, []string{"rolling", "canary or blueGreen"}},
		{"a version that does not run", []string{"start", released, "v2"}, 1, []string{"v2 is not running", "v1", "--binary", "--wait"}},
		{"a service that does not run", []string{"start", "user-servic", "v2"}, 1, []string{"user-servic", "no instance"}},
		{"the stable version", []string{"start", released, "v1"}, 1, []string{"v1"}},
		{"weights that fall", []string{"start", released, "v2", "--binary", s.v2, "--plan", canary("{setWeight: 50}, {setWeight: 25}")}, 1, []string{"setWeight", "25", "50"}},
		{"a weight above 100", []string{"start", released, "v2", "--binary", s.v2, "--plan", canary("{setWeight: 101}")}, 1, []string{"setWeight", "101"}},
		{"a weight below 0", []string{"start", released, "v2", "--binary", s.v2, "--plan", canary("{setWeight: -1}")}, 1, []string{"setWeight", "-1"}},
		{"a weight that is none", []string{"start", released, "v2", "--binary", s.v2, "--plan", canary("{setWeight: many}")}, 1, []string{`"many"`, "a whole number"}},
		{"a weight that is no whole number", []string{"start", released, "v2", "--binary", s.v2, "--plan", canary("{setWeight: 7.5}")}, 1, []string{"7.5", "a whole number"}},
		{"a step of two kinds", []string{"start", released, "v2", "--binary", s.v2, "--plan", canary("{setWeight: 5, pause: {}}")}, 1, []string{"step"}},
		{"a step that is misspelled", []string{"start", released, "v2", "--binary", s.v2, "--plan", canary("{setWieght: 5}")}, 1, []string{"setWieght", "did you mean setWeight"}},
		{"an interval that is too short", []string{"start", released, "v2", "--binary", s.v2, "--plan", s.plan(t, "analysis: {interval: 10ms}\n")}, 1, []string{"interval", "10ms", "1s"}},
		{"a plan that is not there", []string{"start", released, "v2", "--binary", s.v2, "--plan", missing}, 1, []string{"missing"}},
		{"a binary that is not there", []string{"start", released, "v2", "--binary", missing}, 1, []string{"missing"}},
		{"a binary that is none", []string{"start", released, "v2", "--binary", text}, 1, []string{text}},
		{"a binary of another version", []string{"start", released, "v2", "--binary", binary}, 1, []string{"v1", "v2"}},
		{"a binary without the service", []string{"start", "users", "v2", "--binary", s.v2}, 1, []string{"users"}},
		{"status of nothing", []string{"status", released}, 1, []string{"no release", "rollout start"}},
		{"promote of nothing", []string{"promote", released}, 1, []string{"no release"}},
		{"undo of nothing", []string{"undo", released}, 1, []string{"no release"}},
	} {
		stdout, stderr, code := s.rollout(t, c.args...)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d:\n%s%s", c.name, code, c.code, stdout, stderr)
		}
		for _, part := range c.says {
			if !strings.Contains(stderr, part) {
				t.Errorf("%s: it does not say %q, but:\n%s", c.name, part, stderr)
			}
		}
		if strings.Contains(stderr, "goroutine ") || strings.Count(stderr, "\n") > 4 {
			t.Errorf("%s: more than a few lines:\n%s", c.name, stderr)
		}
		if r := s.release(t); r.Service != "" {
			t.Errorf("%s: there is a release: %+v", c.name, r)
		}
	}
	s.goesOn(t)
	s.stopAll(t)
}

// goesOn releases v2 without any calls: nothing can be concluded, and there is one release at a time.
func (s *stage) goesOn(t *testing.T) {
	ended := s.begin(t, "v2", "analysis: {interval: 1s, timeout: 3s}\n")
	_, stderr, code := s.rollout(t, "start", released, "v2", "--binary", s.v2)
	if code != 1 || !strings.Contains(stderr, "going on already") || !strings.Contains(stderr, "abort") {
		t.Errorf("a second release: exit code %d, want 1 and what to do:\n%s", code, stderr)
	}
	stdout, code := ended()
	if code != 4 || !strings.Contains(stdout, "no call reached v2") {
		t.Errorf("without calls: exit code %d, want 4 and the reason:\n%s", code, stdout)
	}
	if r := s.release(t); r.Phase != rollout.Paused || r.Weight != 5 {
		t.Errorf("without calls: %s at %d %%, want Paused at 5 %%", r.Phase, r.Weight)
	}
	s.want(t, 4, "status", released)
	s.want(t, 0, "abort", released)
	s.want(t, 3, "status", released)
	if _, stderr, code = s.rollout(t, "promote", released); code != 1 || !strings.Contains(stderr, "start another") {
		t.Errorf("promote of what is over: exit code %d, want 1 and what to do:\n%s", code, stderr)
	}
}

// TestControllerKilled kills the process that controls a release whenever that has taken a step: the
// next one goes on, and the release ends as it would have.
func TestControllerKilled(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("go test -short leaves out what takes minutes")
	}
	s := openStage(t, "release_lease: 1s\n")
	s.load = s.beginLoad(t, loadOptions{rate: 10, users: 30, reads: []string{"/v1/users/1"}, each: 9, tokens: s.tokens(t, subjects)},
		byBalancer(t, []string{s.in.HTTP("gateway")}))
	for _, c := range []struct {
		bad     string
		plan    string
		code    int
		phase   rollout.Phase
		weights map[string]string
	}{
		{"errors", analyses(time.Second, 20, 50), 3, rollout.Degraded, map[string]string{"v1": "100", "v2": "0"}},
		{"", pauses(time.Second, time.Second, 5, 50), 0, rollout.Healthy, map[string]string{"v1": "0", "v2": "100"}},
	} {
		s.bad(t, c.bad)
		ended := s.begin(t, "v2", c.plan)
		kills := 0
		last := s.follow(t, func(rollout.Release) bool {
			kills++
			s.kill(t, s.site, "gateway")
			s.revive(t, s.site, "gateway")
			return true
		})
		t.Logf("%s after %d kills: %s", last.Phase, kills, last.Message)
		if last.Phase != c.phase {
			t.Errorf("v2 %s: %s with %q, want %s", c.bad, last.Phase, last.Message, c.phase)
		}
		if stdout, code := ended(); code != c.code {
			t.Errorf("v2 %s: start --watch: exit code %d, want %d, with\n%s", c.bad, code, c.code, stdout)
		}
		for version, want := range c.weights {
			eventually(t, func() string {
				e, err := s.store.Get(t.Context(), "weights/"+released+"/version/"+version)
				if err != nil || string(e.Value) != want {
					return "the weight of " + version + " is " + string(e.Value) + ", want " + want
				}
				return ""
			})
		}
	}
	s.load.end(t)
	s.audit(t)
	s.stopAll(t)
}
