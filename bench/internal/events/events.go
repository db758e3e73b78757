// Package events measures how events get from a committed transaction to the effects of a handler:
// through kaptar, and through the stacks that a caller brings along.
//
// A stack is a service that writes an order and its event in one transaction, and a service that
// handles the event in a transaction of its own database: it inserts a row. The stacks take turns,
// in an order that rotates with the round, and each is opened for its turn and closed after it. A
// turn counts only when the handler's database has the effect of every event.
package events

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A Stack is one way from a committed transaction to a handler.
type Stack struct {
	Name string
	On   string // what is on, for the table
	Ours bool

	// Database says where env's databases are.
	Database Dialect
	// Open starts the handling service and returns once it gets events. Env stays the same for all
	// turns of a stack.
	Open func(ctx context.Context, env *Env) (Running, error)
}

// Dialect is a kind of database.
type Dialect string

// The dialects.
const (
	SQLite   Dialect = "SQLite"
	Postgres Dialect = "PostgreSQL"
)

// A Running stack.
type Running interface {
	// Relay commits n orders with their events, numbered from first, while nothing sends them, and
	// then calls env.Begin and starts the sending.
	Relay(ctx context.Context, first, n int) error
	// Write commits one order with its event. It is called after Relay, by several goroutines.
	Write(ctx context.Context, n int) error
	// Close stops both services.
	Close() error
}

// An Env is what a stack works with.
type Env struct {
	Broker            string // nats://host:port
	Durable           bool   // the broker writes each message to the disk before it acknowledges it
	Topic             string // the stack's own
	Publisher, Handle string // URLs of databases, empty at first
	Log               *Log

	dataDir string // of PostgreSQL, "" when it is not used, or somebody else's
	begun   sample
}

// Begin starts the clock.
func (e *Env) Begin() { e.begun = e.sample() }

// An Order is what an event tells of. It has about 200 bytes of JSON.
type Order struct {
	N    int    `json:"n"`
	Note string `json:"note"`
}

const note = "an order of the usual kind, to be packed with care, and left with the neighbours on the second floor when nobody opens the door before noon or answers the telephone"

// OrderOf returns the n-th order and its key, one of 100.
func OrderOf(n int) (order Order, key string) {
	return Order{n, note}, "customer-" + strconv.Itoa(n%100)
}

// The statements that every stack runs, in the transactions of the event and of the handler. Their
// arguments are N and the key.
const (
	InsertOrder  = `INSERT INTO bench_orders (n, customer) VALUES ($1, $2)`
	InsertEffect = `INSERT INTO bench_effects (n, customer) VALUES ($1, $2)`
)

// CreateTables makes the tables of orders and effects where they are missing.
func CreateTables(ctx context.Context, db *sql.DB) error {
	for _, table := range []string{"bench_orders", "bench_effects"} {
		if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS `+table+` (n BIGINT, customer TEXT)`); err != nil {
			return err
		}
	}
	return nil
}

// A Log knows when handlers began and how many effects are committed.
type Log struct {
	begun []atomic.Int64 // UnixNano of the first try, by number
	done  []atomic.Bool

	mu     sync.Mutex
	count  int
	want   int
	all    chan struct{}
	allAt  time.Time
	doubly int
}

func newLog(capacity int) *Log {
	return &Log{begun: make([]atomic.Int64, capacity), done: make([]atomic.Bool, capacity), all: make(chan struct{})}
}

// Begin is called by a handler when it is entered.
func (l *Log) Begin(n int) { l.begun[n].CompareAndSwap(0, time.Now().UnixNano()) }

// Done is called when the handler's transaction is committed.
func (l *Log) Done(n int) {
	first := l.done[n].CompareAndSwap(false, true)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !first {
		l.doubly++
		return
	}
	if l.count++; l.count == l.want {
		l.allAt = time.Now()
		close(l.all)
	}
}

// expect makes wait return when n more effects are committed than were so far.
func (l *Log) expect(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.want = l.count + n
	l.all = make(chan struct{})
}

// expectAll is expect for a number that is known late: all that were ever written.
func (l *Log) expectAll(total int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.want = total; l.count == total {
		l.allAt = time.Now()
		close(l.all)
	}
}

func (l *Log) wait(ctx context.Context) (time.Time, error) {
	l.mu.Lock()
	all := l.all
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	select {
	case <-all:
		return l.allAt, nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		return time.Time{}, fmt.Errorf("%d of %d events were handled: %w", l.count, l.want, context.Cause(ctx))
	}
}
