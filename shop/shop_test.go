package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// quick makes the checkout and the breaker of the bank recover soon.
const quick = `
clients:
  bank:
    breaker:
      recovery_timeout: 1s
`

// charges is the bank's account of one order.
type charges struct {
	Approved      int64 `json:"approved"`
	ApprovedCents int64 `json:"approved_cents"`
	Requests      int64 `json:"requests"`
	Failures      int64 `json:"failures"`
}

func (s *shop) charges() charges {
	s.t.Helper()
	var c charges
	s.call(http.MethodGet, "bank", "/charges", "").into(s.t, &c)
	return c
}

func (s *shop) faults(body string) {
	s.t.Helper()
	if a := s.call(http.MethodPut, "bank", "/faults", body); a.status != http.StatusOK {
		s.t.Fatalf("PUT /faults %s: got %d %s", body, a.status, a.body)
	}
}

// TestUsers goes through what a person can do right and wrong with users.
func TestUsers(t *testing.T) {
	t.Parallel()
	s := open(t, "")
	const ada = `{"username":"ada","email":"ada@example.com","password":"correct horse"}`
	if got, want := s.want(http.StatusCreated, http.MethodPost, "/v1/users", ada).body, `{"id":1,"username":"ada","email":"ada@example.com"}`; got != want {
		t.Errorf("created: got %s, want %s", got, want)
	}
	for _, path := range []string{"/v1/users/1", "/users/1"} {
		if got, want := s.want(http.StatusOK, http.MethodGet, path, "").body, `{"id":1,"username":"ada","email":"ada@example.com"}`; got != want {
			t.Errorf("GET %s: got %s, want %s", path, got, want)
		}
	}
	for _, c := range []struct {
		status             int
		method, path, body string
		says               []string
	}{
		{http.StatusNotFound, http.MethodGet, "/v1/users/999", "", []string{"999", `"status":404`, `"trace_id"`, `"instance":"/v1/users/999"`}},
		{http.StatusNotFound, http.MethodGet, "/v1/nothing", "", []string{`"status":404`}},
		{http.StatusBadRequest, http.MethodPost, "/v1/users", `{"username":"bob"`, []string{`"status":400`, `"errors":[{`, "body"}},
		{http.StatusBadRequest, http.MethodPost, "/v1/users", `{"username":7,"email":"bob","password":"x"}`, []string{"body.username", "body.email", "body.password"}},
		{http.StatusConflict, http.MethodPost, "/v1/users", ada, []string{"username"}},
		{http.StatusConflict, http.MethodPost, "/v1/users", `{"username":"ADA2","email":"Ada@Example.com","password":"correct horse"}`, []string{"email"}},
		{http.StatusUnauthorized, http.MethodPost, "/v1/login", `{"username":"ada","password":"wrong horse"}`, nil},
		{http.StatusUnauthorized, http.MethodPost, "/v1/login", `{"username":"nobody","password":"wrong horse"}`, nil},
		{http.StatusNotFound, http.MethodPost, "/v1/orders", `{"user_id":999,"items":[{"sku":"tea","quantity":1}]}`, []string{"999"}},
	} {
		a := s.want(c.status, c.method, c.path, c.body)
		if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
			t.Errorf("%s %s %s: got content type %q, want application/problem+json", c.method, c.path, c.body, ct)
		}
		for _, part := range c.says {
			if !strings.Contains(a.body, part) {
				t.Errorf("%s %s %s: %s does not say %s", c.method, c.path, c.body, a.body, part)
			}
		}
	}
	s.want(http.StatusOK, http.MethodPost, "/v1/login", `{"username":"ada","password":"correct horse"}`)
	s.interrupt()
}

// TestOrder places an order and follows it to the mail and the sales.
func TestOrder(t *testing.T) {
	t.Parallel()
	s := open(t, "", "--demo")
	ada := s.signUp("ada")
	placed := s.place(ada, 2, "k1")
	if placed.Status != "pending" || placed.TotalCents != 1800 {
		t.Errorf("placed: got %+v, want pending with 1800 cents", placed)
	}
	if again := s.place(ada, 2, "k1"); again.ID != placed.ID {
		t.Errorf("the same key again: got order %d, want %d", again.ID, placed.ID)
	}
	s.settled(ada, 1, "confirmed")
	s.answers("/v1/stock/tea", `"available":98`, `"reserved":0`)
	s.answers(fmt.Sprintf("/v1/mails/%d", ada), "confirmed")
	s.answers("/v1/sales", `"orders":1,`, `"total_cents":1800`, `"tea":{"quantity":2,"total_cents":1800}`)
	s.answers(fmt.Sprintf("/v1/payments/%d", placed.ID), "captured")
	if c := s.charges(); c.Approved != 1 || c.ApprovedCents != 1800 {
		t.Errorf("the bank: got %+v, want one charge of 1800", c)
	}

	s.place(ada, 1000, "k2")
	eventually(t, func() string {
		o := s.orders(ada)[0]
		if o.Status != "cancelled" || !strings.Contains(o.Reason, "tea") {
			return fmt.Sprintf("order of more than there is: %+v, want cancelled for lack of tea", o)
		}
		return ""
	})
	s.answers("/v1/stock/tea", `"available":98`, `"reserved":0`)

	s.faults(`{"decline_rate":1}`)
	s.place(ada, 3, "k3")
	eventually(t, func() string {
		if o := s.orders(ada)[0]; o.Status != "cancelled" || o.Reason == "" {
			return fmt.Sprintf("declined order: %+v, want cancelled with a reason", o)
		}
		return ""
	})
	s.answers("/v1/stock/tea", `"available":98`, `"reserved":0`)
	s.interrupt()
}

// TestMetrics looks at every service's /metrics after an order went through.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := open(t, "", "--demo")
	ada := s.signUp("ada")
	s.place(ada, 1, "k")
	s.settled(ada, 1, "confirmed")
	for service, path := range map[string]string{
		"gateway": "/v1/users/1", "user-service": "/users/1", "order-service": "/orders/1", "inventory-service": "/stock/tea",
		"payment-service": "/payments/1", "notification-service": "/mails/1", "analytics-service": "/sales", "bank": "/charges",
	} {
		s.call(http.MethodGet, service, path, "")
		metrics := s.call(http.MethodGet, service, "/metrics", "").body
		for _, name := range []string{"http_requests_total", "http_request_duration_seconds_count", "go_goroutines", "process_resident_memory_bytes"} {
			if !strings.Contains(metrics, "\n"+name) {
				t.Errorf("/metrics of %s has no %s", service, name)
			}
		}
		if strings.Contains(metrics, `endpoint="/users/1"`) || strings.Contains(metrics, `endpoint="/v1/users/1"`) {
			t.Errorf("/metrics of %s has a raw path as endpoint", service)
		}
	}
	if m := s.call(http.MethodGet, "user-service", "/metrics", "").body; !strings.Contains(m, `endpoint="/users/{id}",method="GET",service="user-service",status="200"`) {
		t.Errorf("/metrics of user-service does not count GET /users/{id}:\n%s", m)
	}
}

// TestStopMidOrder stops the shop in the middle of orders, gracefully and by
// SIGKILL: after a restart each of them finishes, once.
func TestStopMidOrder(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*shop){
		"interrupt": (*shop).interrupt,
		"kill -9": func(s *shop) {
			if err := s.Kill(); err != nil {
				s.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const orders, rounds = 6, 3
			s := open(t, quick, "--demo")
			ada := s.signUp("ada")
			for round := range rounds {
				// The bank is slow, so the stop comes when some orders wait for it.
				s.faults(`{"delay_ms":50}`)
				for i := range orders {
					s.place(ada, 1, fmt.Sprintf("%d-%d", round, i))
				}
				stop(s)
				s.start()
			}
			s.settled(ada, orders*rounds, "confirmed")
			s.answers("/v1/stock/tea", fmt.Sprintf(`"available":%d`, 100-orders*rounds), `"reserved":0`)
			s.answers("/v1/sales", fmt.Sprintf(`"orders":%d,`, orders*rounds))
			if c := s.charges(); c.Approved != orders*rounds || c.ApprovedCents != 900*orders*rounds {
				t.Errorf("the bank: got %+v, want %d charges of 900", c, orders*rounds)
			}
			eventually(t, func() string {
				mails := s.call(http.MethodGet, "gateway", fmt.Sprintf("/v1/mails/%d", ada), "").body
				if n := strings.Count(mails, "confirmed"); n != orders*rounds {
					return fmt.Sprintf("%d mails of confirmed orders, want %d", n, orders*rounds)
				}
				return ""
			})
		})
	}
}

// TestBankOutage has the bank fail: the fifth failure opens the breaker, the bank
// is left alone, the order stays pending and is confirmed after the bank is back.
func TestBankOutage(t *testing.T) {
	t.Parallel()
	s := open(t, "clients:\n  bank:\n    breaker:\n      recovery_timeout: 5s\n", "--demo")
	ada := s.signUp("ada")
	s.faults(`{"error_rate":1}`)
	s.place(ada, 1, "k")
	const isOpen = `breaker_state{service="payment-service",target="bank"} 2`
	eventually(t, func() string {
		if m := s.call(http.MethodGet, "payment-service", "/metrics", "").body; !strings.Contains(m, isOpen) {
			return "the breaker is not open"
		}
		return ""
	})
	if c := s.charges(); c.Failures != 5 {
		t.Errorf("the breaker opened after %d failures at the bank, want 5", c.Failures)
	}
	s.answers("/v1/payments/1", "pending")
	if o := s.orders(ada)[0]; o.Status != "pending" {
		t.Errorf("during the outage: got %+v, want pending", o)
	}
	eventually(t, func() string {
		for _, said := range []string{`"breaker opened"`, "transport: bank: breaker open, next probe in"} {
			if !strings.Contains(s.Log(), said) {
				return "the log does not say " + said
			}
		}
		return ""
	})
	if c := s.charges(); c.Failures != 5 {
		t.Errorf("with the breaker open the bank was called on: %d failures, want 5", c.Failures)
	}
	// Everything that does not need the bank works.
	s.want(http.StatusOK, http.MethodGet, "/v1/users/1", "")
	for service := range map[string]bool{"order-service": true, "payment-service": true} {
		if a := s.call(http.MethodGet, service, "/readyz", ""); a.status != http.StatusOK {
			t.Errorf("/readyz of %s during the outage: got %d %s, want 200", service, a.status, a.body)
		}
	}
	s.faults(`{}`)
	s.settled(ada, 1, "confirmed")
	if c := s.charges(); c.Approved != 1 {
		t.Errorf("the bank: got %+v, want one charge", c)
	}
	s.interrupt()
}

// TestStartRefused starts the shop wrongly: one clear message, exit code 1, and
// nothing half-started.
func TestStartRefused(t *testing.T) {
	t.Parallel()
	running := open(t, "")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args func(in shopArgs) []string
		yaml string
		says []string
	}{
		{"mistakes in the settings", shopArgs.same, "request_timeout: soon\nbrokr_url: nats://localhost\n", []string{"config.yml:", "request_timeout", "soon", "brokr_url", "broker_url"}},
		{"taken port", func(in shopArgs) []string {
			return append(in, "--set", "services.user-service.listen="+running.HTTP("user-service"))
		}, "", []string{"address already in use", "USER_SERVICE_LISTEN", running.HTTP("user-service")}},
		{"taken port of the broker", func(in shopArgs) []string {
			args := running.Args()
			return append(in, args[len(args)-2:]...)
		}, "", []string{"address already in use", "--nats-listen"}},
		{"directory in use", func(in shopArgs) []string {
			return append(in, "--data-dir", filepath.Join(running.Dir, "data"))
		}, "", []string{"in use by process", fmt.Sprint(running.PID()), "--data-dir"}},
		{"directory that is a file", func(in shopArgs) []string { return append(in, "--data-dir", file) }, "", []string{file, "not a directory", "--data-dir"}},
		{"traffic out of range", func(in shopArgs) []string { return append(in, "--traffic", "-1") }, "", []string{"traffic", "-1"}},
		{"unknown flag", func(in shopArgs) []string { return append(in, "--trafic", "1") }, "", []string{"--trafic"}},
		{"unknown service", func(in shopArgs) []string { return append([]string{"run", "usr-service"}, in[:2]...) }, "", []string{"usr-service", "user-service"}},
		{"no database in production", func(in shopArgs) []string { return append([]string{"run", "user-service"}, in[:2]...) }, "", []string{"DATABASE_URL"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			refused(t, c.args, c.yaml, c.says)
		})
	}
}

// TestTraffic lets simulated customers order: the orders come through.
func TestTraffic(t *testing.T) {
	t.Parallel()
	s := open(t, "", "--traffic", "50")
	eventually(t, func() string {
		var sales struct{ Orders int64 }
		s.call(http.MethodGet, "gateway", "/v1/sales", "").into(t, &sales)
		if sales.Orders < 20 {
			return fmt.Sprintf("%d orders confirmed, want 20", sales.Orders)
		}
		return ""
	})
	s.interrupt()
}

// hold begins a request to the bank that takes a minute, and returns when it is
// being served.
func (s *shop) hold() {
	s.t.Helper()
	s.faults(`{"delay_ms":60000}`)
	go s.try(http.MethodPost, "bank", "/charges", `{"order_id":1,"amount_cents":1}`,
		"Idempotency-Key: held", "Content-Type: application/json", "X-Request-Timeout-Ms: 60000")
	eventually(s.t, func() string {
		if m := s.call(http.MethodGet, "bank", "/metrics", "").body; !strings.Contains(m, `server_calls_in_flight{service="bank"} 1`) {
			return "the bank does not serve the request yet"
		}
		return ""
	})
}

// TestStopIsBounded stops the shop while a request does not end: it says what it
// waits for, gives up in time, and a second signal does not wait at all.
func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, timeout string
		again         bool
		code          int
		says          string
	}{
		{"time over", "500ms", false, 1, "POST /charges"},
		{"second signal", "1m", true, 130, "interrupt again: stopped at once"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := open(t, "shutdown_timeout: "+c.timeout+"\n")
			s.hold()
			if err := s.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() string {
				if !strings.Contains(s.Log(), "requests are finished first") || !strings.Contains(s.Log(), "POST /charges") {
					return "the log does not say what is waited for"
				}
				return ""
			})
			if c.again {
				if err := s.Signal(os.Interrupt); err != nil {
					t.Fatal(err)
				}
			}
			err := s.Proc.Wait()
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != c.code {
				t.Errorf("got %v, want exit code %d", err, c.code)
			}
			if !strings.Contains(s.Log(), c.says) {
				t.Errorf("the log does not say %q:\n%s", c.says, s.Log())
			}
		})
	}
}

// TestLiveSetting changes the log level in the file of a running shop, wrongly
// and rightly.
func TestLiveSetting(t *testing.T) {
	t.Parallel()
	s := open(t, "log_level: INFO\n")
	name := filepath.Join(s.Dir, "config.yml")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ level, says string }{
		{"LOUD", "settings not taken over"},
		{"DEBUG", `"setting changed"`},
	} {
		changed := strings.Replace(string(text), "log_level: INFO", "log_level: "+c.level, 1)
		if err := os.WriteFile(name, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() string {
			if !strings.Contains(s.Log(), c.says) || !strings.Contains(s.Log(), c.level) {
				return fmt.Sprintf("after log_level: %s the log does not say %s", c.level, c.says)
			}
			return ""
		})
	}
	s.interrupt()
}
