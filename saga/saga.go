// Package saga runs work that spans several services as a sequence of steps. When a step is
// refused, the steps before it are undone.
//
//	checkout, err := saga.New(app, saga.Definition[Order]{Name: "checkout", Steps: []saga.Step[Order]{
//		{Name: "reserve", Do: reserve, Undo: release},
//		{Name: "charge", Do: charge, Pivot: true},
//		{Name: "ship", Do: ship},
//	}})
//	…
//	err = checkout.Start(ctx, tx, order.ID, order) // tx also stores the order
//
// A [Definition] lists the steps as plain functions. [Sagas.Start] stores a new saga in the
// service's own database, in the transaction of the change that it is about. From there the saga
// continues on its own, across restarts and crashes, until it ends:
//
//	step 1 ──▶ step 2 ──▶ pivot ──▶ step 4 ──▶ Completed
//	   ▲          │         │
//	   └── Undo ◀─┴─refused─┘ ──▶ Compensated
//
// # Guarantees
//
//   - A saga that was started ends as [Completed] or [Compensated], provided that its steps succeed
//     eventually.
//   - Each move is stored before the next one begins. After an interruption the saga continues from
//     what is stored, so Do and Undo may run more than once, always with the same [Key]. An earlier
//     call may still be under way in a process that has lost its lease. Commit, Revert and End run
//     in the transaction that stores the move, so their effect happens once.
//   - Within a process the steps of one saga never run concurrently. One process per database runs
//     the sagas of a name and version, up to Concurrency of them at a time. Another process takes
//     over when it ends.
//   - Undo and Revert run for the steps that are known to be done, the last one first, and are
//     retried until they succeed.
//   - An answer that arrives after the saga has moved on, or is over, changes nothing.
//
// Not guaranteed: isolation. Others may see the effects of a saga before it ends. An effect in
// another service happens once only if that service deduplicates by the key.
//
// # Errors
//
// A step that returns an error is retried after Definition.Backoff, doubled with each failure up to
// MaxBackoff, or after the time that [After] asks for. From the tenth failure on, each one is
// logged as an error and the saga counts in the metric saga_stuck. A panic counts as an error.
//
// [Refuse] says that a step was not done and never will be, so the steps before it are undone.
// After the pivot, and in Undo, Revert and End, Refuse is an ordinary error: the step is retried.
//
// # Versions
//
// A running saga is finished by the version of the definition that started it. When the steps or
// the meaning of S change, raise Version and register the old definition beside the new one until
// "sagas list" shows no saga of the old version. New fields in S need no new version. Sagas of a
// version that no process has registered wait; they are logged once and count in saga_unfinished.
//
// # Tables and settings
//
// New creates the table kaptar_sagas, on SQLite and PostgreSQL, and its version table
// kaptar_sagas_schema. Finished sagas are kept for the setting saga.keep, 7 days by default. Until
// then Start refuses their ids with [ErrExists].
package saga

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/sqldb"
)

// A Definition describes the sagas of one name and version. S is their state. It is stored as JSON
// after each step that succeeds; what a failed step changed in it is discarded.
type Definition[S any] struct {
	// Name identifies the sagas in the table, in logs, spans and metrics: lower-case letters,
	// digits and dashes. Version is that of this definition; 0 is a valid one.
	Name    string
	Version int

	Steps []Step[S]

	// End, if set, runs in the transaction in which a saga ends.
	End func(ctx context.Context, tx *sql.Tx, s *S, out Outcome) error

	// Backoff is the wait after the first failure of a step, default 200 ms. It doubles with each
	// further failure up to MaxBackoff, default 1 min. The upper half of each wait is random.
	Backoff, MaxBackoff time.Duration

	// Concurrency is the number of these sagas that run at the same time, default 64.
	Concurrency int
}

// A Step is one move of a saga. It needs Do or Commit. All functions may be called concurrently for
// different sagas. Their contexts end after Timeout and when the process stops.
type Step[S any] struct {
	// Name is unique in the definition: lower-case letters, digits and dashes.
	Name string

	// Do calls other services. It may run again, see [Key].
	Do func(ctx context.Context, s *S) error

	// Commit is the step's effect in this database. It runs after Do, in the transaction that
	// stores the step as done, and an error rolls both back. Like any function of [sqldb.InTx] it
	// may run more than once.
	Commit func(ctx context.Context, tx *sql.Tx, s *S) error

	// Undo reverses Do by calling other services. Revert reverses Commit; it runs after Undo, in
	// the transaction that stores the step as undone. The pivot and the steps after it have
	// neither.
	Undo   func(ctx context.Context, s *S) error
	Revert func(ctx context.Context, tx *sql.Tx, s *S) error

	// Pivot marks the point of no return, at most one step. The pivot can be refused but not
	// undone. Without a pivot every step can be refused.
	Pivot bool

	// Timeout limits each call of each function, by its context; default 30 s. A step that goes on
	// for a second more is logged as a warning.
	Timeout time.Duration
}

// A Status is the state that a saga is in.
type Status string

// Running sagas do their steps. Cancelling ones finish the step that they are at, because nobody
// knows whether it has had its effect, and then compensate. Compensating ones undo their steps.
// Completed and Compensated ones are over.
const (
	Running      Status = "running"
	Cancelling   Status = "cancelling"
	Compensating Status = "compensating"
	Completed    Status = "completed"
	Compensated  Status = "compensated"
)

func (s Status) over() bool { return s == Completed || s == Compensated }

// An Outcome is how a saga ends: Completed, or Compensated because of Reason.
type Outcome struct {
	Status Status
	Reason string
}

// ErrExists is the error of Start for an id that a stored saga has.
var ErrExists = errors.New("there is one of that id already")

const maxID = 200 // bytes

// Sagas are the sagas of one definition. Start may be called concurrently.
type Sagas[S any] struct{ runner *runner }

// New registers def and returns its sagas. Those that are in the database already continue once app
// serves its ports. Call New during Setup. It opens and migrates the service's database.
func New[S any](app *kaptar.App, def Definition[S]) (*Sagas[S], error) {
	d, err := define(&def)
	if err != nil {
		return nil, fmt.Errorf("saga: %s: %s: %w", app.Name(), def.Name, err)
	}
	r, err := register(app, d)
	if err != nil {
		return nil, fmt.Errorf("saga: %s: %s: %w", app.Name(), def.Name, err)
	}
	return &Sagas[S]{r}, nil
}

// Start stores a saga as part of tx. It begins when tx commits: at once if ctx is the context that
// [sqldb.InTx] passed along with tx, else within 5 seconds. Its steps belong to the trace of ctx.
// The id is 1 to 200 bytes of text and unique among the sagas of the name. If it is taken, Start
// changes nothing and returns an error that wraps [ErrExists]; tx stays usable.
func (g *Sagas[S]) Start(ctx context.Context, tx *sql.Tx, id string, state S) error {
	r := g.runner
	if id == "" || len(id) > maxID || !utf8.ValidString(id) || strings.ContainsRune(id, 0) {
		return fmt.Errorf("saga: start %s: id %.50q: expected 1 to %d bytes of UTF-8 without NUL", r.def.name, id, maxID)
	}
	text, err := encode(&state)
	if err != nil {
		return fmt.Errorf("saga: start %s %s: %w", r.def.name, id, err)
	}
	now := time.Now().UnixMilli()
	w := row{
		id: id, state: text, traceparent: traceparent(ctx), due: now, created: now,
		position: position{Status: Running, Step: r.def.steps[0].name},
	}
	if err := insert(ctx, tx, r.def, w); err != nil {
		return fmt.Errorf("saga: start %s %s: %w", r.def.name, id, err)
	}
	sqldb.AfterCommit(ctx, func() { r.offer(w) })
	return nil
}

// Refuse returns the error of a step that was not done and never will be.
func Refuse(reason string) error { return &refusal{reason} }

type refusal struct{ reason string }

func (e *refusal) Error() string { return "refused: " + e.reason }

// After wraps err and asks for the next attempt in d, for example because a server said so. The
// wait is at most one hour. With d <= 0 the usual backoff applies.
func After(d time.Duration, err error) error { return &later{min(d, time.Hour), err} }

type later struct {
	after time.Duration
	err   error
}

func (e *later) Error() string { return fmt.Sprintf("%v (again in %v)", e.err, e.after) }
func (e *later) Unwrap() error { return e.err }

type keyKey struct{}

// Key returns the idempotency key for the calls that the step of ctx makes: "name/id/step/do", or
// "name/id/step/undo" in Undo and Revert. It is the same in each attempt, and "" outside of a step.
func Key(ctx context.Context) string {
	key, _ := ctx.Value(keyKey{}).(string)
	return key
}
