package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

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
			want := 1
			if strings.HasPrefix(c.name, "unknown") { // the command line is wrong
				want = 2
			}
			refused(t, want, c.args, c.yaml, c.says)
		})
	}
}

// TestTraffic lets simulated customers order, with tokens that are used for a second: the orders come
// through, and the shelves are filled.
func TestTraffic(t *testing.T) {
	t.Parallel()
	s := open(t, "token_life: 11s\n", "--traffic", "50")
	eventually(t, func() string {
		var sales struct{ Orders int64 }
		s.call(http.MethodGet, "gateway", "/v1/sales", "").into(t, &sales)
		if sales.Orders < 20 {
			return fmt.Sprintf("%d orders confirmed, want 20", sales.Orders)
		}
		return ""
	})
	eventually(t, func() string {
		metrics := s.call(http.MethodGet, "user-service", "/metrics", "").body
		logins := regexp.MustCompile(`user_logins_total{result="ok"} (\d+)`).FindStringSubmatch(metrics)
		users := regexp.MustCompile(`http_requests_total{.*/users",.*status="201"} (\d+)`).FindStringSubmatch(metrics)
		if logins == nil || users == nil || len(logins[1]) < len(users[1]) || len(logins[1]) == len(users[1]) && logins[1] <= users[1] {
			return fmt.Sprintf("%q logins of %q customers: they have not logged in again", logins, users)
		}
		return ""
	})
	for _, sku := range []string{"tea", "coffee", "honey"} {
		s.answers("/v1/stock/"+sku, `"available":4`) // of 5000
	}
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

// together sends signals that come at the same time, however long this process is kept from sending:
// one that has stopped gets what is sent when it goes on.
func (s *shop) together(signals []os.Signal) {
	s.t.Helper()
	send := func(sig os.Signal) {
		if err := s.Signal(sig); err != nil {
			s.t.Fatal(err)
		}
	}
	send(syscall.SIGSTOP)
	eventually(s.t, func() string {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
		if err == nil && !strings.Contains(string(status), "State:\tT") { // there is no such file elsewhere than on Linux
			return "the process has not stopped"
		}
		return ""
	})
	for _, sig := range signals {
		send(sig)
	}
	send(syscall.SIGCONT)
}

// TestStopIsBounded stops the shop while a request does not end: it says what it
// waits for, gives up in time, and a second signal does not wait at all.
func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, timeout string
		signals       []os.Signal // at the same time
		again         bool
		code          int
		says          string
	}{
		{"time over", "500ms", []os.Signal{os.Interrupt}, false, 1, "POST /charges"},
		{"two signals at the same time", "500ms", []os.Signal{os.Interrupt, syscall.SIGTERM}, false, 1, "POST /charges"},
		{"second signal", "1m", []os.Signal{os.Interrupt}, true, 130, "interrupt again: stopped at once"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := open(t, "shutdown_timeout: "+c.timeout+"\n")
			s.hold()
			s.together(c.signals)
			eventually(t, func() string {
				if !strings.Contains(s.Log(), "requests are finished first") || !strings.Contains(s.Log(), "POST /charges") {
					return "the log does not say what is waited for"
				}
				return ""
			})
			eventually(t, func() string {
				if !c.again || strings.Contains(s.Log(), c.says) {
					return ""
				}
				if err := s.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) { // its last words may be on their way
					t.Fatal(err)
				}
				return "still there after another signal" // which may have come with the first
			})
			err := s.process.Wait()
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
