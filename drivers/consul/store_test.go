package consul_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/kv"
	"github.com/kaptar/kaptar/kv/kvtest"
)

func prefix(t *testing.T) string {
	return fmt.Sprintf("%s/%d/", t.Name()[strings.LastIndexByte(t.Name(), '/')+1:], time.Now().UnixNano())
}

func TestStoreConformance(t *testing.T) {
	t.Parallel()
	url := servertest.Shared(t, servers.Consul).URL()
	for name, query := range map[string]string{"default": "", "no root": "?root=", "deep root": "?root=other/root&check=ttl"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kvtest.Run(t, kvtest.Harness{Open: func(t *testing.T) kv.Store { return open(t, url+query, nil).Store }, Prefix: prefix, Timeout: timeout})
		})
	}
}

func put(t *testing.T, s kv.Store, key, value string) kv.Entry {
	t.Helper()
	revision, err := s.Put(t.Context(), key, []byte(value))
	if err != nil {
		t.Fatalf("Put(%s): %v", key, err)
	}
	return kv.Entry{Key: key, Value: []byte(value), Revision: revision}
}

// Others may write below the root, and what they write may be no key here.
func TestRoots(t *testing.T) {
	t.Parallel()
	s := servertest.Shared(t, servers.Consul)
	p := prefix(t)
	one, two, bare := open(t, s.URL()+"?root=r-"+p, nil).Store, open(t, s.URL()+"?root=r-"+p+"deeper", nil).Store, open(t, s.URL()+"?root=", nil).Store
	a := put(t, one, "a", "1")
	put(t, two, "b", "2")
	for _, key := range []string{"r-" + p, "r-" + p + "folder/", "r-" + p + "x/.y", "r-" + p + "not%20ours", strings.TrimSuffix("r-"+p, "/") + "2/a"} {
		raw(t, s, "", http.MethodPut, "/v1/kv/"+key, "x")
	}
	watchValues(t, one, "").next(a, kv.Entry{Key: "deeper/b", Value: []byte("2"), Revision: mustGet(t, two, "b").Revision})
	watchValues(t, two, "").next(mustGet(t, two, "b"))
	if e := mustGet(t, bare, "r-"+p+"a"); string(e.Value) != "1" || e.Revision != a.Revision {
		t.Errorf("without a root the entry is %v, want that of %v", e, a)
	}
	if got := raw(t, s, "", http.MethodGet, "/v1/kv/r-"+p+"a?raw", ""); got != "1" {
		t.Errorf("another client reads %q, want the value as it is", got)
	}
}

func mustGet(t *testing.T, s kv.Store, key string) kv.Entry {
	t.Helper()
	e, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("Get(%s): %v", key, err)
	}
	return e
}

// Consul is killed under a watch, comes back with its data, and once more without.
func TestStoreRestart(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.Consul)
	log := &logged{}
	s, p := open(t, server.URL(), log).Store, prefix(t)
	a := put(t, s, p+"a", "1")
	b := put(t, s, p+"b", "2")
	w := watchValues(t, s, p)
	w.next(a, b)

	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	w.quiet(time.Second)
	for what, err := range map[string]error{
		"put": second(s.Put(t.Context(), p+"c", nil)), "put if": second(s.PutIf(t.Context(), p+"c", nil, 0)),
		"get": second(s.Get(t.Context(), p+"a")), "delete": s.Delete(t.Context(), p+"a"),
	} {
		for _, want := range []string{"consul: " + what + " " + p, server.URL() + ": ", "connection refused: is the consul:// URL right?"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s without a server: %v, want %q in the text", what, err, want)
			}
		}
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.quiet(6 * time.Second) // longer than the longest pause between tries: nothing was lost
	if got := mustGet(t, s, a.Key); fmt.Sprint(got) != fmt.Sprint(a) {
		t.Errorf("after the restart Get is %v, want %v", got, a)
	}
	revision, err := s.PutIf(t.Context(), a.Key, []byte("3"), a.Revision)
	if err != nil {
		t.Fatalf("PutIf with a revision from before the restart: %v", err)
	}
	w.next(kv.Entry{Key: a.Key, Value: []byte("3"), Revision: revision}, b)

	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(server.Dir(), "data")); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.next() // what is gone is gone
	w.next(put(t, s, p+"d", "4"))
	eventually(t, "the log tells of each outage and of its end", func() bool { // the second is perhaps too short to be seen
		begun, ended, others := waittest.Outages(log.String(), "consul")
		return begun > 0 && begun <= 2 && ended == begun && others == 0
	})
}

func second[T any](_ T, err error) error { return err }

func TestStoreTokens(t *testing.T) {
	t.Parallel()
	const root, secret = "6f1bd3d1-0000-4000-8000-000000000001", "6f1bd3d1-0000-4000-8000-000000000002"
	server := servertest.Start(t, servers.Consul, servers.Options{
		Config: `acl { enabled = true, default_policy = "allow", tokens { initial_management = "` + root + `" } }`,
	})
	anybody, s := open(t, server.URL(), nil).Store, open(t, "consul://"+secret+"@"+server.Addr(""), nil).Store
	a := put(t, anybody, "a", "1")
	check := func(want string) {
		t.Helper()
		for what, err := range map[string]error{
			"put": second(s.Put(t.Context(), "a", nil)), "put if": second(s.PutIf(t.Context(), "a", nil, a.Revision)),
			"get": second(s.Get(t.Context(), "a")), "delete": s.Delete(t.Context(), "a"),
		} {
			for _, want := range []string{want, "consul: " + what + " a", "consul://[redacted]@" + server.Addr(""), "may the token of the URL do this?"} {
				if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) || errors.Is(err, kv.ErrConflict) || errors.Is(err, kv.ErrNotFound) {
					t.Errorf("%s: %v, want %q in the text and no token", what, err, want)
				}
			}
		}
	}
	check("ACL not found")
	raw(t, server, root, http.MethodPut, "/v1/acl/policy", `{"Name": "p", "Rules": "key_prefix \"kaptar/\" { policy = \"deny\" }"}`)
	raw(t, server, root, http.MethodPut, "/v1/acl/token", `{"SecretID": "`+secret+`", "Policies": [{"Name": "p"}]}`)
	check("ermission")
	if got := mustGet(t, anybody, "a"); fmt.Sprint(got) != fmt.Sprint(a) {
		t.Errorf("a forbidden call has made %v of %v", got, a)
	}
}

// raw calls the server as any client of Consul does.
func raw(t *testing.T, s *servers.Server, token, method, path, body string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addr("")+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("X-Consul-Token", token)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s %s, %v", method, path, response.Status, text, err)
	}
	return string(text)
}

// Consul says no when a write changes nothing; the flags see to it that it always does.
func TestEveryWriteWakesOtherClients(t *testing.T) {
	t.Parallel()
	server := servertest.Shared(t, servers.Consul)
	s, p := open(t, server.URL(), nil).Store, prefix(t)
	flags := func() (list []struct{ Flags, ModifyIndex uint64 }) {
		text := raw(t, server, "", http.MethodGet, "/v1/kv/kaptar/"+p+"a", "")
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	put(t, s, p+"a", "1")
	first := flags()
	put(t, s, p+"a", "1")
	if again := flags(); again[0].Flags == first[0].Flags || again[0].ModifyIndex == first[0].ModifyIndex {
		t.Errorf("after the second write of the same bytes %v is %v, want other flags and another index", first, again)
	}
}

func TestStoreDatacenter(t *testing.T) {
	t.Parallel()
	s := open(t, servertest.Shared(t, servers.Consul).URL()+"?dc=nowhere", nil).Store
	for what, err := range map[string]error{
		"get": second(s.Get(t.Context(), "a")), "put": second(s.Put(t.Context(), "a", nil)), "delete": s.Delete(t.Context(), "a"),
	} {
		if err == nil || !strings.Contains(err.Error(), "No path to datacenter") {
			t.Errorf("%s in a datacenter that is not there: %v", what, err)
		}
	}
}
