package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	_ "github.com/kaptar/kaptar/drivers/postgres"
	_ "github.com/kaptar/kaptar/drivers/sqlite"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

func TestMain(m *testing.M) { servertest.Main(m) }

var errBoom = errors.New("boom")

// eachDialect runs test on every dialect, with the URL of a fresh, migrated database.
func eachDialect(t *testing.T, test func(t *testing.T, url string)) {
	for _, d := range []struct {
		name string
		url  func(t *testing.T) string
	}{
		{"sqlite", func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "test.db") }},
		{"postgres", func(t *testing.T) string { return servertest.Database(t) }},
	} {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			url := d.url(t)
			for range 2 { // it may be called again
				if err := outbox.Migrate(t.Context(), open(t, url)); err != nil {
					t.Fatal(err)
				}
			}
			test(t, url)
		})
	}
}

func open(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func message(key string, n int) driver.Message {
	return driver.Message{ID: fmt.Sprintf("%s-%d", key, n), Topic: "order.placed.v1", Key: key,
		Headers: driver.HeadersOf(map[string]string{"ce-id": "ü\n\"", "content-type": "application/json"}), Data: []byte{0, 1, 255, byte(n)}}
}

// add commits one message in a transaction of its own.
func add(t testing.TB, db *sql.DB, m driver.Message) {
	t.Helper()
	err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error { return outbox.Add(ctx, tx, m) })
	if err != nil {
		t.Error(err)
	}
}

func exec(t testing.TB, db interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(context.WithoutCancel(t.Context()), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func count(t testing.TB, db *sql.DB, table string) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	waittest.Until(tb, what, ok)
}

// broker is where the tests' relays send to.
type broker struct {
	mu   sync.Mutex
	msgs []driver.Message
	fail func(batch []driver.Message) error // asked first; with an error nothing more is kept than a PartialError says
}

func (b *broker) send(_ context.Context, batch []driver.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var err error
	if b.fail != nil {
		err = b.fail(batch)
	}
	var partial *driver.PartialError
	switch {
	case errors.As(err, &partial):
		b.msgs = append(b.msgs, batch[:partial.Sent]...)
	case err == nil:
		b.msgs = append(b.msgs, batch...)
	}
	return err
}

func (b *broker) all() []driver.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]driver.Message(nil), b.msgs...)
}

func (b *broker) has(n int) func() bool { return func() bool { return len(b.all()) >= n } }

// start runs a relay until the returned function or the test ends it.
func start(t testing.TB, r *outbox.Relay) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func TestAddAndSendKeepTheMessage(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		var b broker
		r := outbox.NewRelay(db, b.send, nil)
		want := message("k", 1)
		add(t, db, want)
		add(t, db, driver.Message{ID: "bare", Topic: "a/b", Raw: true})
		rows, oldest, err := r.Backlog(t.Context())
		if err != nil || rows != 2 || oldest < 0 || oldest > time.Minute {
			t.Errorf("Backlog = %d, %v, %v; want 2 fresh rows", rows, oldest, err)
		}
		start(t, r)
		eventually(t, "both are sent", b.has(2))
		got := b.all()[0]
		if got.ID != want.ID || got.Topic != want.Topic || got.Key != want.Key || got.Raw || string(got.Data) != string(want.Data) || !slices.Equal(got.Headers, want.Headers) {
			t.Errorf("sent %+v, want %+v", got, want)
		}
		if bare := b.all()[1]; bare.ID != "bare" || !bare.Raw || len(bare.Headers) != 0 || len(bare.Data) != 0 {
			t.Errorf("sent %+v, want it bare", bare)
		}
		eventually(t, "the rows are deleted", func() bool { return count(t, db, "kaptar_outbox") == 0 })
		if rows, oldest, err := r.Backlog(t.Context()); rows != 0 || oldest != 0 || err != nil {
			t.Errorf("Backlog = %d, %v, %v; want none", rows, oldest, err)
		}
	})
}

func TestAddRefuses(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		big := message("k", 1)
		big.Data = make([]byte, driver.MaxSize)
		nul := message("k", 2)
		nul.Key = "a\x00b"
		for _, c := range []struct {
			m    driver.Message
			want error
		}{{driver.Message{ID: "x"}, driver.ErrInvalid}, {driver.Message{Topic: "x"}, driver.ErrInvalid}, {big, driver.ErrTooLarge}, {nul, driver.ErrInvalid}} {
			err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error { return outbox.Add(ctx, tx, c.m) })
			if !errors.Is(err, c.want) || !strings.HasPrefix(err.Error(), "outbox: add: ") {
				t.Errorf("Add of topic %q, id %q, key %q = %v, want %v", c.m.Topic, c.m.ID, c.m.Key, err, c.want)
			}
		}
		if n := count(t, db, "kaptar_outbox"); n != 0 {
			t.Errorf("rows = %d, want 0", n)
		}
	})
}

func TestRollbackPublishesNothing(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		var b broker
		r := outbox.NewRelay(db, b.send, nil)
		start(t, r)
		for i := range 20 {
			err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
				sqldb.AfterCommit(ctx, r.Wake)
				if err := outbox.Add(ctx, tx, message("k", i)); err != nil {
					return err
				}
				if i%2 == 0 {
					return errBoom
				}
				return nil
			})
			if (err != nil) != (i%2 == 0) {
				t.Fatalf("InTx %d = %v", i, err)
			}
		}
		eventually(t, "the committed are sent", func() bool { return len(b.all()) >= 10 && count(t, db, "kaptar_outbox") == 0 })
		for i, m := range b.all() {
			if want := message("k", 2*i+1).ID; m.ID != want {
				t.Errorf("sent %s as number %d, want %s", m.ID, i, want)
			}
		}
	})
}

// from is a message of that source and id.
func from(source, id string) *driver.Message {
	return &driver.Message{ID: id, Topic: "t", Headers: driver.HeadersOf(map[string]string{driver.HeaderSource: source})}
}

// markHandled marks m in a transaction that then ends with fail.
func markHandled(t testing.TB, db *sql.DB, group string, m *driver.Message, fail error) (first bool, err error) {
	t.Helper()
	err = sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
		if first, err = outbox.MarkHandled(ctx, tx, group, m); err != nil {
			return err
		}
		return fail
	})
	return first, err
}

func TestMarkHandled(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("s", 5000)
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		for _, c := range []struct {
			group, source, id string
			fail              error
			want              bool
		}{
			{"a", "s", "1", errBoom, true}, // rolled back: it does not count
			{"a", "s", "1", nil, true}, {"a", "s", "1", nil, false}, {"b", "s", "1", nil, true}, {"a", "s", "2", nil, true},
			{"a", "", "1", nil, true}, {"a", "", "1", nil, false}, // two publishers count alike
			{"a", "other", "1", nil, true}, {"a", "other", "1", nil, false},
			{"a", "*", "1", nil, true}, {"a", "*", "1", nil, false}, {"a", "s2", "1", nil, true},
			{"a", "nul\x00", "1", nil, true}, {"a", "nul\x00", "1", nil, false},
			{"a", long, "1", nil, true}, {"a", long, "1", nil, false}, {"a", long + "2", "1", nil, true},
		} {
			if first, err := markHandled(t, db, c.group, from(c.source, c.id), c.fail); first != c.want || err != c.fail {
				t.Errorf("MarkHandled(%s, %.10q, %s) = %t, %v; want %t, %v", c.group, c.source, c.id, first, err, c.want, c.fail)
			}
		}
		if _, err := markHandled(t, db, "", from("s", "1"), nil); err == nil {
			t.Error("MarkHandled without a group: no error")
		}
		// Many deliveries of one message at the same time.
		var firsts, wg = make(chan bool, 16), sync.WaitGroup{}
		for range cap(firsts) {
			wg.Go(func() {
				first, err := markHandled(t, db, "c", from("s", "1"), nil)
				if err != nil {
					t.Errorf("MarkHandled: %v", err)
				}
				firsts <- first
			})
		}
		wg.Wait()
		close(firsts)
		n := 0
		for first := range firsts {
			if first {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d of 16 concurrent deliveries were the first, want 1", n)
		}
	})
}

// TestMigrationKeepsMarks: what was handled before marks had a source stays handled, whoever sent
// it.
func TestMigrationKeepsMarks(t *testing.T) {
	t.Parallel()
	for dialect, url := range map[string]func() string{
		"sqlite":   func() string { return "sqlite:" + filepath.Join(t.TempDir(), "test.db") },
		"postgres": func() string { return servertest.Database(t) },
	} {
		first := make(fstest.MapFS)
		for _, d := range []string{"sqlite", "postgres"} {
			name := "migrations/" + d + "/001_outbox.sql"
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			first[name] = &fstest.MapFile{Data: text}
		}
		db := open(t, url())
		if err := sqldb.Migrate(t.Context(), db, first, "kaptar_schema"); err != nil {
			t.Fatal(err)
		}
		exec(t, db, `INSERT INTO kaptar_inbox (grp, msgid, handled_at) VALUES ('g', '1', $1)`, time.Now().UnixMilli())
		exec(t, db, `INSERT INTO kaptar_dead_letters (grp, msgid, topic, key, headers, payload, reason, attempts, first_at, last_at)
			VALUES ('g', '2', 't', 'k', '{"ce-source":"s"}', 'x', 'why', 1, 1, 1), ('g', '3', 't', 'k', '{}', 'x', 'why', 1, 1, 1)`)
		if err := outbox.Migrate(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			source, id string
			want       bool
		}{{"s", "1", false}, {"", "1", false}, {"s", "2", true}} {
			if got, err := markHandled(t, db, "g", from(c.source, c.id), nil); got != c.want || err != nil {
				t.Errorf("%s: MarkHandled(%s, %s) after the migration = %t, %v; want %t", dialect, c.source, c.id, got, err, c.want)
			}
		}
		for _, m := range []*driver.Message{from("s", "2"), from("", "3"), from("new", "2")} {
			err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
				return outbox.AddDeadLetter(ctx, tx, outbox.DeadLetter{Group: "g", Message: *m, Reason: "again"})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		all, err := outbox.DeadLetters(t.Context(), db, nil)
		if err != nil || len(all) != 3 || all[0].Attempts != 2 || all[1].Attempts != 2 || all[2].Attempts != 1 {
			t.Errorf("%s: dead letters after the migration: %+v, %v; want the two old ones again and a new one", dialect, all, err)
		}
	}
}

func TestPurgeInbox(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
			for i := range 1203 {
				if _, err := outbox.MarkHandled(ctx, tx, "g", from("s", fmt.Sprint(i))); err != nil {
					return err
				}
			}
			_, err := tx.Exec("UPDATE kaptar_inbox SET handled_at = $1 WHERE msgid <> '7'", time.Now().Add(-time.Hour).UnixMilli())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := outbox.PurgeInbox(t.Context(), db, 2*time.Hour); n != 0 || err != nil {
			t.Errorf("PurgeInbox(2h) = %d, %v; want 0", n, err)
		}
		if n, err := outbox.PurgeInbox(t.Context(), db, time.Minute); n != 1202 || err != nil {
			t.Errorf("PurgeInbox(1m) = %d, %v; want 1202", n, err)
		}
		if n := count(t, db, "kaptar_inbox"); n != 1 {
			t.Errorf("marks = %d, want the fresh one", n)
		}
		if _, err := outbox.PurgeInbox(t.Context(), db, 0); err == nil {
			t.Error("PurgeInbox(0): no error")
		}
	})
}

func TestAddDeadLetter(t *testing.T) {
	t.Parallel()
	eachDialect(t, func(t *testing.T, url string) {
		db := open(t, url)
		add := func(d outbox.DeadLetter, fail error) error {
			return sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
				if err := outbox.AddDeadLetter(ctx, tx, d); err != nil {
					return err
				}
				return fail
			})
		}
		at := time.UnixMilli(1_700_000_000_123)
		m := message("k", 1)
		if err := add(outbox.DeadLetter{Group: "g", Message: m}, errBoom); err != errBoom {
			t.Fatal(err)
		}
		first := outbox.DeadLetter{Group: "g", Message: m, Reason: "bad\x00 json\xff", Attempts: 5, FirstAt: at, LastAt: at.Add(time.Second)}
		again := outbox.DeadLetter{Group: "g", Message: m, Reason: "still", LastAt: at.Add(time.Minute)}
		other := outbox.DeadLetter{Group: "h", Message: m, Reason: strings.Repeat("é", 20_000)}
		for _, d := range []outbox.DeadLetter{first, again, other} {
			if err := add(d, nil); err != nil {
				t.Fatal(err)
			}
		}
		got, err := outbox.DeadLetters(t.Context(), db, nil)
		if err != nil || len(got) != 2 {
			t.Fatalf("DeadLetters = %d, %v; want 2", len(got), err)
		}
		d := got[0]
		if d.Group != "g" || d.Reason != "still" || d.Attempts != 6 || !d.FirstAt.Equal(at) || !d.LastAt.Equal(at.Add(time.Minute)) ||
			d.Message.ID != m.ID || string(d.Message.Data) != string(m.Data) || !slices.Equal(d.Message.Headers, m.Headers) {
			t.Errorf("dead letter = %+v, want both failures in one with the message whole", d)
		}
		if d := got[1]; d.Group != "h" || d.Attempts != 1 || d.FirstAt.IsZero() || len(d.Reason) > 17<<10 {
			t.Errorf("dead letter of h = group %s, %d attempts, %d bytes of reason", d.Group, d.Attempts, len(d.Reason))
		}
		if err := add(outbox.DeadLetter{Message: m}, nil); err == nil {
			t.Error("AddDeadLetter without a group: no error")
		}
	})
}
