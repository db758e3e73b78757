package saga

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar/sqldb"
)

// step does the next step of w, stores the result and returns how long w has to wait. On success w
// is what was stored; on an error it is unchanged.
func (r *runner) step(ctx context.Context, w *row) (wait time.Duration, err error) {
	outer := ctx
	ctx, span := r.span(ctx, w)
	defer span.End()
	ctx = context.WithValue(ctx, keyKey{}, r.def.name+"/"+w.id+"/"+w.Step+"/"+w.direction())
	next, a := *w, answer{outcome: done}
	next.revision++
	t, known := r.task(w)
	switch {
	case !known:
		a = answer{text: fmt.Sprintf("step %q is unknown to version %d of the definition: register one that has it", w.Step, r.def.version), after: unknownRetry}
	case t.call != nil:
		next.state, a = r.call(ctx, w, t)
	}
	if outer.Err() != nil {
		if a.outcome != done || t.effect != nil {
			return 0, outer.Err() // we are being stopped; the answer says nothing about the step
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
	}
	if wait, err = r.moveOn(ctx, w, &next, t, a); err != nil {
		span.SetStatus(codes.Error, err.Error())
		return 0, err
	}
	r.report(ctx, span, w, &next, wait)
	*w = next
	return wait, nil
}

// task returns what w's next step consists of, if the definition has it.
func (r *runner) task(w *row) (t task, known bool) {
	i := r.def.index(w.Step)
	switch {
	case i < 0:
		return task{}, false
	case w.Status == Compensating:
		return r.def.work[i].undo, true
	}
	return r.def.work[i].do, true
}

// limit is context.WithTimeout for t, which is w's step. It logs a warning if that has not returned
// lateAfter the timeout.
func (r *runner) limit(ctx context.Context, w *row, t task) (context.Context, context.CancelFunc) {
	id, step, action := w.id, w.Step, w.direction() // w may have moved on when they are logged
	late := time.AfterFunc(t.timeout+lateAfter, func() {
		r.log.WarnContext(ctx, "step of a saga goes on after its timeout: look for a function that ignores its context",
			"id", id, "step", step, "action", action, "timeout", t.timeout)
	})
	limited, cancel := context.WithTimeout(ctx, t.timeout)
	return limited, func() { late.Stop(); cancel() }
}

func (r *runner) call(ctx context.Context, w *row, t task) ([]byte, answer) {
	ctx, cancel := r.limit(ctx, w, t)
	defer cancel()
	r.at("before call")
	after, err := t.call(ctx, w.state)
	r.at("after call")
	return after, answerOf(err)
}

// moveOn stores where a leads w, makes next that, and returns the wait. The step's own effect and
// End, if there are any, run in the same transaction; if one of them is refused or fails, that
// becomes the answer.
func (r *runner) moveOn(ctx context.Context, w, next *row, t task, a answer) (wait time.Duration, err error) {
	for {
		next.position, wait = r.def.next(w.position, a)
		if a.outcome != done {
			t.effect, next.state = nil, w.state
		}
		if t.effect == nil && (r.def.end == nil || !next.Status.over()) {
			return wait, r.write(ctx, w.to(next.position, wait, next.state))
		}
		err := r.commit(ctx, w, next, t)
		own, ok := errors.AsType[*ownError](err)
		if !ok || ctx.Err() != nil {
			return wait, err
		}
		if a = answerOf(own.err); own.end {
			a.outcome = failed // the step runs again before End does
		}
	}
}

// ownError is an error of Commit, Revert or End, as opposed to one of the transaction around them.
type ownError struct {
	err error
	end bool
}

func (e *ownError) Error() string { return e.err.Error() }
func (e *ownError) Unwrap() error { return e.err }

// commit runs t's effect and, if the saga is over after it, End, in the transaction that moves w to
// next.
func (r *runner) commit(ctx context.Context, w, next *row, t task) error {
	ctx, cancel := r.limit(ctx, w, t)
	defer cancel()
	var state []byte
	err := sqldb.InTx(ctx, r.db, func(ctx context.Context, tx *sql.Tx) (err error) {
		state = next.state
		if t.effect != nil {
			if state, err = t.effect(ctx, tx, state); err != nil {
				return &ownError{err, false}
			}
			r.at("after effect")
		}
		if next.Status.over() && r.def.end != nil {
			if err = r.def.end(ctx, tx, state, Outcome{next.Status, next.Reason}); err != nil {
				return &ownError{fmt.Errorf("end: %w", err), true}
			}
			r.at("after end")
		}
		if err = ctx.Err(); err != nil { // they took too long, and the transaction is lost
			return &ownError{err, false}
		}
		if err = r.updateOne(ctx, tx, w.to(next.position, 0, state)); err != nil {
			return err
		}
		r.at("before commit")
		return nil
	})
	if err == nil {
		next.state = state
		r.at("after commit")
	}
	return err
}

// span starts the span of w's next step, in the trace of the caller of Start.
func (r *runner) span(ctx context.Context, w *row) (context.Context, trace.Span) {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": w.traceparent})
	name := r.def.name + " " + w.Step
	if w.Status == Compensating {
		name = r.def.name + " undo " + w.Step
	}
	return r.tracer.Start(ctx, name, trace.WithAttributes( //nolint:spancheck // the caller ends it
		attribute.String("kaptar.saga.name", r.def.name), attribute.String("kaptar.saga.id", w.id),
		attribute.String("kaptar.saga.step", w.Step), attribute.Int("kaptar.saga.attempt", w.Attempts+1)))
}

func traceparent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier.Get("traceparent")
}

// report records the result of w's step in a metric, in the span and, if the saga waits or is over,
// in the log. From the tenth failure on the log level is error.
func (r *runner) report(ctx context.Context, span trace.Span, w, after *row, wait time.Duration) {
	result := "ok"
	switch {
	case after.Step == w.Step && after.Attempts > w.Attempts:
		result = "error"
		span.SetStatus(codes.Error, after.Error)
		level := slog.LevelWarn
		if after.Attempts >= stuckAfter {
			level = slog.LevelError
		}
		r.log.Log(ctx, level, "saga waits", "id", w.id, "step", w.Step, "action", w.direction(), "attempts", after.Attempts,
			"error", after.Error, "again_in", wait)
	case w.Status == Running && (after.Status == Compensating || after.Status == Compensated):
		result = "refused"
	}
	r.metrics.steps.WithLabelValues(r.def.name, w.Step, w.direction(), result).Inc()
	if after.Status.over() {
		r.metrics.ended.WithLabelValues(r.def.name, string(after.Status)).Inc()
		r.log.InfoContext(ctx, "saga is over", "id", w.id, "status", string(after.Status), "reason", after.Reason)
	}
}
