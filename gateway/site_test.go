package gateway_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/gateway"
	"github.com/kaptar/kaptar/kaptartest"
)

// A site is a gateway and a service behind it that notes what reaches it.
type site struct {
	t     *testing.T
	sys   *kaptartest.System // of the gateway
	users *kaptartest.System // of the service
	addr  string

	mu   sync.Mutex
	seen []*http.Request
	body []string
}

const together = "in one process"

// inBoth runs f with the gateway and the service in one process, where calls are direct, and over the
// network.
func inBoth(t *testing.T, f func(t *testing.T, shape string)) {
	t.Parallel()
	for _, shape := range []string{together, "over the network"} {
		t.Run(shape, func(t *testing.T) {
			t.Parallel()
			f(t, shape)
		})
	}
}

// open starts a site. change and handlers, which the service has beside its own, may be nil.
func open(t *testing.T, shape string, settings map[string]string, change func(*gateway.Options), handlers map[string]http.HandlerFunc) *site {
	t.Helper()
	s := &site{t: t}
	all := map[string]string{"auth.internal_keys": strings.Repeat("k", 32), "request_timeout": "15s"}
	maps.Copy(all, settings)
	note := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		s.mu.Lock()
		s.seen, s.body = append(s.seen, r), append(s.body, string(body))
		s.mu.Unlock()
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		for _, name := range r.URL.Query()["answer"] { // a header that the service answers with
			name, value, _ := strings.Cut(name, ":")
			w.Header().Add(name, value)
		}
		_, _ = io.WriteString(w, "noted")
	}
	users := kaptar.Service{Name: "user-service", Setup: func(app *kaptar.App) error {
		app.HandleFunc("/", note)
		for pattern, h := range handlers {
			app.HandleFunc(pattern, h)
		}
		return nil
	}}
	if shape == together {
		s.sys = kaptartest.StartWith(t, &kaptartest.Options{Settings: all}, edge(change), users)
		s.users = s.sys
	} else {
		s.users = kaptartest.StartWith(t, &kaptartest.Options{Settings: all}, users)
		own := maps.Clone(all)
		own["discovery_url"] = "static:user-service=" + strings.TrimPrefix(s.users.URL("user-service"), "http://")
		s.sys = kaptartest.StartWith(t, &kaptartest.Options{Settings: own}, edge(change))
	}
	s.addr = strings.TrimPrefix(s.sys.URL("gateway"), "http://")
	return s
}

// take returns what has reached the service since the last take.
func (s *site) take() (seen []*http.Request, bodies []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, bodies = s.seen, s.body
	s.seen, s.body = nil, nil
	return seen, bodies
}

// targets are the method and target of each.
func targets(seen []*http.Request) (out []string) {
	for _, r := range seen {
		out = append(out, r.Method+" "+r.RequestURI)
	}
	return out
}

// dial connects as one that is not the client of good.
func (s *site) dial() *net.TCPConn {
	s.t.Helper()
	to, err := net.ResolveTCPAddr("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	conn, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, to)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(5 * time.Minute)) // a flood takes its time under the race detector
	return conn
}

// send writes raw, with <host> filled in, and reads all answers until the connection ends.
func (s *site) send(raw string) (answers []kaptartest.Response) {
	s.t.Helper()
	conn := s.dial()
	go func() { _, _ = io.WriteString(conn, strings.ReplaceAll(raw, "<host>", s.addr)) }() // the answer may come before all is sent
	r := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				s.t.Fatalf("the connection stays open after %d answers to %.200q", len(answers), raw)
			}
			return answers
		}
		if resp.StatusCode == http.StatusContinue {
			continue
		}
		text, _ := io.ReadAll(resp.Body) // a short one shows in the test
		answers = append(answers, kaptartest.Response{Status: resp.StatusCode, Header: resp.Header, Body: string(text)})
	}
}

// wellAfter checks that nobody else notices what was done: a good request is served, no breaker is
// open, and both are ready.
func (s *site) wellAfter(what string) {
	s.t.Helper()
	if a := s.sys.Do(http.MethodGet, "gateway", "/v1/users/good", ""); a.Status != http.StatusOK {
		s.t.Errorf("%s: then a good request: %d %s, want 200", what, a.Status, a.Body)
	}
	seen, _ := s.take()
	if !slices.Contains(targets(seen), "GET /v1/users/good") {
		s.t.Errorf("%s: then a good request: the service saw %v", what, targets(seen))
	}
	for service, sys := range map[string]*kaptartest.System{"gateway": s.sys, "user-service": s.users} {
		if a := sys.Do(http.MethodGet, service, "/readyz", ""); a.Status != http.StatusOK {
			s.t.Errorf("%s: then /readyz of %s: %d %s", what, service, a.Status, a.Body)
		}
	}
	for line := range strings.Lines(s.sys.Do(http.MethodGet, "gateway", "/metrics", "").Body) {
		if strings.HasPrefix(line, "breaker_state{") && !strings.HasSuffix(line, " 0\n") {
			s.t.Errorf("%s: then %s", what, line)
		}
	}
}

// quiet waits until nothing is under way any more.
func (s *site) quiet() {
	s.t.Helper()
	kaptartest.Eventually(s.t, "nothing is under way", func() error {
		for service, sys := range map[string]*kaptartest.System{"gateway": s.sys, "user-service": s.users} {
			idle := fmt.Sprintf("server_calls_in_flight{service=%q} 0\n", service)
			if a := sys.Do(http.MethodGet, service, "/metrics", ""); !strings.Contains(a.Body, idle) {
				return fmt.Errorf("%s has no line %s", service, idle)
			}
		}
		return nil
	})
}

// statuses are those of answers. All that the gateway itself refuses are problems.
func (s *site) statuses(answers []kaptartest.Response) (out []int) {
	s.t.Helper()
	for _, a := range answers {
		out = append(out, a.Status)
		var problem struct{ Status int }
		if a.Header.Get("Content-Type") == "application/problem+json" && a.Body != "" { // as for HEAD
			if err := json.Unmarshal([]byte(a.Body), &problem); err != nil || problem.Status != a.Status {
				s.t.Errorf("answer %d is no problem: %s", a.Status, a.Body)
			}
		}
	}
	return out
}

func same[T comparable](a, b []T) bool { return slices.Equal(a, b) }

// refusal is what New says to opts.
func refusal(t *testing.T, opts gateway.Options) (err error) {
	t.Helper()
	kaptartest.Start(t, kaptar.Service{Name: "gateway", Setup: func(app *kaptar.App) error {
		err = gateway.New(app, &opts)
		return nil
	}})
	return err
}
