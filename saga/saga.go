// Package saga runs sagas: work in steps at several services, of which each is done or, when one is
// refused, taken back.
//
// A [Definition] has the steps as plain functions. [Sagas.Start] writes a saga down in the
// transaction of what it is about, in the service's own database, and from there it goes on by
// itself, whatever is restarted, until it ends:
//
//	step 1 ──▶ step 2 ──▶ pivot ──▶ step 4 ──▶ Completed
//	   ▲          │         │
//	   └── Undo ◀─┴─refused─┘ ──▶ Compensated
//
// # What is promised
//
//   - A saga that was started ends, as [Completed] or [Compensated], when its steps answer some day.
//   - Each move is written down before the next begins. What was interrupted is done again from what
//     is written: Do and Undo may run more than once, with the same [Key], and possibly while an
//     earlier call, of a process that is cut off, is still on its way. Commit, Revert and End are in
//     the transaction that writes the move down, so they have their effect once.
//   - A saga's steps never run side by side in one process. One process per database runs the sagas
//     of a name and version, up to Concurrency at a time; another takes over when it ends.
//   - Undo and Revert are called for steps that are known to be done, the last one first, and
//     again until they work.
//   - An answer that comes when the saga has moved on, or is over, changes nothing.
//
// Not promised: that others see nothing of a saga before its end. An effect elsewhere happens once
// only if the other side tells repetitions by the key.
//
// # Errors
//
// A step that returns an error is tried again, after Definition.Backoff doubled up to MaxBackoff, or
// when [After] says. From 10 attempts on each failure is logged as an error and the saga counts in
// the metric saga_stuck. [Refuse] says that the step cannot be done and was not: the steps before it
// are taken back. After the pivot there is no way back: Refuse is an error like others there. So it
// is in Undo, Revert and End. A panic is an error too.
//
// # Versions
//
// A running saga is finished by the definition that started it. When steps or the meaning of S
// change, raise Version and register the old definition beside the new one, until
// "sagas list --version" shows none of it; fields that are added to S need no new version. Sagas of a
// version that no process knows wait, and are told in the log and in saga_unfinished.
//
// # Tables and settings
//
// The table kaptar_sagas is made by New, on SQLite and PostgreSQL, with the version table
// kaptar_sagas_schema. Sagas that are over are kept for the setting saga.keep, 7 days: as long is an
// id known, see [ErrExists].
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

// A Definition says what the sagas of one name and version do. Its S is their state, which is kept as
// JSON: what a step that succeeds changes in it the next ones see, and what a step that fails changes
// is forgotten.
type Definition[S any] struct {
	// Name is theirs in the table, in logs, spans and metrics: lower-case letters, digits and dashes.
	// Version is of this definition; 0 is a version like others.
	Name    string
	Version int

	Steps []Step[S]

	// End, if set, is part of the transaction in which a saga ends.
	End func(ctx context.Context, tx *sql.Tx, s *S, out Outcome) error

	// Backoff is the wait after the first failure of a step, default 200 ms. It is doubled with each
	// further one up to MaxBackoff, default 1 min; the upper half of each wait is random.
	Backoff, MaxBackoff time.Duration

	// Concurrency is how many of these sagas run at the same time; default 64.
	Concurrency int
}

// A Step is one move of a saga. It needs Do or Commit. All functions may be called concurrently, for
// different sagas; their contexts end with Timeout, and when the process is to stop.
type Step[S any] struct {
	// Name is unique in the definition: lower-case letters, digits and dashes.
	Name string

	// Do calls others. It may run again, see [Key].
	Do func(ctx context.Context, s *S) error

	// Commit is the step's effect in this database, after Do. tx writes the step down as well; what
	// Commit refuses or fails at leaves nothing. It may run more than once, as of [sqldb.InTx].
	Commit func(ctx context.Context, tx *sql.Tx, s *S) error

	// Undo takes Do back by a call of others, and Revert takes Commit back in the transaction that
	// writes that down, after Undo. Steps after the pivot cannot have them.
	Undo   func(ctx context.Context, s *S) error
	Revert func(ctx context.Context, tx *sql.Tx, s *S) error

	// Pivot marks the step, one at most, after which there is no way back. It can be refused, and not
	// be undone. Without a pivot every step can be refused.
	Pivot bool

	// Timeout bounds each run of each function; default 30 s.
	Timeout time.Duration
}

// A Status is how far a saga is.
type Status string

// Running sagas do their steps. Cancelling ones do the step that they are at, whose outcome nobody
// knows, and then compensate. Compensating ones take steps back. The others are over.
const (
	Running      Status = "running"
	Cancelling   Status = "cancelling"
	Compensating Status = "compensating"
	Completed    Status = "completed"
	Compensated  Status = "compensated"
)

func (s Status) over() bool { return s == Completed || s == Compensated }

// An Outcome is how a saga ends: as Completed, or as Compensated because of Reason.
type Outcome struct {
	Status Status
	Reason string
}

// ErrExists is of Start with the id of a saga that is known.
var ErrExists = errors.New("saga: there is one of that id already")

const maxID = 200 // bytes

// Sagas are those of one definition. Its method may be called concurrently.
type Sagas[S any] struct{ runner *runner }

// New returns the sagas of def, and runs those that were started before, once app's ports are served.
// Call it during Setup. It opens and migrates the service's database.
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

// Start writes down a saga as part of tx; it begins when tx has committed, at once if tx is of
// [sqldb.InTx] and ctx is its context, else within 5 seconds. Its steps are in the trace of ctx. An id,
// at most 200 bytes of text, is for one saga of the name: a second Start of it does nothing but return
// an error with [ErrExists] in its chain, and leaves tx usable.
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

// Refuse is the error of a step that cannot be done, was not, and never will be.
func Refuse(reason string) error { return &refusal{reason} }

type refusal struct{ reason string }

func (e *refusal) Error() string { return "refused: " + e.reason }

// After is err, of a step that should be tried again in d, at most an hour: what a server asked for.
// A d that is not positive is no wish.
func After(d time.Duration, err error) error { return &later{min(d, time.Hour), err} }

type later struct {
	after time.Duration
	err   error
}

func (e *later) Error() string { return fmt.Sprintf("%v (again in %v)", e.err, e.after) }
func (e *later) Unwrap() error { return e.err }

type keyKey struct{}

// Key is an idempotency key for what the step of ctx calls: "name/id/step/do", or "…/undo" of Undo and
// Revert. It is the same in each attempt, and "" outside of a step.
func Key(ctx context.Context) string {
	key, _ := ctx.Value(keyKey{}).(string)
	return key
}
