package saga

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/sqldb"
)

const (
	leasePoll    = time.Second            // between looks at the lease of another process
	timers       = 5 * time.Second        // longer waits than this end by a look at the table
	pause        = 500 * time.Millisecond // after a write that failed
	stopGrace    = 2 * time.Second        // to write down what was done when the process was told to stop
	unknownRetry = time.Minute            // for a step that this definition does not know
)

// A runner takes the sagas of one definition through their steps. What it knows is in the table; it
// may be stopped anywhere.
type runner struct {
	def     *definition
	db      *sql.DB
	dialect sqldb.Dialect
	log     *slog.Logger
	tracer  trace.Tracer
	metrics *metrics
	outage  steady.Outage
	signal  *sqldb.Signal     // a saga may be due, says another process or somebody who does not know
	wakes   chan struct{}     // the same, within this process
	hook    func(edge string) // called at each edge between two effects; nil but in tests

	mu      sync.Mutex
	lead    context.Context // of the sagas that run here; nil: another process has the lease
	running map[string]bool
	ended   map[string]bool // ids that have stopped running since the last look began
	behind  bool            // sagas are due that there was no room for
	freed   chan struct{}   // there is room again
	drives  sync.WaitGroup
	moves   []*move // to be written
	writing bool
}

func newRunner(app *kaptar.App, db *sql.DB, d *definition, m *metrics) *runner {
	r := &runner{
		def: d, db: db, dialect: sqldb.DialectOf(db), log: app.Logger().With("saga", d.name), tracer: app.Tracer(), metrics: m,
		signal: sqldb.NewSignal(db, leaseName(d.name, d.version)), wakes: make(chan struct{}, 1), running: make(map[string]bool), freed: make(chan struct{}, 1),
	}
	r.outage = steady.Outage{What: "sagas' database", Log: r.log}
	return r
}

func (r *runner) at(edge string) {
	if r.hook != nil {
		r.hook(edge)
	}
}

// wake makes the runner look at the table now.
func (r *runner) wake() {
	select {
	case r.wakes <- struct{}{}:
	default: // it is going to look anyway
	}
}

func leaseName(name string, version int) string { return fmt.Sprintf("saga %s %d", name, version) }

// poll is how long a leader that nobody wakes waits between looks at the table: on PostgreSQL signals
// come from other processes too.
func (r *runner) poll() time.Duration {
	if r.dialect == sqldb.SQLite {
		return time.Second
	}
	return timers
}

// run leads whenever nobody else does, until ctx ends.
func (r *runner) run(ctx context.Context) error {
	backoff := &steady.Backoff{First: 100 * time.Millisecond, Max: 5 * time.Second}
	for ctx.Err() == nil {
		lease, err := sqldb.TryLease(ctx, r.db, leaseName(r.def.name, r.def.version))
		if err == nil && lease != nil {
			err = r.leading(ctx, lease, backoff)
			lease.Release()
		}
		switch {
		case ctx.Err() != nil:
		case err != nil:
			r.outage.Lost(ctx, err)
			steady.Sleep(ctx, backoff.Next())
		default:
			steady.Sleep(ctx, leasePoll)
		}
	}
	return nil
}

// leading runs sagas until ctx ends or the lease is lost, and returns when those under way have been
// put down.
func (r *runner) leading(ctx context.Context, lease *sqldb.Lease, backoff *steady.Backoff) error {
	lead, stop := context.WithCancel(ctx)
	r.mu.Lock()
	r.lead, r.behind = lead, true // until the table has been looked at
	r.mu.Unlock()
	defer func() {
		stop()
		r.mu.Lock()
		r.lead = nil
		r.mu.Unlock()
		r.drives.Wait()
	}()
	r.drives.Go(func() {
		for lead.Err() == nil {
			r.signal.Wait(lead, r.poll())
			r.wake()
		}
	})
	read := func(ctx context.Context, limit int) ([]row, error) { return r.due(ctx, lease, limit) }
	var due []row
	look, more := true, false
	for ctx.Err() == nil {
		// What was read is begun before the table is read again: that costs each saga the same, however
		// many wait.
		if len(due) == 0 && (look || more) {
			var err error
			if due, more, err = r.look(ctx, read); err != nil {
				return err
			}
			backoff.Reset()
			r.outage.Back(ctx)
			look = false
		}
		if due = r.begin(due, more); len(due) == 0 && more {
			continue
		}
		select {
		case <-ctx.Done():
		case <-r.freed:
		case <-r.wakes:
			look = true
		}
	}
	return nil
}

// look reads what is due and does not run here, and says whether there may be more.
func (r *runner) look(ctx context.Context, read func(ctx context.Context, limit int) ([]row, error)) (due []row, more bool, err error) {
	r.mu.Lock()
	r.ended = make(map[string]bool)
	r.mu.Unlock()
	limit := 2 * r.def.concurrency // some of which run already
	due, err = read(ctx, limit)
	if err != nil {
		return nil, false, err
	}
	more = len(due) == limit
	r.mu.Lock()
	defer r.mu.Unlock()
	// One that has stopped running since is not as it was read.
	due = slices.DeleteFunc(due, func(w row) bool { return r.running[w.id] || r.ended[w.id] })
	r.ended = nil
	return due, more, nil
}

// begin begins as many of due as there is room for, and returns the others.
func (r *runner) begin(due []row, more bool) []row {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(due) > 0 && r.start(due[0]) {
		due = due[1:]
	}
	r.behind = len(due) > 0 || more
	return due
}

// offer begins a saga that has just been committed, or has the table looked at: others that wait come
// first, and another process may be the leader.
func (r *runner) offer(w row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.lead == nil:
		r.signal.Notify()
	case r.behind || !r.start(w):
		r.wake()
	}
}

// start begins w if there is room; mu is held.
func (r *runner) start(w row) bool {
	if r.lead == nil || r.lead.Err() != nil || len(r.running) >= r.def.concurrency {
		return false
	}
	if r.running[w.id] {
		return true
	}
	r.running[w.id] = true
	ctx := r.lead
	r.drives.Go(func() {
		defer r.end(w.id)
		r.drive(ctx, w)
	})
	return true
}

func (r *runner) end(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, id)
	if r.ended != nil {
		r.ended[id] = true
	}
	select {
	case r.freed <- struct{}{}:
	default: // it is going to look anyway
	}
}

// drive takes w on until it is over or has to wait.
func (r *runner) drive(ctx context.Context, w row) {
	for ctx.Err() == nil {
		wait, err := r.step(ctx, &w)
		switch {
		case errors.Is(err, errMoved):
			if w, err = r.read(ctx, w.id); errors.Is(err, sql.ErrNoRows) {
				return
			}
			if err == nil && (w.Status.over() || w.due > time.Now().UnixMilli()) {
				return
			}
		case err == nil && w.Status.over():
			return
		case err == nil && wait > 0:
			if wait <= timers {
				time.AfterFunc(wait, r.wake)
			}
			return
		}
		if err != nil {
			if ctx.Err() == nil {
				r.log.ErrorContext(ctx, "saga not written down, its step will be done again", "id", w.id, "step", w.Step, "error", err)
			}
			steady.Sleep(ctx, pause)
			r.wake()
			return
		}
	}
}
