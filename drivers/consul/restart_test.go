package consul_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
)

// Consul is killed under watches, comes back with its data, and once more without.
func TestRestart(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servers.Consul)
	service := name(t)
	ready := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer ready.Close()
	checked := discovery.Instance{ID: service + "-1", Service: service, HTTP: ready.Listener.Addr().String()}
	beating := discovery.Instance{ID: service + "-2", Service: service, Meta: map[string]string{"a": "b"}}
	var log logged
	r := open(t, s.URL(), &log)
	register(t, r, checked)
	register(t, r, beating)
	w, other := watch(t, r, service), watch(t, r, service+"-other")
	w.until(checked, beating)
	other.until()

	for round, empty := range []bool{false, true} {
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		log.waitFor(t, "consul lost")
		w.quiet(time.Second) // the last list stands
		if empty {
			if err := os.RemoveAll(filepath.Join(s.Dir(), "data")); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "consul is back", func() bool { return strings.Count(log.String(), "consul is back") == round+1 })
		// Two of Consul's answers are hidden: red checks after a start, and nothing at all without
		// data.
		w.quiet(11 * time.Second)
		eventually(t, "both instances at the server itself", func() bool { return green(t, s, service) == 2 })
		// A watch that begins now has seen nothing else.
		watch(t, r, service).until(checked, beating)
		third := discovery.Instance{ID: service + "-3", Service: service + "-other"} // no address: Consul would find nobody there
		third.ID += fmt.Sprint("-", round)
		register(t, r, third)
		other.until(third) // a watch that lived through it hears of changes
		if err := r.Deregister(t.Context(), third); err != nil {
			t.Fatal(err)
		}
		other.until()
		if begun, ended, _ := waittest.Outages(log.String(), "consul"); begun != round+1 || ended != begun {
			t.Errorf("after outage %d the log tells of %d, and of %d ends:\n%s", round+1, begun, ended, &log)
		}
		if got := strings.Contains(log.String(), "registered again"); got != empty {
			t.Errorf("registered again: %v, data lost: %v; the log is\n%s", got, empty, &log)
		}
	}
}

// Killed three times and started again on one port, a process is listed once: the checks of the
// dead ones would reach the living one.
func TestGhosts(t *testing.T) {
	t.Parallel()
	s := servertest.Shared(t, servers.Consul)
	service := name(t)
	ready := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer ready.Close()
	in := discovery.Instance{
		Service: service, HTTP: ready.Listener.Addr().String(), Tags: []string{"canary"}, Meta: map[string]string{"zone": "a"},
	}
	for run := range 4 {
		in.ID = fmt.Sprint(service, "-", run)
		p := open(t, s.URL(), nil)
		register(t, p, in)
		if run < 3 {
			if err := p.Close(); err != nil { // leaves what it registered, as a kill does
				t.Fatal(err)
			}
		}
	}
	watch(t, open(t, s.URL(), nil), service).until(in)
	if got := rest(t, s, http.MethodGet, "/v1/agent/services", nil); strings.Count(got, `"Service":"`+service+`"`) != 1 || !strings.Contains(got, "canary") || !strings.Contains(got, "zone") {
		t.Errorf("the agent has %s, want one instance of %s with its tag and zone", got, service)
	}
}

// What did not come back after an outage leaves the list in the end.
func TestGoneDuringAnOutage(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servers.Consul)
	service := name(t)
	stays := discovery.Instance{ID: service + "-1", Service: service}
	dies := discovery.Instance{ID: service + "-2", Service: service}
	r, killed := open(t, s.URL()+"?check=none", nil), open(t, s.URL()+"?check=none", nil)
	register(t, r, stays)
	register(t, killed, dies)
	w := watch(t, r, service)
	w.until(stays, dies)
	if err := killed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.Dir(), "data")); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if before := w.until(stays); len(before) > 0 {
		t.Errorf("lists after the outage: %q, want none before that of who is left", before)
	}
}

// green returns how many instances the server itself lists as healthy.
func green(t *testing.T, s *servers.Server, service string) int {
	t.Helper()
	var list []any
	text := rest(t, s, http.MethodGet, "/v1/health/service/"+service+"?passing=1", nil)
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestRegisterWaitsForTheAgent(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servers.Consul)
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	service := name(t)
	in := discovery.Instance{ID: service + "-1", Service: service}
	var log logged
	r := open(t, s.URL(), &log)
	w := watch(t, r, service)

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // time for one try at least
	defer cancel()
	err := r.Register(ctx, in)
	for _, want := range []string{s.URL(), "connection refused", "is the consul:// URL right?", "deadline exceeded", in.ID} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Register without an agent: %v, want %q in the text", err, want)
		}
	}
	begun := time.Now()
	if err := r.Deregister(t.Context(), in); err == nil || !strings.Contains(err.Error(), "connection refused") || time.Since(begun) > 20*time.Second {
		t.Errorf("Deregister without an agent: %v after %v, want an error within 2 s or so", err, time.Since(begun))
	}
	registered := make(chan error, 1)
	go func() { registered <- r.Register(t.Context(), in) }()
	w.quiet(500 * time.Millisecond) // nothing is known, so nothing is told
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-registered; err != nil {
		t.Errorf("Register when the agent came: %v", err)
	}
	if got := green(t, s, service); got != 1 {
		t.Errorf("after Register the catalog lists %d instances, want 1", got)
	}
	w.until(in)
	eventually(t, "the end of the outage", func() bool { return strings.Contains(log.String(), "consul is back") })
	if begun, ended, others := waittest.Outages(log.String(), "consul"); begun != 1 || ended != 1 || others != 0 {
		t.Errorf("the log is\n%s, want one outage, its end and nothing else", &log)
	}
}

// A hanging agent is no reason to hang.
func TestPausedAgent(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servers.Consul)
	r, service := open(t, s.URL(), nil), name(t)
	in := discovery.Instance{ID: service + "-1", Service: service}
	w := watch(t, r, service)
	w.until()
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := r.Register(ctx, in); err == nil {
		t.Error("Register at a paused agent succeeded")
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	register(t, r, in)
	w.until(in)
}

const acl = `
acl {
  enabled = true
  default_policy = "allow"
  tokens { initial_management = "6f1bd3d1-0000-4000-8000-000000000001" }
}
`

func TestTokens(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servers.Consul, servers.Options{Config: acl})
	const secret = "6f1bd3d1-0000-4000-8000-000000000002"
	service := name(t)
	in := discovery.Instance{ID: service + "-1", Service: service}
	at := func(token string) string { return "consul://" + token + "@" + s.Addr("") + "?check=none" }

	var log logged
	r := open(t, at(secret), &log)
	err := r.Register(t.Context(), in)
	for _, want := range []string{"403 Forbidden", "ACL not found", "consul://[redacted]@" + s.Addr(""), "may the token of the URL do this?", in.ID} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("Register with an unknown token: %v, want %q in the text and no token", err, want)
		}
	}
	w := watch(t, r, service)
	log.waitFor(t, "403 Forbidden")
	w.quiet(500 * time.Millisecond)

	// Meanwhile the token is made, which may register and not read what others registered.
	const root = "6f1bd3d1-0000-4000-8000-000000000001"
	policy := func(rules string) string {
		return fmt.Sprintf(`{"Name": "p", "Rules": %q}`, rules)
	}
	as(t, s, root, "/v1/acl/policy", policy(fmt.Sprintf(`service "%s" { policy = "write" } service "hidden" { policy = "deny" }`, service)))
	as(t, s, root, "/v1/acl/token", `{"SecretID": "`+secret+`", "Policies": [{"Name": "p"}]}`)
	w.until()
	register(t, r, in)
	w.until(in)
	err = r.Register(t.Context(), discovery.Instance{ID: "h", Service: "hidden"})
	if err == nil || !strings.Contains(err.Error(), "lacks permission 'service:write'") || strings.Contains(err.Error(), secret) {
		t.Errorf("Register without the right: %v, want an error that says so", err)
	}

	// A token that may not see the node registers, and would look for itself in vain for ever.
	const blind = "6f1bd3d1-0000-4000-8000-000000000003"
	as(t, s, root, "/v1/acl/policy", `{"Name": "blind", "Rules": "node_prefix \"\" { policy = \"deny\" }"}`)
	as(t, s, root, "/v1/acl/token", `{"SecretID": "`+blind+`", "Policies": [{"Name": "blind"}]}`)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err = open(t, at(blind), nil).Register(ctx, discovery.Instance{ID: "b", Service: "blind"})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(fmt.Sprint(err), "the catalog does not show it") {
		t.Errorf("Register without the right to see the node: %v, want an error that says so when ctx ends", err)
	}
	if begun, ended, others := waittest.Outages(log.String(), "consul"); begun != 1 || ended != 1 || others != 0 || strings.Contains(log.String(), secret) {
		t.Errorf("the log is\n%s, want one outage and its end without the token", &log)
	}
}

func as(t *testing.T, s *servers.Server, token, path, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+s.Addr("")+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Consul-Token", token)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, response.Status)
	}
}
