package main

import (
	"testing"
	"time"
)

// slowBank makes the bank slow, so that a stop comes when orders wait for it.
const slowBank = `{"delay_ms":50}`

// killEach kills each service's process while customers order.
func killEach(t *testing.T, s *site) {
	s.as(t).faults(slowBank)
	tr := s.traffic(t, "kill-each")
	for _, service := range served() {
		tr.more(t, 3)
		s.kill(t, s, service)
		s.revive(t, s, service)
		if service == "bank" {
			s.as(t).faults(slowBank)
		}
		t.Logf("%s was killed and is back", service)
	}
	tr.more(t, 3)
	tr.end()
	s.as(t).faults(`{}`)
	s.audit(t)
}

// killHandling kills the consumers while they handle events, which a lock in their
// databases keeps them from finishing: the events come again.
func killHandling(t *testing.T, s *site) {
	user := s.as(t).signUp("handling")
	s.stockUp(t, "handling", 100)
	for _, service := range []string{"analytics-service", "notification-service"} {
		unlock := s.lock(t, service)
		for range 5 { // one after the other, so that the first is with the consumers when the last is done
			o := s.order(t, user, "handling", 1, "confirmed")
			s.ended(t, []entry{{id: o.ID, user: user, want: "confirmed"}})
		}
		s.kill(t, s, service)
		unlock()
		s.revive(t, s, service)
	}
	s.audit(t)
}

// lock keeps everybody from writing to what a service has in its inbox.
func (s *site) lock(t *testing.T, service string) (unlock func()) {
	t.Helper()
	db := s.openDB(t, service)
	tx, err := db.BeginTx(t.Context(), nil) // on SQLite that locks the whole database
	if err == nil && s.name == realShape {
		_, err = tx.ExecContext(t.Context(), "LOCK TABLE kaptar_inbox IN EXCLUSIVE MODE")
	}
	if err != nil {
		t.Fatalf("lock the inbox of %s: %v", service, err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			t.Errorf("unlock the inbox of %s: %v", service, err)
		}
	}
}

// killEverything kills all processes at the same time while customers order.
func killEverything(t *testing.T, s *site) {
	tr := s.traffic(t, "kill-all")
	for range 2 {
		s.as(t).faults(slowBank)
		tr.more(t, 5)
		s.killAll(t)
		s.startAgain(t)
	}
	begun := time.Now()
	tr.more(t, 3)
	tr.end()
	s.audit(t)
	t.Logf("all orders were finished after %v", time.Since(begun))
}

// startAgain starts all services after they were stopped.
func (s *site) startAgain(t *testing.T) {
	t.Helper()
	begun := time.Now()
	s.start(t, s)
	t.Logf("ready again in %v", time.Since(begun))
}

// restartEverything stops all processes gracefully while customers order.
func restartEverything(t *testing.T, s *site) {
	tr := s.traffic(t, "restart-all")
	s.as(t).faults(slowBank)
	tr.more(t, 5)
	begun := time.Now()
	s.stopAll(t)
	t.Logf("stopped in %v", time.Since(begun))
	s.startAgain(t)
	tr.more(t, 3)
	tr.end()
	s.audit(t)
}
