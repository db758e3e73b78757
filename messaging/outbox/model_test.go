package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

const (
	modelKeys   = 2
	modelEvents = 8 // of each key
)

// A model is what a group of an ordered topic must come to, beside the tables. Each byte of a script
// is a step.
type model struct {
	t       *testing.T
	db      *sql.DB
	inbox   outbox.Inbox
	sent    map[string]driver.Message
	applied map[string]bool  // by id
	dropped map[string]bool  // by an operator
	acked   map[string]bool  // the broker need not have it any more
	last    map[string]int64 // the highest number applied in its order, by key
}

func newModel(t *testing.T, db *sql.DB) *model {
	t.Helper()
	for _, table := range []string{"kaptar_inbox", "kaptar_inbox_keys", "kaptar_dead_letters"} {
		exec(t, db, "DELETE FROM "+table)
	}
	m := &model{
		t: t, db: db, inbox: outbox.Inbox{Group: "g", Ordered: true}, sent: make(map[string]driver.Message),
		applied: make(map[string]bool), dropped: make(map[string]bool), acked: make(map[string]bool), last: make(map[string]int64),
	}
	for k := range modelKeys {
		for n := range modelEvents {
			e := numbered(fmt.Sprint("k", k), n+1)
			m.sent[e.ID] = e
		}
	}
	return m
}

// numbered is the event of a key with a number.
func numbered(key string, seq int) driver.Message {
	m := message(key, seq)
	m.Headers = driver.HeadersOf(map[string]string{"ce-source": "publisher", "ce-sequence": fmt.Sprint(seq)})
	return m
}

// tx runs f in a transaction that a crash may end before its commit.
func (m *model) tx(crash bool, f func(ctx context.Context, tx *sql.Tx) error) error {
	return sqldb.InTx(m.t.Context(), m.db, func(ctx context.Context, tx *sql.Tx) error {
		err := f(ctx, tx)
		if err == nil && crash {
			err = errBoom
		}
		return err
	})
}

// apply notes an effect that is committed.
func (m *model) apply(id string, seq int64) {
	m.t.Helper()
	if m.applied[id] || m.dropped[id] {
		m.t.Fatalf("%s is applied twice, or after it was dropped", id)
	}
	m.applied[id] = true
	if key := m.sent[id].Key; seq != 0 {
		if seq <= m.last[key] {
			m.t.Fatalf("%s is applied after number %d", id, m.last[key])
		}
		m.last[key] = seq
	}
}

// deliver is what a consumer does with an event.
func (m *model) deliver(e driver.Message, fail, crash bool, held time.Duration) {
	m.t.Helper()
	var turn outbox.Turn
	err := m.tx(crash, func(ctx context.Context, tx *sql.Tx) (err error) {
		if fail {
			turn, err = m.inbox.SetAside(ctx, tx, outbox.DeadLetter{Message: e, State: outbox.Retrying, DueAt: time.Now(), Reason: "failed"}, held)
		} else {
			turn, err = m.inbox.Take(ctx, tx, &e, held)
		}
		return err
	})
	if crash && errors.Is(err, errBoom) {
		return
	}
	if err != nil {
		m.t.Fatalf("%s: %v", e.ID, err)
	}
	if fail && turn == outbox.Handle || !fail && turn == outbox.Aside {
		m.t.Fatalf("%s: turn %d, failed %t", e.ID, turn, fail)
	}
	if turn == outbox.Handle {
		var seq int64
		fmt.Sscan(e.Headers.Get("ce-sequence"), &seq)
		m.apply(e.ID, seq)
	}
	m.acked[e.ID] = m.acked[e.ID] || turn != outbox.Early
	if turn != outbox.Early {
		m.check(e.ID)
	}
}

// retry is what the retrier does with one event.
func (m *model) retry(d outbox.DeadLetter, fail, crash bool) {
	m.t.Helper()
	err := m.tx(crash, func(ctx context.Context, tx *sql.Tx) error {
		if fail {
			due := time.Now()
			if d.Retries > 1 {
				due = time.Time{}
			}
			return d.Failed(ctx, tx, "again", due)
		}
		return d.Take(ctx, tx)
	})
	if err == nil && !fail {
		m.apply(d.Message.ID, d.Seq)
	} else if err != nil && !(crash && errors.Is(err, errBoom)) {
		m.t.Fatalf("retry of %s: %v", d.Message.ID, err)
	}
}

// operate is what an operator does with one event.
func (m *model) operate(d outbox.DeadLetter, drop, crash bool) {
	m.t.Helper()
	err := m.tx(crash, func(ctx context.Context, tx *sql.Tx) error {
		if drop {
			return outbox.DropDeadLetter(ctx, tx, d.ID)
		}
		return outbox.ReplayDeadLetter(ctx, tx, d.ID)
	})
	switch {
	case err == nil && drop:
		m.dropped[d.Message.ID] = true
	case err != nil && !errors.Is(err, outbox.ErrNotFirst) && !errors.Is(err, errBoom):
		m.t.Fatalf("operate on %s: %v", d.Message.ID, err)
	}
}

// letters are those in a state, "" for all.
func (m *model) letters(state string) []outbox.DeadLetter {
	m.t.Helper()
	all, err := outbox.DeadLetters(m.t.Context(), m.db, &outbox.Filter{State: state})
	if err != nil {
		m.t.Fatal(err)
	}
	return all
}

// check fails unless what the broker need not have any more is somewhere.
func (m *model) check(id string) {
	m.t.Helper()
	aside := slices.ContainsFunc(m.letters(""), func(d outbox.DeadLetter) bool { return d.Message.ID == id })
	if some := m.applied[id] || m.dropped[id]; some == aside {
		m.t.Fatalf("%s: applied %t, dropped %t, set aside %t: want one of them", id, m.applied[id], m.dropped[id], aside)
	}
}

func (m *model) run(script []byte) {
	m.t.Helper()
	for ; len(script) >= 2; script = script[2:] {
		what, which := script[0], int(script[1])
		fail, crash := what&0x10 != 0, what&0x60 == 0x60
		switch what & 0x0f {
		default:
			e := numbered(fmt.Sprint("k", which%modelKeys), which/modelKeys%modelEvents+1)
			m.deliver(e, fail, crash, []time.Duration{0, 0, outbox.FirstWait, outbox.GapWait}[which>>6])
		case 8, 9, 10, 11:
			if due := m.letters(outbox.Retrying); len(due) > 0 {
				m.retry(due[which%len(due)], fail, crash)
			}
		case 12, 13:
			if all := m.letters(""); len(all) > 0 {
				m.operate(all[which%len(all)], what&0x0f == 13, crash)
			}
		}
	}
	m.finish()
}

// finish delivers all again, replays what is dead and tries the rest until nothing is left.
func (m *model) finish() {
	m.t.Helper()
	for k := range modelKeys {
		for n := range modelEvents {
			m.deliver(numbered(fmt.Sprint("k", k), n+1), false, false, 0)
		}
	}
	for round := 0; len(m.letters("")) > 0; round++ {
		if round > 4*modelKeys*modelEvents {
			m.t.Fatalf("stuck: %+v", m.letters(""))
		}
		for _, d := range m.letters(outbox.Retrying) {
			m.retry(d, false, false)
		}
		if dead := m.letters(outbox.Dead); len(m.letters(outbox.Retrying)) == 0 {
			for _, d := range dead {
				m.operate(d, false, false)
			}
		}
	}
	for id := range m.sent {
		m.check(id)
	}
	if n := count(m.t, m.db, "kaptar_dead_letters WHERE state <> 'missed'"); n != 0 {
		m.t.Fatalf("%d rows left", n)
	}
}

// TestInboxModel: whatever comes in whatever order, fails or crashes, each event is applied once, in
// the order of its key, or an operator has dropped it.
func TestInboxModel(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		for seed := range uint64(30) {
			r := rand.New(rand.NewPCG(seed, 1))
			script := make([]byte, 80)
			for i := range script {
				script[i] = byte(r.Uint32())
			}
			t.Logf("seed %d", seed)
			newModel(t, db).run(script)
		}
	})
}

func FuzzInbox(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 0x10, 4, 0, 6, 8, 0, 0, 8})
	f.Add([]byte{0, 0, 0, 0xc4, 0, 6, 12, 0, 8, 0, 0, 2})
	f.Add([]byte{0, 0, 0x10, 2, 0, 4, 0, 6, 13, 1, 13, 0, 8, 0})
	db, err := sqldb.Open(context.Background(), "sqlite::memory:")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { db.Close() })
	if err := outbox.Migrate(context.Background(), db); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, script []byte) { newModel(t, db).run(script[:min(len(script), 200)]) })
}

// TestTakeDeadLetterOnce: of those who try one at the same time, one has its effect.
func TestTakeDeadLetterOnce(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		m := newModel(t, db)
		inbox := &outbox.Inbox{Group: "g", Ordered: true}
		err := m.tx(false, func(ctx context.Context, tx *sql.Tx) error {
			_, err := inbox.SetAside(ctx, tx, outbox.DeadLetter{Message: numbered("k", 1), State: outbox.Retrying, DueAt: time.Now()}, 0)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		letter := m.letters(outbox.Retrying)[0]
		results := make(chan error, 4)
		for range cap(results) {
			go func() {
				results <- m.tx(false, letter.Take)
			}()
		}
		taken := 0
		for range cap(results) {
			switch err := <-results; {
			case err == nil:
				taken++
			case !errors.Is(err, outbox.ErrNoDeadLetter):
				t.Errorf("Take: got %v, want ErrNoDeadLetter", err)
			}
		}
		if taken != 1 {
			t.Errorf("taken %d times, want once", taken)
		}
	})
}
