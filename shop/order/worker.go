package order

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar"
)

const (
	atOnce   = 64                     // orders that are driven at the same time; so many share commits
	batch    = 2 * atOnce             // orders are read at a time, some of which are driven already
	idlePoll = 500 * time.Millisecond // between looks at the table when nobody wakes us
	alarm    = 10                     // attempts at one step after which its failing is an error
)

// A worker drives every order that is due through its checkout. What it knows is in the table; it
// may be stopped anywhere. Several may work on one table: two of them can take the same step, which
// is safe, but only one of them writes down its answer.
type worker struct {
	store  *store
	steps  *steps
	log    *slog.Logger
	tracer trace.Tracer
	signal chan struct{} // an order is due
	freed  chan struct{} // an order is done, or waits

	mu     sync.Mutex
	driven map[int64]bool // the orders that are being driven here
}

func newWorker(app *kaptar.App, st *store, s *steps) *worker {
	return &worker{
		store: st, steps: s, log: app.Logger(), tracer: app.Tracer(),
		signal: make(chan struct{}, 1), freed: make(chan struct{}, 1), driven: make(map[int64]bool),
	}
}

// wake makes the worker look at the table now.
func (w *worker) wake() {
	select {
	case w.signal <- struct{}{}:
	default: // it is going to look anyway
	}
}

// run drives orders until ctx ends, and returns when the ones under way have been put down.
func (w *worker) run(ctx context.Context) error {
	var drives sync.WaitGroup
	defer drives.Wait()
	poll := time.NewTicker(idlePoll)
	defer poll.Stop()
	blind := false // whether the last look at the table failed
	var due []job
	look, more := true, false
	for {
		// What was read is begun before the table is read again: that costs each order the same, however
		// many wait.
		if len(due) == 0 && (look || more) {
			var err error
			due, err = w.store.due(ctx, batch)
			switch {
			case err != nil && !blind && ctx.Err() == nil:
				w.log.ErrorContext(ctx, "due orders cannot be read; they wait", "error", err)
			case err == nil && blind:
				w.log.InfoContext(ctx, "due orders are read again")
			}
			blind = err != nil
			look, more = false, len(due) == batch
			due = w.without(due)
		}
		for len(due) > 0 && w.begin(due[0].ID) {
			job := due[0]
			due = due[1:]
			drives.Go(func() {
				defer w.end(job.ID)
				w.drive(ctx, job)
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.freed:
		case <-w.signal:
			look = true
		case <-poll.C:
			look = true
		}
	}
}

// without leaves the orders out that are driven here.
func (w *worker) without(due []job) []job {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(due, func(j job) bool { return w.driven[j.ID] })
}

// begin reports whether there is room for one more order, and takes it.
func (w *worker) begin(id int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.driven) == atOnce {
		return false
	}
	w.driven[id] = true
	return true
}

// end makes room for another order.
func (w *worker) end(id int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.driven, id)
	select {
	case w.freed <- struct{}{}:
	default: // it is going to look anyway
	}
}

// drive takes j on, in the trace of its request, until it is done or has to wait.
func (w *worker) drive(ctx context.Context, j job) {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": j.Traceparent})
	ctx, span := w.tracer.Start(ctx, "checkout", trace.WithAttributes(attribute.Int64("order.id", j.ID)))
	defer span.End()
	for j.Step != done {
		a := w.steps.take(ctx, j.order, j.Step)
		if ctx.Err() != nil {
			return // we are being stopped; the answer says nothing about the step
		}
		after, wait := next(j.checkout, a)
		if after.Step == j.Step {
			w.report(ctx, j, a, wait)
		}
		err := w.store.move(ctx, &j, after, wait)
		if errors.Is(err, errMoved) {
			return // another instance was faster, and drives on
		}
		if err != nil {
			w.log.ErrorContext(ctx, "checkout not written down", "order_id", j.ID, "step", j.Step, "error", err)
			select { // the order is still due, and the step will be done again
			case <-ctx.Done():
			case <-time.After(idlePoll):
			}
			return
		}
		if wait > 0 {
			time.AfterFunc(wait, w.wake)
			return
		}
	}
	w.log.InfoContext(ctx, "checkout done", "order_id", j.ID, "status", j.order.Status, "reason", j.order.Reason)
}

// report tells that a step has to be done again; loudly, when it happens often.
func (w *worker) report(ctx context.Context, j job, a answer, wait time.Duration) {
	level := slog.LevelWarn
	if j.Attempts >= alarm {
		level = slog.LevelError
	}
	w.log.Log(ctx, level, "checkout waits", "order_id", j.ID, "step", j.Step, "attempts", j.Attempts+1, "reason", a.Reason, "again_in", wait)
}
