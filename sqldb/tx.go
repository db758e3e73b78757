package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
)

// ErrNested is returned by InTx when ctx comes from a running InTx on the same database.
var ErrNested = errors.New("sqldb: InTx inside InTx on the same database: pass the outer *sql.Tx on")

const (
	maxRetries = 5
	retryFirst = 10 * time.Millisecond
	retryCap   = 500 * time.Millisecond
)

// InTx runs fn in a transaction of db, which must have been opened by Open. It commits when fn
// returns nil. It rolls back when fn returns an error, which InTx returns, when fn panics, and when
// ctx ends before the commit. It may be called concurrently.
//
// After a serialization failure, a deadlock or SQLITE_BUSY it tries again up to 5 times, with a
// growing random pause. So fn may run more than once: it must do its work through tx, and other
// effects belong in an [AfterCommit] hook. A commit whose outcome is unknown, because the
// connection broke during it, is not tried again.
//
// On SQLite the caller queues behind other writers and may share their commit (see the package
// comment); when that fails each runs again, alone. fn must be short there, and must not wait for
// another InTx.
//
// The ctx that fn gets carries the transaction for AfterCommit. InTx with it on the same database
// is [ErrNested]. fn must neither commit nor roll back tx.
func InTx(ctx context.Context, db *sql.DB, fn func(ctx context.Context, tx *sql.Tx) error) error {
	d := driverOf(db)
	if d == nil {
		return errors.New("sqldb: InTx: the database was not opened by sqldb.Open")
	}
	outer, _ := ctx.Value(txKey{}).(*txState)
	for s := outer; s != nil; s = s.outer {
		if s.db == db && s.running() {
			return ErrNested
		}
	}
	alone := false
	for attempt := 1; ; attempt++ {
		state := &txState{db: db, outer: outer}
		txCtx := context.WithValue(ctx, txKey{}, state)
		run := func(tx *sql.Tx) error {
			defer state.finish()
			return fn(txCtx, tx)
		}
		var err error
		if d.queue != nil {
			err = d.queue.run(ctx, db, alone, run)
		} else {
			err = runTx(ctx, db, run)
		}
		if err == nil {
			for _, hook := range state.hooks { // no longer changed
				hook()
			}
			return nil
		}
		if _, ok := errors.AsType[*groupError](err); ok && !alone {
			alone = true
			continue
		}
		if attempt > maxRetries || !d.Retryable(err) || !pause(ctx, attempt) {
			return err
		}
	}
}

// AfterCommit registers hook to run after the transaction of the innermost InTx of ctx has
// committed. Hooks run on the goroutine of InTx, in the order in which they were registered, and
// not if the attempt is rolled back. If ctx does not belong to a running InTx, AfterCommit returns
// false and hook never runs.
func AfterCommit(ctx context.Context, hook func()) bool {
	s, _ := ctx.Value(txKey{}).(*txState)
	return s != nil && s.add(hook)
}

type txKey struct{}

// txState is one attempt of an InTx.
type txState struct {
	db    *sql.DB
	outer *txState

	mu       sync.Mutex
	finished bool
	hooks    []func()
}

func (s *txState) running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.finished
}

func (s *txState) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = true
}

func (s *txState) add(hook func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished {
		return false
	}
	s.hooks = append(s.hooks, hook)
	return true
}

func runTx(ctx context.Context, db *sql.DB, fn func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("sqldb: begin: %w", err)
	}
	defer tx.Rollback() // on error and panic; does nothing after the commit
	if err := fn(tx); err != nil {
		return err
	}
	err = tx.Commit()
	if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil { // it was rolled back before Commit looked
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("sqldb: commit: %w", err)
	}
	return nil
}

// pause waits before retry number n, counted from 1, and reports whether ctx goes on.
func pause(ctx context.Context, n int) bool {
	return steady.Sleep(ctx, steady.Delay(n-1, retryFirst, retryCap))
}
