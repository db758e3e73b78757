package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/shop/internal/shopproc"
)

// binary is the shop's program, built once for all tests here.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "shop")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if binary, err = shopproc.Build(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// A shop is an install of the program with its running process.
type shop struct {
	*shopproc.Install
	*shopproc.Proc
	t *testing.T
}

// open starts a shop in a directory of its own; extra is YAML for its settings.
func open(t *testing.T, extra string, args ...string) *shop {
	t.Helper()
	in, err := shopproc.New(binary, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	in.Extra = extra
	s := &shop{Install: in, t: t}
	s.start(args...)
	return s
}

// start starts the shop, again if need be, on the same ports and data.
func (s *shop) start(args ...string) {
	s.t.Helper()
	p, err := s.Install.Start(context.Background(), args...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Proc = p
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("the shop's log:\n%s", p.Log())
		}
		if err := p.Kill(); err != nil && !strings.Contains(err.Error(), "already finished") {
			s.t.Errorf("kill: %v", err)
		}
	})
}

// interrupt stops the shop as Ctrl-C does and checks that it stops gracefully.
func (s *shop) interrupt() {
	s.t.Helper()
	if err := s.Signal(os.Interrupt); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Proc.Wait(); err != nil {
		s.t.Errorf("after an interrupt: %v; its log:\n%s", err, s.Log())
	}
}

// An answer is what came back from a call.
type answer struct {
	status int
	header http.Header
	body   string
}

// into decodes the body.
func (a answer) into(t *testing.T, out any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), out); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
}

// call sends body to service, with headers as "Name: value".
func (s *shop) call(method, service, path, body string, headers ...string) answer {
	s.t.Helper()
	a, err := s.try(method, service, path, body, headers...)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

func (s *shop) try(method, service, path, body string, headers ...string) (answer, error) {
	req, err := http.NewRequest(method, "http://"+s.HTTP(service)+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(bytes.TrimSpace(b))}, err
}

// want calls through the gateway and checks the status.
func (s *shop) want(status int, method, path, body string, headers ...string) answer {
	s.t.Helper()
	a := s.call(method, "gateway", path, body, headers...)
	if a.status != status {
		s.t.Fatalf("%s %s %s: got %d %s, want %d", method, path, body, a.status, a.body, status)
	}
	return a
}

// An orderView is an order as REST shows it.
type orderView struct {
	ID         int64  `json:"id"`
	Status     string `json:"status"`
	Reason     string `json:"reason"`
	TotalCents int64  `json:"total_cents"`
}

// place places an order for tea and returns it as it was answered.
func (s *shop) place(user int64, quantity int, key string) orderView {
	s.t.Helper()
	body := fmt.Sprintf(`{"user_id":%d,"items":[{"sku":"tea","quantity":%d}]}`, user, quantity)
	a := s.want(http.StatusCreated, http.MethodPost, "/v1/orders", body, "Idempotency-Key: "+key)
	var o orderView
	a.into(s.t, &o)
	return o
}

// signUp makes a user and returns its id.
func (s *shop) signUp(name string) int64 {
	s.t.Helper()
	a := s.want(http.StatusCreated, http.MethodPost, "/v1/users",
		fmt.Sprintf(`{"username":%q,"email":"%s@example.com","password":"correct horse"}`, name, name))
	var user struct {
		ID int64 `json:"id"`
	}
	a.into(s.t, &user)
	return user.ID
}

func (s *shop) orders(user int64) []orderView {
	s.t.Helper()
	var page struct {
		Orders []orderView `json:"orders"`
	}
	s.want(http.StatusOK, http.MethodGet, fmt.Sprintf("/v1/orders/%d", user), "").into(s.t, &page)
	return page.Orders
}

// patience is how long anything here may take to come about, on a machine that
// has other things to do.
const patience = time.Minute

// eventually asks again and again until check returns "", and fails with what it
// said last.
func eventually(t *testing.T, check func() string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		said := check()
		if said == "" {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("after %v still: %s", patience, said)
		}
	}
}

// settled waits until all orders of user have the status.
func (s *shop) settled(user int64, n int, status string) {
	s.t.Helper()
	eventually(s.t, func() string {
		orders := s.orders(user)
		if len(orders) != n {
			return fmt.Sprintf("%d orders, want %d", len(orders), n)
		}
		for _, o := range orders {
			if o.Status != status {
				return fmt.Sprintf("order %d is %s %s, want %s", o.ID, o.Status, o.Reason, status)
			}
		}
		return ""
	})
}

// answers waits until a GET through the gateway contains all of parts.
func (s *shop) answers(path string, parts ...string) {
	s.t.Helper()
	eventually(s.t, func() string {
		a := s.call(http.MethodGet, "gateway", path, "")
		for _, part := range parts {
			if !strings.Contains(a.body, part) {
				return fmt.Sprintf("GET %s: %d %s does not say %s", path, a.status, a.body, part)
			}
		}
		return ""
	})
}

// shopArgs is a command line without the program.
type shopArgs []string

func (a shopArgs) same() []string { return a }

// refused starts a shop that must not start and checks what it says.
func refused(t *testing.T, args func(shopArgs) []string, yaml string, says []string) {
	t.Helper()
	in, err := shopproc.New(binary, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	in.Extra = yaml
	stdout, stderr, code := in.Fail(t.Context(), args(in.Args()))
	if code != 1 {
		t.Errorf("exit code %d, want 1; it said %s%s", code, stdout, stderr)
	}
	for _, part := range says {
		if !strings.Contains(stderr, part) {
			t.Errorf("it does not say %q, but:\n%s", part, stderr)
		}
	}
	if strings.Contains(stderr, "panic") || strings.Contains(stderr, "goroutine ") {
		t.Errorf("it shows a stack:\n%s", stderr)
	}
	for _, service := range []string{"gateway", "user-service", "bank"} {
		if conn, err := net.Dial("tcp", in.HTTP(service)); err == nil {
			conn.Close()
			t.Errorf("%s was left listening", service)
		}
	}
}
