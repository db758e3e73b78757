package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
)

// An outage is a server of the real shape killed and started again under orders.
type outage struct {
	engine servers.Engine
	// refuses: orders cannot be accepted meanwhile.
	refuses bool
	// unready is what /readyz names of all services but those without a database.
	unready string
	// lost is in the log of every service in users when the server goes away, and
	// back when it is back.
	lost, back string
	users      []string
}

func outages() []outage {
	all := []string{
		"user-service", "order-service", "inventory-service", "payment-service", "notification-service", "analytics-service",
	}
	return []outage{
		{engine: servers.Kafka, lost: "kafka lost", back: "kafka is back", users: all},
		{engine: servers.RabbitMQ, lost: "rabbitmq lost", back: "rabbitmq is back", users: []string{"notification-service"}},
		{engine: servers.Consul, lost: "consul lost", back: "consul is back", users: append([]string{"gateway", "bank"}, all...)},
		{engine: servers.Redis, lost: "redis", back: "redis", users: []string{"user-service"}},
		{engine: servers.Postgres, refuses: true, unready: "database", lost: "database lost", back: "database is back", users: all},
	}
}

func (o outage) name() string {
	return fmt.Sprintf("%s killed -9 and restarted under orders", o.engine)
}

// run kills the server while customers order: every order that is accepted finishes
// once, readiness tells the truth, and the logs say once what is waited for.
func (o outage) run(t *testing.T, s *site) {
	server := s.servers[o.engine]
	tr := s.traffic(t, "no-"+string(o.engine))
	tr.more(t, 5)
	marks := make(map[string]int)
	for _, service := range serviceNames() {
		marks[service] = len(s.logOf(service))
	}
	_, before := tr.counts()
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if o.refuses {
		o.waitRefused(t, tr, len(before))
	} else {
		tr.more(t, 30)
		if _, refused := tr.counts(); len(refused) > len(before) {
			t.Errorf("orders were refused without %s: %d, such as %v", o.engine, len(refused)-len(before), refused[len(before)])
		}
	}
	o.checkReadiness(t, s)
	o.checkLogs(t, s, marks, o.lost, o.users)
	for _, service := range o.users {
		marks[service] = len(s.logOf(service))
	}
	begun := time.Now()
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s answered %v after its start", o.engine, time.Since(begun))
	for _, service := range serviceNames() {
		s.ready(t, service)
	}
	tr.more(t, 10)
	tr.end()
	s.audit(t)
	t.Logf("all orders were finished after %v", time.Since(begun))
	o.checkLogs(t, s, marks, o.back, o.users)
}

// waitRefused waits until customers were refused often, each with a problem that
// tells them so.
func (o outage) waitRefused(t *testing.T, tr *traffic, before int) {
	t.Helper()
	eventually(t, func() string {
		if _, refused := tr.counts(); len(refused) < before+20 {
			return fmt.Sprintf("%d orders were refused", len(refused)-before)
		}
		return ""
	})
	_, refused := tr.counts()
	for _, a := range refused[before:] {
		if ct := a.header.Get("Content-Type"); a.status/100 != 5 || ct != "application/problem+json" {
			t.Errorf("without %s: got %d %s %s, want 5xx with a problem", o.engine, a.status, ct, a.body)
		}
	}
}

// checkReadiness: a service is not ready without what it cannot answer without, and
// ready without anything else.
func (o outage) checkReadiness(t *testing.T, s *site) {
	t.Helper()
	for _, service := range serviceNames() {
		status, names := http.StatusServiceUnavailable, o.unready
		if o.unready == "" || service == "gateway" || service == "customers" {
			status, names = http.StatusOK, ""
		}
		eventually(t, func() string { // a check has a second, in which the machine may stand still
			if a := s.as(t).call(http.MethodGet, service, "/readyz", ""); a.status != status || !strings.Contains(a.body, names) {
				return fmt.Sprintf("/readyz of %s without %s: got %d %s, want %d that names %q", service, o.engine, a.status, a.body, status, names)
			}
			return ""
		})
	}
}

// A record is a line of a log.
type record struct {
	Time  time.Time `json:"time"`
	Level string    `json:"level"`
	Msg   string    `json:"msg"`
	Error string    `json:"error"`
	Trace string    `json:"trace_id"`
	ID    string    `json:"id"` // of the saga or event that it is about
}

// records returns what service has logged from mark on.
func (s *site) records(service string, mark int) (list []record, lines []string) {
	for line := range strings.Lines(s.logOf(service)[mark:]) {
		var r record
		if json.Unmarshal([]byte(line), &r) == nil {
			list, lines = append(list, r), append(lines, line)
		}
	}
	return list, lines
}

// anotherReason is how long after a line about an outage another reason for it may be told: 5 s, and
// a second less here, since a line is written after the clock was read.
const anotherReason = 4 * time.Second

// checkLogs: each of services says what it has to, and does not repeat itself, except with another
// reason after a while, as a server has that starts slowly. Lines about one request are about the
// request, and there is one about each saga that was in the middle of a step.
func (o outage) checkLogs(t *testing.T, s *site, marks map[string]int, says string, services []string) {
	t.Helper()
	for _, service := range services {
		eventually(t, func() string {
			if !strings.Contains(s.logOf(service)[marks[service]:], says) {
				return fmt.Sprintf("the log of %s does not say %q", service, says)
			}
			return ""
		})
		list, lines := s.records(service, marks[service])
		said := make(map[string]record)
		for i, r := range list {
			if r.Level == "INFO" || r.Trace != "" {
				continue
			}
			t.Logf("%s: %s", service, lines[i])
			if last, again := said[r.Msg+r.ID]; again && (r.Error == last.Error || r.Time.Sub(last.Time) < anotherReason) {
				t.Errorf("%s repeats %q during an outage, after %v", service, r.Msg, r.Time.Sub(last.Time))
			}
			said[r.Msg+r.ID] = r
		}
	}
}
