package crash

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/proc"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

// TestPowerCut cuts the power of a machine that has everything on one disk, again and again: all that
// was written and not synced is forgotten. With the settings that docs/reliability.md asks for nothing
// comes of it.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	for _, sh := range []shape{
		{name: "SQLite and NATS", open: (*site).sqliteNATS, kills: 5},
		{name: "local", kills: 3},
		{name: "PostgreSQL and RabbitMQ", open: func(s *site) {
			urls := s.startServers(servers.Postgres, servers.RabbitMQ)
			s.postgres(urls[0])
			s.rabbitMQ(urls[1])
		}, kills: 2},
	} {
		t.Run(sh.name, func(t *testing.T) {
			t.Parallel()
			m := openMachine(t, sh, nil)
			begun := time.Now()
			for range max(sh.kills, *kills/5) {
				<-time.After(time.Duration(m.random.IntN(1000)) * time.Millisecond)
				m.cut()
				m.again(m.books(false)).close()
			}
			b := m.books(false)
			m.halt()
			calm := time.Now()
			m.finish(b, liveness)
			m.report(m.record(b), begun, calm)
		})
	}
}

// TestPowerCutShows is the test of the test: a database that does not sync each commit has events out
// whose transactions never were, and a broker that does not sync each message loses some. What it
// has lost comes again from the outbox, if that keeps what was sent.
func TestPowerCutShows(t *testing.T) {
	t.Parallel()
	t.Run("SQLite without sync", func(t *testing.T) {
		t.Parallel()
		m := openMachine(t, shape{open: (*site).sqliteNATS}, map[string]string{"broken": normal})
		found := map[string][]string{}
		for cuts := 0; cuts < 10 && len(found[Ghosts]) == 0; cuts++ { // a cut right after a checkpoint forgets little
			m.cut()
			b := m.again(m.books(false))
			found = Check(m.record(b))
			b.close()
		}
		t.Logf("ghosts %d, order breaks %d", len(found[Ghosts]), len(found[Order]))
		if len(found[Ghosts]) == 0 {
			t.Errorf("synchronous is NORMAL, and the checker has found no ghosts: %v", found)
		}
	})
	t.Run("NATS without sync", func(t *testing.T) {
		t.Parallel()
		m := openMachine(t, shape{open: func(s *site) { s.config = "sync: 2m"; s.sqliteNATS() }}, map[string]string{"outbox.keep": "10m"})
		m.members[0].pause(2 * time.Second) // what is sent meanwhile the ledger has not seen
		m.cut()
		b := m.again(m.books(false))
		m.halt()
		m.still(b.ledger)
		lost := Check(m.record(b))[Lost]
		t.Logf("lost %d", len(lost))
		if len(lost) == 0 {
			t.Error("NATS does not sync, and the checker has found nothing lost")
		}
		begun := time.Now()
		if out, err := m.program(m.with("bank", nil, "events", "resend", "bank", "--since", "10m", "--why", "the power was cut")...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		m.finish(b, liveness)
		m.report(m.record(b), begun, begun)
	})
}

// A machine is a site whose databases and servers are on one disk.
type machine struct {
	*site

	disk *disk
}

func openMachine(t *testing.T, sh shape, settings map[string]string) *machine {
	t.Helper()
	m := &machine{disk: newDisk(t)}
	m.site = openSite(t, shape{open: func(s *site) {
		s.store = m.disk.dir
		if sh.open == nil {
			s.store = filepath.Join(s.store, "local")
			if err := os.Mkdir(s.store, 0o700); err != nil {
				t.Fatal(err)
			}
			s.sqlite()
			return
		}
		sh.open(s)
		m.disk.sync() // the servers are installed and have run before
	}}, 1, settings)
	if sh.open == nil { // all in one process, with the embedded broker, which takes its password from a file of before
		at := fmt.Sprint("127.0.0.1:", servertest.Port(t))
		broker := "nats://kaptar:" + rand.Text() + "@" + at
		if err := os.WriteFile(filepath.Join(m.store, "broker.url"), []byte(broker), 0o600); err != nil {
			t.Fatal(err)
		}
		m.disk.sync()
		m.started("all", "--data-dir", m.store, "--nats-listen", at, "--set", "broker_url="+broker+"?atomic=true&ack_wait=6s",
			"--set", "log_format=text", "--set", "dir="+m.dir, "--set", "services.bank.writers=4", "--set", "services.bank.pause=5ms")
	} else {
		m.run("ledger", "ledger", nil)
		m.run("writer", "bank", map[string]string{"writers": "4", "pause": "5ms"})
	}
	b := m.books(false)
	m.warm(b)
	// An event of a key that is new to the ledger waits for lower numbers for half a minute only.
	for count(t, b.ledger, `SELECT count(*) FROM kaptar_inbox_keys`) < 2*keys {
		<-time.After(50 * time.Millisecond)
	}
	b.close()
	return m
}

// again waits until events arrive that were written after a cut, and returns b.
func (m *machine) again(b *books) *books {
	m.t.Helper()
	const all = `SELECT count(*) FROM effects`
	before, begun := count(m.t, b.ledger, all)+20, time.Now()
	for ; count(m.t, b.ledger, all) < before; <-time.After(50 * time.Millisecond) {
		if time.Since(begun) > liveness {
			m.t.Fatalf("no effects %v after the cut", liveness)
		}
	}
	return b
}

// cut kills everybody, has the disk forget, and starts everybody again.
func (m *machine) cut() {
	m.t.Helper()
	m.power.Lock()
	defer m.power.Unlock()
	var dead []*proc.Process
	for _, i := range m.random.Perm(len(m.members) + len(m.engines)) {
		if i < len(m.members) {
			if p := m.members[i].kill(); p != nil {
				dead = append(dead, p)
			}
		} else {
			m.engines[i-len(m.members)].end(m.site)
		}
	}
	for _, p := range dead {
		<-p.Done()
	}
	m.disk.cut()
	for _, e := range m.engines {
		e.start(m.site)
	}
}
