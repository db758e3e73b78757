package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servertest"
)

func TestParse(t *testing.T) {
	t.Parallel()
	def := settings{
		address: "h:8500", check: checkHTTP, interval: 2 * time.Second, ttl: 10 * time.Second, forget: 10 * time.Minute, root: "kaptar/", passing: true,
	}
	for url, change := range map[string]func(*settings){
		"consul://h":              func(*settings) {},
		"consul://h:8500/":        func(*settings) {},
		"consul://h:18500":        func(s *settings) { s.address = "h:18500" },
		"consul://[::1]":          func(s *settings) { s.address = "[::1]:8500" },
		"consul://tok-1@h":        func(s *settings) { s.token = "tok-1" },
		"consul://:tok%2F1@h":     func(s *settings) { s.token = "tok/1" },
		"consul://h?check=ttl":    func(s *settings) { s.check = checkTTL },
		"consul://h?passing=0":    func(s *settings) { s.passing = false },
		"consul://h?root=":        func(s *settings) { s.root = "" },
		"consul://h?root=a/b-1":   func(s *settings) { s.root = "a/b-1/" },
		"consul://h?tls=true":     func(s *settings) { s.tls.On = true },
		"consul://h?token_file=t": func(s *settings) { s.tokenFile = "t" },
		"consul://h?dc=west&interval=5s&ttl=1m&forget=0&check=none&tls=false&passing=true": func(s *settings) {
			s.datacenter, s.interval, s.ttl, s.forget, s.check = "west", 5*time.Second, time.Minute, 0, checkNone
		},
	} {
		want := def
		change(&want)
		if got, err := parse(url); err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", url, got, err, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"consul:":                        "expected consul://",
		"consul:secret":                  "expected consul://",
		"consul://":                      "expected consul://",
		"consul://:8500":                 "expected consul://",
		"http://secret@h":                "expected consul://",
		"consul://secret@h:port":         "expected consul://",
		"consul://secret@h\x00":          "expected consul://",
		"consul://u:secret@h":            "consul://[redacted]@h:8500: expected a token before the @",
		"consul://h/secret":              "consul://h:8500: nothing but ?parameters",
		"consul://h#secret":              "nothing but ?parameters",
		"consul://h?token=secret":        `consul://h:8500: unknown parameter "token": expected one of ca, cert, check, dc, forget, interval, key, passing, root, tls, token_file, ttl`,
		"consul://h?a;b=secret":          "expected ?name=value",
		"consul://secret@h?check=tcp":    `consul://[redacted]@h:8500: parameter check="tcp": expected http, ttl or none`,
		"consul://h?check=":              "expected http, ttl or none",
		"consul://h?check=ttl&check=":    "parameter check is given 2 times",
		"consul://h?interval=1ms":        `interval="1ms": expected a duration of 1s or more`,
		"consul://h?interval=5":          "expected a duration of 1s or more",
		"consul://h?ttl=0":               "expected a duration of 1s or more",
		"consul://h?forget=59s":          "expected 0 or a duration from 1m on",
		"consul://h?passing=yes":         "expected true or false",
		"consul://h?tls=":                "expected true or false",
		"consul://h?tls=false&ca=f":      "parameters ca, cert and key are for TLS: expected no tls=false",
		"consul://h?ca=":                 "expected the name of a file in PEM",
		"consul://h?ca=/no/file":         "consul://h:8500: ca: open /no/file: no such file",
		"consul://secret@h?token_file=f": "expected a token or a token_file, not both",
		"consul://h?dc=":                 "expected the name of a datacenter",
		"consul://h?root=/":              "expected segments",
		"consul://h?root=../x":           "expected segments",
		"consul://h?root=a//b":           "expected segments",
	} {
		_, err := parse(url)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Parse(%q): %v, want %q in the text and no secret", url, err, want)
		}
	}
}

// agent is an HTTP server that says what the test wants: the answers here are those that a real
// server gives only in rare moments. The drivers' tests use a real one.
func agent(t *testing.T, token string, handle http.HandlerFunc) *client {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return testClient(t, "consul://"+token+strings.TrimPrefix(server.URL, "http://"))
}

func testClient(t *testing.T, url string) *client {
	t.Helper()
	s, err := parse(url)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(s)
	t.Cleanup(c.close)
	return c
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		handle    http.HandlerFunc
		want      []string
		temporary bool
	}{
		"forbidden": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "token tok-1 is not\nallowed", http.StatusForbidden)
		}, []string{"403 Forbidden: token [redacted] is not allowed: may the token of the URL do this?"}, false},
		"no leader": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "No cluster leader", http.StatusInternalServerError)
		}, []string{"500 Internal Server Error: No cluster leader"}, true},
		"busy": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTooManyRequests)
		}, []string{"429"}, true},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}, []string{"302 Found"}, false},
		"a web page": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "<html>")
		}, []string{"the answer is not what Consul says", "is the consul:// URL right?"}, true},
		"another server's 404": {func(w http.ResponseWriter, r *http.Request) {
			http.NotFound(w, r)
		}, []string{"404 Not Found"}, false},
		"too much": {func(w http.ResponseWriter, _ *http.Request) {
			for range 65 {
				_, _ = w.Write(make([]byte, 1<<20))
			}
		}, []string{"larger than 67108864 bytes"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := agent(t, "tok-1@", tc.handle)
			var out any
			_, err := c.read(t.Context(), "/v1/x", nil, &out)
			for _, want := range append(tc.want, "consul://[redacted]@127.0.0.1:", "/v1/x: ") {
				if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "tok-1") {
					t.Errorf("Read: %v, want %q in the text and no token", err, want)
				}
			}
			if got := temporary(err); got != tc.temporary {
				t.Errorf("Temporary(%v) = %v, want %v", err, got, tc.temporary)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	c := testClient(t, fmt.Sprint("consul://tok-1@127.0.0.1:", servertest.Port(t)))
	err := c.call(t.Context(), http.MethodPut, "/v1/x", nil, nil, nil)
	text := fmt.Sprint(err)
	if !strings.Contains(text, "connection refused: is the consul:// URL right?") || strings.Contains(text, "tok-1") || !temporary(err) {
		t.Errorf("Call of nobody: %v", err)
	}
}

func TestTokenIsSent(t *testing.T) {
	t.Parallel()
	c := agent(t, "tok-1@", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(r.Header.Get("X-Consul-Token"))
	})
	var got string
	if err := c.call(t.Context(), http.MethodGet, "/v1/x", nil, nil, &got); err != nil || got != "tok-1" {
		t.Errorf("the agent saw the token %q, %v", got, err)
	}
}

// step is one answer of an agent, and what it expects to be asked with.
type step struct {
	wantIndex string
	code      int
	index     string
	body      string
}

// script answers Follow step by step, and ends it after the last.
func script(t *testing.T, steps []step) (answers []string, failing []error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	var c *client
	c = agent(t, "", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if n == len(steps) {
			cancel()
			return
		}
		s := steps[n]
		n++
		failing = append(failing, c.health.Err())
		if got := q.Get("index"); got != s.wantIndex || q.Has("consistent") != (got == "") || q.Has("wait") != (got != "") || !q.Has("mine") {
			t.Errorf("step %d: the query is %q, want index %q; consistent without an index, wait with one", n, r.URL.RawQuery, s.wantIndex)
		}
		if s.index != "" {
			w.Header().Set("X-Consul-Index", s.index)
		}
		w.WriteHeader(s.code)
		fmt.Fprint(w, s.body)
	})
	c.follow(ctx, "/v1/x", map[string][]string{"mine": {""}}, func(body []byte, after bool) (time.Duration, error) {
		answers = append(answers, fmt.Sprintf("%s %v %v", body, body == nil, after))
		if string(body) == "bad" {
			return 0, errors.New("bad answer")
		}
		return 0, nil
	})
	if n != len(steps) {
		t.Errorf("Follow ended after %d of %d steps", n, len(steps))
	}
	return answers, failing
}

func TestFollowIndexes(t *testing.T) {
	t.Parallel()
	answers, failing := script(t, []step{
		{"", 200, "7", "a"},
		{"7", 200, "9", "b"},
		{"9", 200, "3", "c"}, // backwards: a server with other data
		{"", 200, "3", "d"},
		{"3", 404, "4", ""}, // nothing there
		{"4", 200, "0", "e"},
		{"", 200, "0", "f"}, // 0 as an index would never block
		{"1", 200, "2", "g"},
	})
	want := "[a false false b false false c false false d false false  true false e false false f false false g false false]"
	if fmt.Sprint(answers) != want || errors.Join(failing...) != nil {
		t.Errorf("answers %v, failures %v, want %s and none", answers, failing, want)
	}
}

func TestFollowFailures(t *testing.T) {
	t.Parallel()
	answers, failing := script(t, []step{
		{"", 200, "7", "a"},
		{"7", 500, "", "No cluster leader"},
		{"", 200, "", "web page"}, // no index: not Consul
		{"", 404, "", ""},         // nor this
		{"", 403, "8", ""},
		{"", 200, "8", "bad"},
		{"", 200, "8", "b"},
		{"8", 200, "9", "c"},
	})
	want := "[a false false bad false true b false true c false false]"
	if fmt.Sprint(answers) != want {
		t.Errorf("answers %v, want %s", answers, want)
	}
	for i, err := range failing {
		if fails := err != nil && strings.Contains(err.Error(), "No cluster leader"); fails != (i >= 2 && i <= 6) {
			t.Errorf("at step %d it fails because of %v, want the first reason from the failure to the next success", i, err)
		}
	}
}

func TestFollowAsksAgain(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var waits []string
	c := agent(t, "", func(w http.ResponseWriter, r *http.Request) {
		waits = append(waits, r.URL.Query().Get("wait"))
		w.Header().Set("X-Consul-Index", fmt.Sprint(len(waits)))
		if len(waits) == 4 {
			cancel()
		}
	})
	again := []time.Duration{1500 * time.Millisecond, time.Hour, 0}
	c.follow(ctx, "/v1/x", nil, func([]byte, bool) (time.Duration, error) { return again[len(waits)-1], nil })
	if got := fmt.Sprint(waits); got != "[ 1500ms 30000ms 30000ms]" {
		t.Errorf("waits are %s", got)
	}
}
