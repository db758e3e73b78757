package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

// together runs fns so that they are in one group: the first holds the turn until the others wait.
func together(t *testing.T, db *sql.DB, fns ...func(ctx context.Context, tx *sql.Tx) error) []error {
	t.Helper()
	errs := make([]error, len(fns))
	begun, goOn := make(chan bool), make(chan bool)
	var wg sync.WaitGroup
	first := true
	wg.Go(func() {
		errs[0] = sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
			if first { // once, for it may run again
				first = false
				close(begun)
				<-goOn
			}
			return fns[0](ctx, tx)
		})
	})
	<-begun
	for i, fn := range fns[1:] {
		wg.Go(func() { errs[i+1] = sqldb.InTx(t.Context(), db, fn) })
		eventually(t, "the next is in the queue", func() bool { return sqldb.Waiting(db) == i+1 })
	}
	sqldb.FreshGroup(db)
	close(goOn)
	wg.Wait()
	return errs
}

func lite(t testing.TB) *sql.DB {
	t.Helper()
	db := open(t, "sqlite:"+filepath.Join(t.TempDir(), "q.db"))
	exec(t, db, "CREATE TABLE t (n BIGINT PRIMARY KEY)")
	return db
}

func with(fn func(*sql.Tx) error) func(context.Context, *sql.Tx) error {
	return func(_ context.Context, tx *sql.Tx) error { return fn(tx) }
}

func TestGroupSharesOneCommitAndNotTheFailures(t *testing.T) {
	t.Parallel()
	db := lite(t)
	exec(t, db, "PRAGMA wal_checkpoint(TRUNCATE)")
	before := sqldb.Commits(db)
	visible := -1
	errs := together(t, db,
		with(insert(1)),
		func(ctx context.Context, tx *sql.Tx) error {
			if err := insert(2)(tx); err != nil {
				return err
			}
			return errBoom
		},
		func(ctx context.Context, tx *sql.Tx) error {
			visible = count(t, db, "t") // another connection: nothing of the group is committed yet
			return insert(3)(tx)
		},
		with(insert(1)), // breaks the primary key
	)
	if errs[0] != nil || errs[1] != errBoom || errs[2] != nil || errs[3] == nil {
		t.Errorf("errors = %v; want none, boom, none, a violation", errs)
	}
	if got := queryInt(t, db, "SELECT sum(n) FROM t"); got != 4 {
		t.Errorf("sum = %d, want 4: rows 1 and 3", got)
	}
	if visible != 0 {
		t.Errorf("a reader saw %d rows of the open group, want 0", visible)
	}
	if got := sqldb.Commits(db) - before; got != 1 {
		t.Errorf("commits = %d, want 1 for the group", got)
	}
}

func TestGroupPanicOfOneMember(t *testing.T) {
	t.Parallel()
	db := lite(t)
	errs := together(t, db, with(insert(1)), with(insert(2)),
		func(_ context.Context, tx *sql.Tx) error { return insert(3)(tx) })
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { recover() }()
		_ = inTx(t, db, func(tx *sql.Tx) error {
			_ = insert(4)(tx)
			panic("oh")
		})
	}()
	if err := inTx(t, db, insert(5)); err != nil {
		t.Errorf("InTx after a panic: %v", err)
	}
	if got := queryInt(t, db, "SELECT sum(n) FROM t"); got != 11 {
		t.Errorf("sum = %d, want 1+2+3+5", got)
	}
}

// A violation that shows only at the common commit is the fault of one member, and hits only that
// one.
func TestGroupDeferredViolation(t *testing.T) {
	t.Parallel()
	db := lite(t)
	exec(t, db, "CREATE TABLE child (n BIGINT REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED)")
	orphan := func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT INTO child VALUES (99)")
		return err
	}
	errs := together(t, db, with(insert(1)), with(orphan), with(insert(2)))
	if errs[0] != nil || errs[1] == nil || errs[2] != nil {
		t.Errorf("errors = %v; want only the second to fail", errs)
	}
	if n, c := count(t, db, "t"), count(t, db, "child"); n != 2 || c != 0 {
		t.Errorf("rows = %d and %d orphans, want 2 and 0", n, c)
	}
}

// SQLite rolls the whole transaction back by itself at OR ROLLBACK. Later statements of that member
// must not commit on their own, and the others of the group must not be lost.
func TestGroupLost(t *testing.T) {
	t.Parallel()
	db := lite(t)
	exec(t, db, "INSERT INTO t VALUES (7)")
	rollBack := func(tx *sql.Tx) error {
		_, _ = tx.Exec("INSERT OR ROLLBACK INTO t VALUES (7)")
		if err := insert(8)(tx); err == nil {
			t.Error("a statement after the automatic rollback ran")
		}
		return nil // hides the error
	}
	errs := together(t, db, with(insert(1)), with(rollBack), with(insert(2)))
	if errs[0] != nil || errs[2] != nil {
		t.Errorf("errors of the others = %v, %v; want none", errs[0], errs[2])
	}
	if errs[1] == nil || !strings.Contains(errs[1].Error(), "rolled the transaction back") {
		t.Errorf("error of the member = %v, want that SQLite rolled back", errs[1])
	}
	if got := queryInt(t, db, "SELECT sum(n) FROM t"); got != 10 {
		t.Errorf("sum = %d, want 7+1+2", got)
	}
}

func TestLostOutsideGroup(t *testing.T) {
	t.Parallel()
	db := lite(t)
	exec(t, db, "INSERT INTO t VALUES (7)")
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	stmt, err := tx.Prepare("INSERT INTO t VALUES ($1)")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = tx.Exec("INSERT OR ROLLBACK INTO t VALUES (7)")
	if _, err := stmt.Exec(9); err == nil {
		t.Error("a prepared statement ran after the automatic rollback")
	}
	stmt.Close()
	if err := tx.Commit(); err == nil {
		t.Error("Commit after the automatic rollback: no error")
	}
	if n := count(t, db, "t"); n != 1 {
		t.Errorf("rows = %d, want 1", n)
	}
}

func TestQueueWaiterLeaves(t *testing.T) {
	t.Parallel()
	db := lite(t)
	ctx, cancel := context.WithCancel(t.Context())
	var left error
	errs := together(t, db,
		func(_ context.Context, tx *sql.Tx) error {
			done := make(chan struct{})
			go func() {
				defer close(done)
				left = sqldb.InTx(ctx, db, with(insert(2)))
			}()
			eventually(t, "the second waits", func() bool { return sqldb.Waiting(db) == 1 })
			cancel()
			<-done
			return insert(1)(tx)
		})
	if errs[0] != nil || !errors.Is(left, context.Canceled) {
		t.Errorf("errors = %v, %v; want none and context.Canceled", errs[0], left)
	}
	if got := queryInt(t, db, "SELECT sum(n) FROM t"); got != 1 {
		t.Errorf("sum = %d, want 1", got)
	}
}

// Callers that give up at random moments must neither block the queue nor commit half.
func TestQueueStress(t *testing.T) {
	t.Parallel()
	db := lite(t)
	var mu sync.Mutex
	committed := map[int]bool{}
	var wg sync.WaitGroup
	for c := range 16 {
		wg.Go(func() {
			for i := range 40 {
				n := c*1000 + i
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%7)*time.Millisecond)
				err := sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
					_, err := tx.ExecContext(ctx, "INSERT INTO t VALUES ($1)", n)
					if n%11 == 0 {
						return errBoom
					}
					return err
				})
				cancel()
				if err == nil {
					mu.Lock()
					committed[n] = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	rows, err := db.Query("SELECT n FROM t")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		if !committed[n] {
			t.Errorf("row %d is there, though its InTx returned an error", n)
		}
		delete(committed, n)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if len(committed) > 0 {
		t.Errorf("%d rows are missing, though their InTx returned nil", len(committed))
	}
	if err := inTx(t, db, insert(-1)); err != nil {
		t.Errorf("InTx at the end: %v", err)
	}
}
