package outbox_test

import (
	"bytes"
	"context"
	"database/sql"
	"net/url"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// postgres opens two pools on one migrated database, as two processes have them.
func postgres(t testing.TB) (one, two *sql.DB) {
	t.Helper()
	url := servertest.Database(t)
	one, two = open(t, url), open(t, url)
	if err := outbox.Migrate(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	return one, two
}

func begin(t testing.TB, db *sql.DB, m driver.Message) *sql.Tx {
	t.Helper()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	if err := outbox.Add(t.Context(), tx, m); err != nil {
		t.Fatal(err)
	}
	return tx
}

// fill puts n events into the outbox by one statement.
func fill(t testing.TB, db *sql.DB, n int) {
	t.Helper()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	bytes := "repeat('x', 200)::bytea"
	if sqldb.DialectOf(db) == sqldb.SQLite {
		bytes = "zeroblob(200)"
	}
	exec(t, conn, `WITH RECURSIVE s(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM s WHERE i + 1 < $1)
		INSERT INTO kaptar_outbox (msgid, topic, key, headers, payload, raw, created_at)
		SELECT 'bulk-' || i, 'order.placed.v1', 'k', '{}', `+bytes+`, FALSE, 1 FROM s`, n)
	if sqldb.DialectOf(db) == sqldb.Postgres { // or the session hands its figures in up to 10 s later
		exec(t, conn, "SELECT pg_stat_force_next_flush()")
	}
}

// A transaction that has its id before others and is open for long holds nobody up, is not skipped, and
// its event comes before a later one of its key. Each send is one look at the locks, so the relay
// has every opportunity to take what was sent for a bound.
func TestBoundKeepsLateCommits(t *testing.T) {
	t.Parallel()
	db, _ := postgres(t)
	late := begin(t, db, message("late", 0))
	var b broker
	r := outbox.NewRelay(db, b.send, nil).BoundOften()
	start(t, r)
	for i := range 20 {
		add(t, db, message("early", i))
		r.Wake()
		eventually(t, "others are sent meanwhile", b.has(i+1))
	}
	b.mu.Lock() // the relay is in no batch between here and Unlock
	if err := late.Commit(); err != nil {
		t.Error(err)
	}
	add(t, db, message("late", 1))
	b.mu.Unlock()
	r.Wake()
	eventually(t, "all are sent", func() bool { return len(b.all()) == 22 && count(t, db, "kaptar_outbox") == 0 })
	if all := b.all(); all[20].ID != "late-0" || all[21].ID != "late-1" {
		t.Errorf("the last two are %s and %s, want late-0 and late-1: the order of their commits", all[20].ID, all[21].ID)
	}
}

// The commit comes after the read of a batch with higher ids and before the relay looks who writes: the
// writer is over by then, and its row has not been read.
func TestBoundWaitsForAnotherRead(t *testing.T) {
	t.Parallel()
	db, _ := postgres(t)
	late := begin(t, db, message("late", 0))
	add(t, db, message("early", 0))
	var b broker
	b.fail = func(batch []driver.Message) error {
		if batch[0].Key == "early" {
			return late.Commit()
		}
		return nil
	}
	start(t, outbox.NewRelay(db, b.send, nil).BoundOften().Poll(10*time.Millisecond))
	eventually(t, "both are sent", func() bool { return len(b.all()) == 2 && count(t, db, "kaptar_outbox") == 0 })
}

// A prepared transaction has no session, and its locks another name than before.
func TestBoundWaitsForPrepared(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, "postgres")
	db := open(t, s.URL())
	exec(t, db, "ALTER SYSTEM SET max_prepared_transactions = 2")
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is back", func() bool { return db.PingContext(t.Context()) == nil })
	if err := outbox.Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	run := func(query string) {
		t.Helper()
		if _, err := conn.ExecContext(t.Context(), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	run("BEGIN")
	run(`INSERT INTO kaptar_outbox (msgid, topic, key, headers, payload, created_at) VALUES ('late', 't', 'k', '{}', '', 1)`)
	var b broker
	r := outbox.NewRelay(db, b.send, nil).BoundOften().Poll(10 * time.Millisecond)
	start(t, r)
	add(t, db, message("early", 0))
	eventually(t, "the early one is sent", b.has(1))
	run("PREPARE TRANSACTION 'late'")
	for i := range 10 {
		add(t, db, message("early", i+1))
		eventually(t, "another is sent", b.has(i+2))
	}
	run("COMMIT PREPARED 'late'")
	eventually(t, "the late one is sent", func() bool {
		return slices.ContainsFunc(b.all(), func(m driver.Message) bool { return m.ID == "late" })
	})
}

func number(t *testing.T, db *sql.DB, query string) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// blocks returns how many pages of the outbox and its index were asked for.
func blocks(t *testing.T, db *sql.DB) int {
	t.Helper()
	return number(t, db, `SELECT heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read FROM pg_statio_user_tables
		WHERE relname = 'kaptar_outbox'`)
}

// A backlog is drained at a cost that does not grow: with plans from when the table was empty, and with
// a transaction that keeps vacuum from removing what was sent. Pages are counted, not time.
func TestBacklogCostsTheSameToItsEnd(t *testing.T) {
	t.Parallel()
	db, relayed := postgres(t)
	const rows = 100_000
	exec(t, db, "VACUUM ANALYZE kaptar_outbox") // as it is most of the time: nothing in it
	exec(t, db, "ALTER TABLE kaptar_outbox SET (autovacuum_enabled = false)")
	snapshot, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Rollback()
	if _, err := snapshot.Exec("SELECT count(*) FROM kaptar_outbox"); err != nil {
		t.Fatal(err)
	}
	sent := make(chan int) // nothing more is read and deleted before it is taken from here
	r := outbox.NewRelay(relayed, func(ctx context.Context, batch []driver.Message) error {
		select {
		case sent <- len(batch):
		case <-ctx.Done():
		}
		return ctx.Err()
	}, nil).BoundOften().Poll(5 * time.Millisecond)
	stop := start(t, r)
	eventually(t, "the plan is kept of a read of an empty table", func() bool {
		return number(t, db, "SELECT seq_scan + idx_scan FROM pg_stat_user_tables WHERE relname = 'kaptar_outbox'") > 50
	})
	for i := range 20 { // and that of the delete
		add(t, db, message("first", i))
		r.Wake()
		<-sent
	}
	eventually(t, "all are deleted", func() bool { return count(t, db, "kaptar_outbox") == 0 })
	fill(t, db, rows)
	before := blocks(t, db)
	r.Wake()
	for n := 0; n < rows; {
		n += <-sent
	}
	// Not by count: each asks for all pages, which would be among those of the drain.
	eventually(t, "all are deleted", func() bool {
		return number(t, db, "SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'kaptar_outbox'") >= rows+20
	})
	stop()
	if err := relayed.Close(); err != nil { // sessions hand in their figures when they end
		t.Fatal(err)
	}
	var after int
	eventually(t, "the statistics have the drain", func() bool { n := blocks(t, db); same := n == after; after = n; return same })
	if perRow := float64(after-before) / rows; perRow > 5.5 {
		t.Errorf("pages asked for per row of the drain = %.1f, want at most 5.5", perRow)
	}
}

// Scenario 7: a transaction that has its id first and writes last. Its event is behind that of the one
// that wrote first, as its change is.
func TestEarlyTransactionLateWrite(t *testing.T) {
	t.Parallel()
	db, _ := postgres(t)
	early, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer early.Rollback()
	if _, err := early.Exec("SELECT pg_current_xact_id()"); err != nil {
		t.Fatal(err)
	}
	add(t, db, message("k", 0))
	if err := outbox.Add(t.Context(), early, message("k", 1)); err != nil {
		t.Fatal(err)
	}
	if err := early.Commit(); err != nil {
		t.Fatal(err)
	}
	var b broker
	start(t, outbox.NewRelay(db, b.send, nil))
	eventually(t, "both are sent", b.has(2))
	if all := b.all(); all[0].ID != "k-0" || all[1].ID != "k-1" {
		t.Errorf("sent %s, %s, want k-0, k-1: the order of the writes", all[0].ID, all[1].ID)
	}
}

// Scenario 9: a database with a backlog, restored from a dump into a new cluster, whose transaction
// ids begin anew. All is sent, what is added there too, and ids go on.
func TestRestoredToANewCluster(t *testing.T) {
	t.Parallel()
	db, _ := postgres(t)
	for range 50 { // so that the ids of transactions are ahead of the new cluster's
		exec(t, db, "SELECT pg_current_xact_id()")
	}
	fill(t, db, 700)
	var name string
	if err := db.QueryRow("SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	base := servertest.Shared(t, servers.Postgres).URL()
	from, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	from.Path = name
	to := servertest.Start(t, servers.Postgres)
	tool := func(name string) string {
		found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
		if path, err := osexec.LookPath(name); err == nil {
			return path
		}
		if err != nil || len(found) == 0 {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is not installed; it comes with PostgreSQL", name)
			}
			t.Skipf("%s is not installed; it comes with PostgreSQL", name)
		}
		return found[len(found)-1]
	}
	dump, err := osexec.CommandContext(t.Context(), tool("pg_dump"), "--no-owner", from.String()).Output()
	if err != nil {
		t.Fatalf("pg_dump: %v", err)
	}
	restore := osexec.CommandContext(t.Context(), tool("psql"), "-q", "-v", "ON_ERROR_STOP=1", to.URL())
	restore.Stdin = bytes.NewReader(dump)
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	restored := open(t, to.URL())
	var b broker
	start(t, outbox.NewRelay(restored, b.send, nil))
	add(t, restored, message("after", 0))
	eventually(t, "all are sent", func() bool { return b.has(701)() && count(t, restored, "kaptar_outbox") == 0 })
	if all := b.all(); len(all) != 701 || all[700].ID != "after-0" {
		t.Errorf("sent %d, the last of them %s, want 701 with after-0 at the end", len(all), all[len(all)-1].ID)
	}
}
