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
	"github.com/kaptar/kaptar/internal/lead"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/sqldb"
)

const (
	leasePoll    = time.Second            // between attempts to get the lease
	timers       = 5 * time.Second        // waits up to this have a timer; longer ones end when the table is read
	pause        = 500 * time.Millisecond //  after a failed write
	stopGrace    = 2 * time.Second        // to store a finished step while the process stops
	unknownRetry = time.Minute            // for a step that the definition does not have
	lateAfter    = time.Second            // past its timeout a step that goes on is logged
)

// A runner runs the sagas of one definition. All that matters is in the table, so it may stop at
// any point.
type runner struct {
	def     *definition
	db      *sql.DB
	dialect sqldb.Dialect
	log     *slog.Logger
	tracer  trace.Tracer
	metrics *metrics
	signal  *sqldb.Signal     // a saga may be due; from other processes and from callers that have no runner
	wakes   chan struct{}     // the same, from this process
	hook    func(edge string) // called between any two effects, by tests

	mu      sync.Mutex
	lead    context.Context // context of the sagas that run here; nil without the lease
	running map[string]bool
	ended   map[string]bool // ids that stopped running since the table was last read; nil between reads
	behind  bool            // more sagas are due than there is room for
	freed   chan struct{}   // signals that there is room again
	drives  sync.WaitGroup
	moves   []*move // to be stored by flush
	writing bool
}

func newRunner(app *kaptar.App, db *sql.DB, d *definition, m *metrics) *runner {
	r := &runner{
		def: d, db: db, dialect: sqldb.DialectOf(db), log: app.Logger().With("saga", d.name), tracer: app.Tracer(), metrics: m,
		signal: sqldb.NewSignal(db, leaseName(d.name, d.version)), wakes: make(chan struct{}, 1), running: make(map[string]bool), freed: make(chan struct{}, 1),
	}
	return r
}

func (r *runner) at(edge string) {
	if r.hook != nil {
		r.hook(edge)
	}
}

func (r *runner) wake() { steady.Signal(r.wakes) }

func leaseName(name string, version int) string { return fmt.Sprintf("saga %s %d", name, version) }

// poll is how often a leader that nobody wakes reads the table. On PostgreSQL other processes wake
// it too, so it can wait longer.
func (r *runner) poll() time.Duration {
	if r.dialect == sqldb.SQLite {
		return time.Second
	}
	return timers
}

// run gets the lease whenever it is free and runs sagas under it, until ctx ends.
func (r *runner) run(ctx context.Context) error {
	outage := &steady.Outage{What: "sagas' database", Log: r.log}
	lead.Run(ctx, r.db, leaseName(r.def.name, r.def.version), leasePoll, outage, r.leading)
	return nil
}

// leading runs sagas until ctx ends or the lease is lost. It returns after the last of them has
// stopped.
func (r *runner) leading(ctx context.Context, lease *sqldb.Lease, well func()) error {
	led, stop := context.WithCancel(ctx)
	r.mu.Lock()
	r.lead, r.behind = led, true // until the table has been read
	r.mu.Unlock()
	defer func() {
		stop()
		r.mu.Lock()
		r.lead = nil
		r.mu.Unlock()
		r.drives.Wait()
	}()
	r.drives.Go(func() {
		for led.Err() == nil {
			r.signal.Wait(led, r.poll())
			r.wake()
		}
	})
	read := func(ctx context.Context, limit int) ([]row, error) { return r.due(ctx, lease, limit) }
	var due []row
	look, more := true, false
	for ctx.Err() == nil {
		// All that was read is started before the table is read again, so the cost per saga does
		// not grow with the number that waits.
		if len(due) == 0 && (look || more) {
			var err error
			if due, more, err = r.look(ctx, read); err != nil {
				return err
			}
			well()
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

// look reads the sagas that are due and do not run here, and says whether there may be more.
func (r *runner) look(ctx context.Context, read func(ctx context.Context, limit int) ([]row, error)) (due []row, more bool, err error) {
	r.mu.Lock()
	r.ended = make(map[string]bool)
	r.mu.Unlock()
	limit := 2 * r.def.concurrency // some of them run already
	due, err = read(ctx, limit)
	if err != nil {
		return nil, false, err
	}
	more = len(due) == limit
	r.mu.Lock()
	defer r.mu.Unlock()
	// A saga that has stopped since the query began is no longer as it was read.
	due = slices.DeleteFunc(due, func(w row) bool { return r.running[w.id] || r.ended[w.id] })
	r.ended = nil
	return due, more, nil
}

// begin starts as many of due as there is room for, and returns the rest.
func (r *runner) begin(due []row, more bool) []row {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(due) > 0 && r.start(due[0]) {
		due = due[1:]
	}
	r.behind = len(due) > 0 || more
	return due
}

// offer starts a saga that has just been committed, if this process leads and no other saga waits
// for room. Otherwise it has the table read.
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

// start runs w if there is room, and reports whether w runs. It needs mu.
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
	steady.Signal(r.freed)
}

// drive does the steps of w until w is over or has to wait.
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
