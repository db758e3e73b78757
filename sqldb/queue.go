package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A group ends when no writer waits, and at the latest at these limits, so that its first member
// does not wait for long.
const (
	maxGroupMembers = 64
	maxGroupAge     = 20 * time.Millisecond
)

// writeQueue runs the writers of one SQLite database in the order in which they came, and lets
// those that wait share a commit, because its fsync is expensive. The writer whose turn it is runs
// its function under a savepoint in the open group. It then passes the turn and the group on or, if
// it is the last, commits for all. Every member runs on its own goroutine, so a panic reaches its
// caller.
type writeQueue struct {
	mu      sync.Mutex
	taken   bool // somebody has the turn
	waiters []*waiter
	group   *group       // used only by the one that has the turn
	groups  atomic.Int64 // groups that ended
}

type waiter struct {
	turn  chan struct{} // closed when this one has the turn
	alone bool
}

type group struct {
	conn    *sql.Conn
	lite    GroupConn
	begun   time.Time
	members int
	done    chan struct{} // closed after the commit
	err     error         // valid after done
}

// groupError tells a member whose own work succeeded that the group's commit failed, maybe because
// of another member.
type groupError struct{ err error }

func (e *groupError) Error() string { return e.err.Error() }
func (e *groupError) Unwrap() error { return e.err }

// run runs fn in a transaction and returns after the commit. With alone the transaction is fn's
// only. A *groupError means that fn should run again, alone.
func (q *writeQueue) run(ctx context.Context, db *sql.DB, alone bool, fn func(*sql.Tx) error) error {
	if err := q.acquire(ctx, alone); err != nil {
		return err
	}
	if q.group == nil {
		g, err := beginGroup(ctx, db)
		if err != nil {
			q.release()
			return err
		}
		q.group = g
	}
	g := q.group
	g.members++
	if err := q.runMember(ctx, g, alone, fn); err != nil {
		return err
	}
	<-g.done
	if g.err != nil && g.members > 1 {
		return &groupError{g.err}
	}
	return g.err
}

// runMember runs fn and gives the turn away, whichever way fn ends.
func (q *writeQueue) runMember(ctx context.Context, g *group, alone bool, fn func(*sql.Tx) error) error {
	defer q.handOver(alone)
	// database/sql's own goroutine must not roll the savepoint back once ctx ends: by then the
	// connection may be the next member's. So we look at ctx ourselves.
	tx, err := g.conn.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return fmt.Errorf("sqldb: begin: %w", err)
	}
	defer tx.Rollback() // on error and panic; does nothing after the commit
	if err := fn(tx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("sqldb: commit: %w", err)
	}
	return nil
}

// handOver passes the turn on after a member's part, or ends the group.
func (q *writeQueue) handOver(alone bool) {
	g := q.group
	q.mu.Lock()
	if g != nil && !alone && !g.lite.Lost() && len(q.waiters) > 0 && !q.waiters[0].alone &&
		g.members < maxGroupMembers && time.Since(g.begun) < maxGroupAge {
		q.passOn()
		q.mu.Unlock()
		return
	}
	q.mu.Unlock()
	if g != nil {
		q.group = nil
		q.groups.Add(1)
		g.commit()
	}
	q.release()
}

func (q *writeQueue) acquire(ctx context.Context, alone bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q.mu.Lock()
	if !q.taken {
		q.taken = true
		q.mu.Unlock()
		return nil
	}
	w := &waiter{turn: make(chan struct{}), alone: alone}
	q.waiters = append(q.waiters, w)
	q.mu.Unlock()
	select {
	case <-w.turn:
		return nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	i := slices.Index(q.waiters, w)
	if i >= 0 {
		q.waiters = slices.Delete(q.waiters, i, i+1)
	}
	q.mu.Unlock()
	if i < 0 { // the turn came at the same moment, perhaps with a group that waits for its commit
		q.handOver(false)
	}
	return ctx.Err()
}

func (q *writeQueue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiters) == 0 {
		q.taken = false
		return
	}
	q.passOn()
}

// passOn gives the turn to the first in the queue; mu is held and there is one.
func (q *writeQueue) passOn() {
	w := q.waiters[0]
	q.waiters = slices.Delete(q.waiters, 0, 1)
	close(w.turn)
}

func beginGroup(ctx context.Context, db *sql.DB) (*group, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("sqldb: begin: %w", err)
	}
	g := &group{conn: conn, begun: time.Now(), done: make(chan struct{})}
	err = onGroup(conn, func(c GroupConn) error {
		g.lite = c
		return c.BeginGroup(ctx)
	})
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("sqldb: begin: %w", err)
	}
	return g, nil
}

func (g *group) commit() {
	err := g.conn.Raw(func(any) error { return g.lite.EndGroup(true) })
	if err != nil {
		g.err = fmt.Errorf("sqldb: commit: %w", err)
	}
	_ = g.conn.Close() // what is committed is committed
	close(g.done)
}
