// Package simulation runs a small system of kaptar's through thousands of seeds of faults, by
// kaptartest.Simulate, and compares afterwards what was committed with what was applied.
//
//	go test ./internal/test/simulation                          2,000 seeds
//	KAPTAR_SEEDS=100000 go test -timeout 0 ./internal/test/simulation
package simulation

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/internal/test/crash"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/saga"
	"github.com/kaptar/kaptar/sqldb"
)

// seeds is how many runs there are.
const seeds = 2000

// TestMain lets the heap grow: what a seed leaves behind is garbage as a whole.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

// Whatever strikes, what was committed is applied once and in order or set aside, nothing else is, the
// money is there, and each saga has ended.
func TestSimulation(t *testing.T) {
	t.Parallel()
	n := seeds
	if testing.Short() {
		n = 1000 // of which Simulate runs a tenth
	}
	var all edges
	t.Cleanup(func() { all.check(t) })
	kaptartest.Simulate(t, &kaptartest.Simulation{Seeds: n}, func(sim *kaptartest.Sim) {
		run(sim)
		all.add(sim.Faults())
	})
}

// edges are the crashes of a run of many seeds, by where they came.
type edges struct {
	mu    sync.Mutex
	seeds int
	count [len(edgeNames)]int
}

// edgeNames are the edges of a transaction, a send and an acknowledgement, as a crash at each is called.
var edgeNames = [...]string{
	"bank after INSERT INTO kaptar_outbox", "bank before commit", "bank after commit",
	"bank before publish", "bank after publish", "bank before DELETE FROM kaptar_outbox", "bank after DELETE FROM kaptar_outbox",
	"ledger before delivery", "ledger after INSERT INTO effects", "ledger before commit", "ledger after commit", "ledger before ack", "ledger after ack",
	"ledger before INSERT INTO kaptar_dead_letters", "ledger after INSERT INTO kaptar_dead_letters",
}

func (e *edges) add(faults []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seeds++
	for _, fault := range faults {
		for i, name := range edgeNames {
			if strings.HasPrefix(fault, "crash of "+name) {
				e.count[i]++
			}
		}
	}
}

// check makes sure that a crash came at each edge, when there were seeds enough.
func (e *edges) check(t *testing.T) {
	t.Helper()
	for i, name := range edgeNames {
		t.Logf("%d crashes: %s", e.count[i], name)
		if e.count[i] == 0 && e.seeds >= seeds {
			t.Errorf("in %d seeds no crash came at the edge %q", e.seeds, name)
		}
	}
}

// run is one run, with everything checked.
func run(sim *kaptartest.Sim) {
	w := &world{Sim: sim, vault: make(map[string]bool), moved: make(map[string]int64)}
	sim.Start(w.bank)
	sim.Start(w.bank)
	for range 3 {
		sim.Start(w.ledger)
	}
	steady.Sleep(w.Context(), 20*time.Second)
	sim.Calm()
	w.mu.Lock()
	w.mended = true
	w.mu.Unlock()
	for range 300 {
		if w.left() == 0 {
			break
		}
		steady.Sleep(w.Context(), 2*time.Second)
	}
	steady.Sleep(w.Context(), 15*time.Second) // what was delivered and not acknowledged comes again
	for name, problems := range crash.Check(w.record()) {
		for _, p := range problems {
			sim.Errorf("%s: %s", name, p)
		}
	}
}

func rows[T any](sim *kaptartest.Sim, db *sql.DB, query string, scan func(row sqldb.Row) (T, error)) []T {
	sim.Helper()
	all, err := sqldb.Select(context.Background(), db, scan, query)
	if err != nil {
		sim.Fatalf("%s: %v", query, err)
	}
	return all
}

func count(sim *kaptartest.Sim, db *sql.DB, query string) int64 {
	sim.Helper()
	return rows(sim, db, query, func(row sqldb.Row) (n int64, err error) { return n, row.Scan(&n) })[0]
}

// open says what is not finished, by its name.
func (w *world) open() map[string]int64 {
	bank, ledger := w.DB("bank"), w.DB("ledger")
	return map[string]int64{
		"events not written":             events - count(w.Sim, bank, `SELECT count(*) FROM committed`),
		"rows of the outbox":             count(w.Sim, bank, `SELECT count(*) FROM kaptar_outbox`),
		"events that are tried again":    count(w.Sim, ledger, `SELECT count(*) FROM kaptar_dead_letters WHERE state = 'retrying'`),
		"events that wait for their key": count(w.Sim, ledger, `SELECT count(*) FROM kaptar_dead_letters WHERE state = 'parked'`),
		"sagas":                          count(w.Sim, bank, `SELECT count(*) FROM kaptar_sagas WHERE due_at IS NOT NULL`),
	}
}

func (w *world) left() int64 {
	n := events - count(w.Sim, w.DB("ledger"),
		`SELECT (SELECT count(DISTINCT id) FROM effects) + (SELECT count(*) FROM kaptar_dead_letters WHERE topic = '`+plainTopic+`' AND state = 'dead')`)
	for _, open := range w.open() {
		n += open
	}
	return n
}

// record reads what a run has left.
func (w *world) record() *crash.Record {
	bank, ledger := w.DB("bank"), w.DB("ledger")
	r := &crash.Record{
		Totals: map[string]int64{}, Accounts: map[string]int64{}, Money: accounts * deposit, Open: w.open(),
		Committed: rows(w.Sim, bank, `SELECT id, topic, key, coalesce(seq, 0), amount, poison AND topic = '`+plainTopic+`' FROM committed`,
			func(row sqldb.Row) (e crash.Event, err error) {
				return e, row.Scan(&e.ID, &e.Topic, &e.Key, &e.Seq, &e.Amount, &e.Poison)
			}),
		Applied: rows(w.Sim, ledger, `SELECT id, topic, key, amount FROM effects ORDER BY pos`, func(row sqldb.Row) (e crash.Effect, err error) {
			return e, row.Scan(&e.ID, &e.Topic, &e.Key, &e.Amount)
		}),
		Dead: rows(w.Sim, ledger, `SELECT payload, topic, key FROM kaptar_dead_letters WHERE state IN ('dead', 'retrying', 'parked')`, func(row sqldb.Row) (e crash.Effect, err error) {
			var payload []byte
			var data entry
			if err := row.Scan(&payload, &e.Topic, &e.Key); err != nil {
				return e, err
			}
			err = json.Unmarshal(payload, &data)
			e.ID, e.Amount = data.ID, data.Amount
			return e, err
		}),
		Sagas: rows(w.Sim, bank, `SELECT id, status, amount FROM ended`, func(row sqldb.Row) (e crash.Saga, err error) {
			var status string
			err = row.Scan(&e.ID, &status, &e.Amount)
			e.Completed = status == string(saga.Completed)
			return e, err
		}),
	}
	type balance struct {
		of string
		n  int64
	}
	scan := func(row sqldb.Row) (a balance, err error) { return a, row.Scan(&a.of, &a.n) }
	for _, a := range rows(w.Sim, bank, `SELECT CAST(id AS TEXT), balance FROM accounts`, scan) {
		r.Accounts[a.of] = a.n
	}
	for _, a := range rows(w.Sim, ledger, `SELECT key, total FROM totals`, scan) {
		r.Totals[a.of] = a.n
	}
	w.mu.Lock()
	maps.Copy(r.Accounts, w.moved)
	w.mu.Unlock()
	if n := len(r.Sagas); n != sagas {
		w.Errorf("%d sagas have ended, want %d", n, sagas)
	}
	return r
}

// The faults of one seed are the same in each run, but for those of calls that only one order of
// goroutines makes.
func TestReplay(t *testing.T) {
	t.Parallel()
	if os.Getenv("KAPTAR_SEED") != "" || os.Getenv("KAPTAR_SEEDS") != "" {
		t.Skip("KAPTAR_SEED and KAPTAR_SEEDS choose the seeds of each Simulate, and this test has its own")
	}
	all, different := 0, 0
	for seed := range 10 {
		var runs, early [2][]string
		for i := range runs {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				kaptartest.Simulate(t, &kaptartest.Simulation{Seeds: 1, From: seed + 1}, func(sim *kaptartest.Sim) {
					time.AfterFunc(10*time.Second, func() { early[i] = sim.Faults() })
					run(sim)
					runs[i] = sim.Faults()
				})
			})
		}
		for i, faults := range runs {
			all += len(faults)
			for _, fault := range faults {
				if slices.Contains(runs[1-i], fault) {
					continue
				}
				different++
				if first(fault) && slices.Contains(early[i], fault) { // a later one may come after the calm in the other run
					t.Errorf("seed %d: %s: in one of two runs", seed+1, fault)
				}
			}
		}
	}
	t.Logf("%d of %d faults are in one of two runs", different, all)
	if all < 200 || different*25 > all {
		t.Errorf("%d of %d faults are in one of two runs, want 4 of a hundred at most", different, all)
	}
}

// first reports whether a fault is of what happens in any order: each event is written, published and
// delivered.
func first(fault string) bool {
	return !strings.Contains(fault, "(time ") && slices.ContainsFunc(
		[]string{"publish ", "delivered twice", "delivery late", "rolled back"}, func(kind string) bool { return strings.HasPrefix(fault, kind) })
}
