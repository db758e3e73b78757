package crash

import (
	"context"
	"database/sql"
	"encoding/json"
	"testing"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

// rows returns what scan makes of each row of a query.
func rows[T any](t *testing.T, db *sql.DB, query string, scan func(row sqldb.Row) (T, error)) []T {
	t.Helper()
	all, err := sqldb.Select(context.Background(), db, scan, query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return all
}

func count(t *testing.T, db *sql.DB, query string) int64 {
	t.Helper()
	return rows(t, db, query, func(row sqldb.Row) (n int64, err error) { return n, row.Scan(&n) })[0]
}

// open is what is not finished, by its name.
func open(t *testing.T, bank, ledger *sql.DB) map[string]int64 {
	t.Helper()
	return map[string]int64{
		"rows of the outbox":             count(t, bank, `SELECT count(*) FROM kaptar_outbox`),
		"events that are tried again":    count(t, ledger, `SELECT count(*) FROM kaptar_dead_letters WHERE state = 'retrying'`),
		"events that wait for their key": count(t, ledger, `SELECT count(*) FROM kaptar_dead_letters WHERE state = 'parked'`),
	}
}

// record reads what a run has left.
func (s *site) record(bank, ledger *sql.DB) *Record {
	t := s.t
	t.Helper()
	r := &Record{
		Totals: map[string]int64{}, Accounts: map[string]int64{}, Money: accounts * deposit, Open: open(t, bank, ledger),
		Committed: rows(t, bank, `SELECT id, topic, key, coalesce(seq, 0), amount, poison FROM committed`, func(row sqldb.Row) (e Event, err error) {
			return e, row.Scan(&e.ID, &e.Topic, &e.Key, &e.Seq, &e.Amount, &e.Poison)
		}),
		Applied: rows(t, ledger, `SELECT id, topic, key, amount FROM effects ORDER BY pos`, func(row sqldb.Row) (e Effect, err error) {
			return e, row.Scan(&e.ID, &e.Topic, &e.Key, &e.Amount)
		}),
		Dead: rows(t, ledger, `SELECT payload, topic, key FROM kaptar_dead_letters`, func(row sqldb.Row) (e Effect, err error) {
			var payload []byte
			var data entry
			if err := row.Scan(&payload, &e.Topic, &e.Key); err != nil {
				return e, err
			}
			err = json.Unmarshal(payload, &data)
			e.ID, e.Amount = data.ID, data.Amount
			return e, err
		}),
	}
	type balance struct {
		of string
		n  int64
	}
	scan := func(row sqldb.Row) (b balance, err error) { return b, row.Scan(&b.of, &b.n) }
	for _, b := range rows(t, bank, `SELECT CAST(id AS TEXT), balance FROM accounts`, scan) {
		r.Accounts[b.of] = b.n
	}
	for _, b := range rows(t, ledger, `SELECT key, total FROM totals`, scan) {
		r.Totals[b.of] = b.n
	}
	r.Rows = map[string]int64{
		"marks of events":        count(t, ledger, `SELECT count(*) FROM kaptar_inbox`),
		"marks of keys":          count(t, ledger, `SELECT count(*) FROM kaptar_inbox_keys`),
		"last numbers of topics": count(t, bank, `SELECT count(*) FROM kaptar_sequences`),
	}
	r.Bounds = map[string]int64{"marks of events": int64(len(r.Committed)), "marks of keys": 2 * keys, "last numbers of topics": 2 * keys}
	return r
}

// finish waits until everything is finished that was committed, a minute after the last kill.
func (s *site) finish(bank, ledger *sql.DB, limit time.Duration) {
	s.t.Helper()
	begun := time.Now()
	for time.Since(begun) < limit {
		left := count(s.t, bank, `SELECT count(*) FROM committed`) -
			count(s.t, ledger, `SELECT (SELECT count(DISTINCT id) FROM effects) + (SELECT count(*) FROM kaptar_dead_letters WHERE state = 'dead')`)
		for _, n := range open(s.t, bank, ledger) {
			left += n
		}
		if left <= 0 {
			return
		}
		<-time.After(250 * time.Millisecond)
	}
	s.t.Logf("not finished after %v", limit)
}
