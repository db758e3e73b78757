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
	run, effect, timeout, direction := r.work(w)
	ctx = context.WithValue(ctx, keyKey{}, r.def.name+"/"+w.id+"/"+w.Step+"/"+direction)
	state, a := w.state, answer{outcome: done}
	if timeout == 0 {
		a = answer{text: fmt.Sprintf("step %q is unknown to version %d of the definition: register one that has it", w.Step, r.def.version), after: unknownRetry}
	} else if run != nil {
		state, a = r.call(ctx, run, w.state, timeout)
	}
	if outer.Err() != nil {
		if a.outcome != done || effect != nil {
			return 0, outer.Err() // we are being stopped; the answer says nothing about the step
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
	}
	after, wait, state, err := r.moveOn(ctx, w, a, state, effect, timeout)
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
		return 0, err
	}
	r.report(ctx, span, w, after, direction, wait)
	w.position, w.state = after, state
	w.revision++
	return wait, nil
}

// work returns what w's next step consists of. A timeout of 0 says that the definition does not
// have the step.
func (r *runner) work(w *row) (run call, in effect, timeout time.Duration, direction string) {
	direction = "do"
	if w.Status == Compensating {
		direction = "undo"
	}
	i := r.def.index(w.Step)
	if i < 0 {
		return nil, nil, 0, direction
	}
	s := r.def.work[i]
	if direction == "undo" {
		return s.undo, s.revert, s.timeout, direction
	}
	return s.do, s.commit, s.timeout, direction
}

func (r *runner) call(ctx context.Context, run call, state []byte, timeout time.Duration) ([]byte, answer) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r.at("before call")
	after, err := run(ctx, state)
	r.at("after call")
	return after, answerOf(err)
}

// moveOn stores the position that follows from a. The step's own effect and End, if there are any,
// run in the same transaction; if one of them is refused or fails, that becomes the answer.
func (r *runner) moveOn(ctx context.Context, w *row, a answer, state []byte, in effect, timeout time.Duration) (position, time.Duration, []byte, error) {
	for {
		after, wait := r.def.next(w.position, a)
		if a.outcome != done {
			in, state = nil, w.state
		}
		if in == nil && (r.def.end == nil || !after.Status.over()) {
			return after, wait, state, r.write(ctx, w.to(after, wait, state))
		}
		text, err := r.commit(ctx, w, after, state, in, timeout)
		var own *ownError
		switch {
		case err == nil:
			return after, wait, text, nil
		case !errors.As(err, &own) || ctx.Err() != nil:
			return after, wait, nil, err
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

// commit runs in and, if the saga is over after it, End, in the transaction that moves w to after.
func (r *runner) commit(ctx context.Context, w *row, after position, state []byte, in effect, timeout time.Duration) (text []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = sqldb.InTx(ctx, r.db, func(ctx context.Context, tx *sql.Tx) (err error) {
		text = state
		if in != nil {
			if text, err = in(ctx, tx, state); err != nil {
				return &ownError{err, false}
			}
			r.at("after effect")
		}
		if after.Status.over() && r.def.end != nil {
			if err = r.def.end(ctx, tx, text, Outcome{after.Status, after.Reason}); err != nil {
				return &ownError{fmt.Errorf("end: %w", err), true}
			}
			r.at("after end")
		}
		if err = r.updateOne(ctx, tx, w.to(after, 0, text)); err != nil {
			return err
		}
		r.at("before commit")
		return nil
	})
	if err == nil {
		r.at("after commit")
	}
	return text, err
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

// traceparent returns the W3C trace context of ctx.
func traceparent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier.Get("traceparent")
}

// report records the result of w's step in a metric, in the span and, if the saga waits or is over,
// in the log. From the tenth failure on the log level is error.
func (r *runner) report(ctx context.Context, span trace.Span, w *row, after position, direction string, wait time.Duration) {
	result := "ok"
	switch {
	case after.Step == w.Step && after.Attempts > w.Attempts:
		result = "error"
		span.SetStatus(codes.Error, after.Error)
		level := slog.LevelWarn
		if after.Attempts >= stuckAfter {
			level = slog.LevelError
		}
		r.log.Log(ctx, level, "saga waits", "id", w.id, "step", w.Step, "action", direction, "attempts", after.Attempts,
			"error", after.Error, "again_in", wait)
	case w.Status == Running && (after.Status == Compensating || after.Status == Compensated):
		result = "refused"
	}
	r.metrics.steps.WithLabelValues(r.def.name, w.Step, direction, result).Inc()
	if after.Status.over() {
		r.metrics.ended.WithLabelValues(r.def.name, string(after.Status)).Inc()
		r.log.InfoContext(ctx, "saga is over", "id", w.id, "status", string(after.Status), "reason", after.Reason)
	}
}
