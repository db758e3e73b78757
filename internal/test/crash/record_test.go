package crash

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/saga"
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

// open says what is not finished, by its name.
func (b *books) open(t *testing.T) map[string]int64 {
	t.Helper()
	n := map[string]int64{
		"rows of the outbox":             count(t, b.bank, `SELECT count(*) FROM kaptar_outbox`),
		"events that are tried again":    count(t, b.ledger, `SELECT count(*) FROM kaptar_dead_letters WHERE state = 'retrying'`),
		"events that wait for their key": count(t, b.ledger, `SELECT count(*) FROM kaptar_dead_letters WHERE state = 'parked'`),
	}
	if b.vault != nil {
		n["sagas"] = count(t, b.bank, `SELECT count(*) FROM kaptar_sagas WHERE due_at IS NOT NULL`)
	}
	return n
}

// record reads what a run has left.
func (s *site) record(b *books) *Record {
	t := s.t
	t.Helper()
	r := &Record{
		Totals: map[string]int64{}, Accounts: map[string]int64{}, Money: accounts * deposit, Open: b.open(t),
		Committed: rows(t, b.bank, `SELECT id, topic, key, coalesce(seq, 0), amount, poison FROM committed`, func(row sqldb.Row) (e Event, err error) {
			return e, row.Scan(&e.ID, &e.Topic, &e.Key, &e.Seq, &e.Amount, &e.Poison)
		}),
		Applied: rows(t, b.ledger, `SELECT id, topic, key, amount FROM effects ORDER BY pos`, func(row sqldb.Row) (e Effect, err error) {
			return e, row.Scan(&e.ID, &e.Topic, &e.Key, &e.Amount)
		}),
		Dead: rows(t, b.ledger, `SELECT payload, topic, key FROM kaptar_dead_letters`, func(row sqldb.Row) (e Effect, err error) {
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
	scan := func(row sqldb.Row) (a balance, err error) { return a, row.Scan(&a.of, &a.n) }
	for _, a := range rows(t, b.bank, `SELECT CAST(id AS TEXT), balance FROM accounts`, scan) {
		r.Accounts[a.of] = a.n
	}
	for _, a := range rows(t, b.ledger, `SELECT key, total FROM totals`, scan) {
		r.Totals[a.of] = a.n
	}
	if b.vault != nil {
		for _, a := range rows(t, b.vault, `SELECT id, CAST(sum(amount) AS BIGINT) FROM moves GROUP BY id`, scan) {
			r.Accounts[a.of] = a.n
		}
		r.Sagas = rows(t, b.bank, `SELECT id, status, amount FROM ended`, func(row sqldb.Row) (e Saga, err error) {
			var status string
			err = row.Scan(&e.ID, &status, &e.Amount)
			e.Completed = status == string(saga.Completed)
			return e, err
		})
	}
	r.Rows = map[string]int64{
		"marks of events":        count(t, b.ledger, `SELECT count(*) FROM kaptar_inbox`),
		"marks of keys":          count(t, b.ledger, `SELECT count(*) FROM kaptar_inbox_keys`),
		"last numbers of topics": count(t, b.bank, `SELECT count(*) FROM kaptar_sequences`),
	}
	r.Bounds = map[string]int64{"marks of events": int64(len(r.Committed)), "marks of keys": 2 * keys, "last numbers of topics": 2 * keys}
	return r
}

// finish waits until everything is finished that was committed, until limit has passed.
func (s *site) finish(b *books, limit time.Duration) {
	s.t.Helper()
	begun := time.Now()
	for time.Since(begun) < limit {
		left := count(s.t, b.bank, `SELECT count(*) FROM committed`) -
			count(s.t, b.ledger, `SELECT (SELECT count(DISTINCT id) FROM effects) + (SELECT count(*) FROM kaptar_dead_letters WHERE state = 'dead')`)
		for _, n := range b.open(s.t) {
			left += n
		}
		if left <= 0 {
			return
		}
		<-time.After(250 * time.Millisecond)
	}
	s.t.Logf("not finished after %v", limit)
	for _, e := range s.engines {
		if e.Engine() == servers.RabbitMQ {
			s.t.Logf("what RabbitMQ has: %s", queues("http://guest:guest@"+e.Addr("management")+"/api/queues?columns=name,messages_ready,messages_unacknowledged,consumers,state"))
		}
	}
}

// queues is what RabbitMQ says of its queues.
func queues(url string) string {
	resp, err := http.Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%s %v", text, err)
}
