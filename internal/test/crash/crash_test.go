package crash

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servertest"
)

var (
	kills = flag.Int("kills", 0, "how often TestCrash and TestCrashServers kill something; 0: 42 and 20")
	pause = flag.Duration("pause", 20*time.Millisecond, "of each of the eight writers of these, between two transactions")
	seed  = flag.Uint64("seed", 0, "of what is random in them; 0: another each time")
)

// liveness is how long after the last kill everything has to be finished: on a slow machine the writers
// are far ahead by then.
const liveness = 3 * time.Minute

// TestCrash kills writers, relays, consumers and the broker, with the databases in files, and checks what
// comes of it.
func TestCrash(t *testing.T) {
	t.Parallel()
	crash(t, shape{open: (*site).sqliteNATS, kills: 42})
}

// TestCrashServers kills databases too. It is the longest test, and so none of many subtests: those begin
// when the others are over, and it would be alone at the end.
func TestCrashServers(t *testing.T) {
	t.Parallel()
	crash(t, shape{open: (*site).servers, kills: 20})
}

func crash(t *testing.T, sh shape) {
	t.Helper()
	seed := *seed
	if seed == 0 {
		seed = rand.Uint64N(1_000_000) + 1
	}
	t.Logf("-seed %d", seed)
	s := openSite(t, sh, seed, nil)
	n := sh.kills
	if *kills > 0 {
		n = *kills
	}
	begun := time.Now()
	s.start()
	b := s.books(true)
	s.warm(b)
	s.killUntil(int64(n), s.progress(b))
	s.halt()
	calm := time.Now()
	s.finish(b, liveness)
	r := s.record(b)
	s.report(r, begun, calm)
}

// warm waits until events of every topic arrive, and two seconds more. RabbitMQ 3.10 loses queues that are
// younger than a second when it is killed, see package drivers/rabbitmq. NATS can find the file of a
// consumer corrupt that was younger than that at a cut of power, and then refuses the consumer.
func (s *site) warm(b *books) {
	s.t.Helper()
	for begun := time.Now(); count(s.t, b.ledger, `SELECT count(DISTINCT topic) FROM effects`) < 3; <-time.After(50 * time.Millisecond) {
		if time.Since(begun) > liveness {
			s.t.Fatalf("no effects of each topic after %v", liveness)
		}
	}
	<-time.After(2 * time.Second)
}

// progress logs figures every ten seconds.
func (s *site) progress(b *books) func() {
	next := time.Now().Add(10 * time.Second)
	return func() {
		if time.Now().Before(next) {
			return
		}
		next = time.Now().Add(10 * time.Second)
		s.t.Logf("%d kills, about %s events committed and %s effects", s.kills.Load(), about(b.bank, "committed"), about(b.ledger, "effects"))
	}
}

// about counts the rows of a table, while its database may be away.
func about(db *sql.DB, table string) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	n := "?"
	_ = db.QueryRowContext(ctx, `SELECT CAST(count(*) AS TEXT) FROM `+table).Scan(&n)
	return n
}

// start starts two processes of the bank, one of which only relays and runs sagas, three of the ledger
// and one of the vault. The ledger begins last: what was committed before has to arrive too.
func (s *site) start() {
	at := fmt.Sprint("127.0.0.1:", servertest.Port(s.t))
	s.run("vault", "vault", map[string]string{"listen": at, "edge": "100"})
	s.run("writer", "bank", map[string]string{"writers": "8", "pause": pause.String(), "vault": "http://" + at, "breaker.recovery_timeout": "1s"})
	s.run("relay", "bank", map[string]string{"vault": "http://" + at, "breaker.recovery_timeout": "1s"})
	var bank *sql.DB
	s.open("bank", "committed", &bank)
	for begun := time.Now(); count(s.t, bank, `SELECT count(DISTINCT topic) FROM committed`) < 3; <-time.After(50 * time.Millisecond) {
		if time.Since(begun) > liveness {
			s.t.Fatalf("no events of each topic after %v", liveness)
		}
	}
	for i := range 3 {
		s.run(fmt.Sprint("ledger-", i), "ledger", map[string]string{"edge": "2000"})
	}
}

// report logs the figures and fails the test for what the checkers have found.
func (s *site) report(r *Record, begun, calm time.Time) {
	s.t.Helper()
	found := Check(r)
	s.t.Logf("%d events in %v: %d kills (%s), %d pauses, %d starts failed, %d deliveries of what was handled or waits for its key; lost %d, ghosts %d, twice %d, order breaks %d, money %d, open %d, dead letters %d, %d sagas over; finished after %v",
		len(r.Committed), time.Since(begun).Round(time.Second), s.kills.Load(), s.toll(), s.pauses.Load(), s.failures.Load(), s.bytes(deliveryFile)-s.bytes(handledFile),
		len(found[Lost]), len(found[Ghosts]), len(found[Twice]), len(found[Order]), len(found[Money]), len(found[Liveness]), len(r.Dead), len(r.Sagas), time.Since(calm).Round(100*time.Millisecond))
	for checker, problems := range found {
		s.t.Errorf("%s: %d, the first are\n%s", checker, len(problems), strings.Join(problems[:min(len(problems), 5)], "\n"))
	}
}
