package saga

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/sqldb"
)

// ErrUnknown is the error of operations on a saga that is not in the database.
var ErrUnknown = errors.New("there is none of that name and id: see the command sagas list")

// An Info describes one saga to operators.
type Info struct {
	Name    string `json:"name"`
	ID      string `json:"id"`
	Version int    `json:"version"`
	Status  Status `json:"status"`
	// Step is the next one to do or undo, "" when the saga is over. Attempts at it have failed.
	Step     string `json:"step"`
	Attempts int    `json:"attempts"`
	// Reason is why the saga is or was compensated. Error is that of the last failed attempt.
	Reason string `json:"reason,omitempty"`
	Error  string `json:"error,omitempty"`
	// Due is the time of the next attempt; zero when the saga is over.
	Due         time.Time       `json:"due,omitzero"`
	Created     time.Time       `json:"created"`
	Updated     time.Time       `json:"updated"`
	Traceparent string          `json:"traceparent,omitempty"`
	State       json.RawMessage `json:"state,omitempty"` // not set by List
}

// A Filter selects sagas. Fields that are not set select everything, except that without Status
// only the sagas that are not over are selected.
type Filter struct {
	Name   string
	Status Status
	Stuck  bool // at least ten attempts at the current step have failed
	Limit  int  // default 100
}

const infoColumns = `name, version, id, status, step, attempts, reason, error, COALESCE(due_at, 0), created_at, updated_at, traceparent`

func scanInfo(r sqldb.Row, more ...any) (i Info, err error) {
	var due, created, updated int64
	all := []any{&i.Name, &i.Version, &i.ID, &i.Status, &i.Step, &i.Attempts, &i.Reason, &i.Error, &due, &created, &updated, &i.Traceparent}
	err = r.Scan(append(all, more...)...)
	if due > 0 {
		i.Due = time.UnixMilli(due)
	}
	i.Created, i.Updated = time.UnixMilli(created), time.UnixMilli(updated)
	return i, err
}

// List returns the sagas that f selects in app's database, the oldest first. It returns none if app
// has registered no saga.
func List(ctx context.Context, app *kaptar.App, f Filter) ([]Info, error) {
	g := registryOf(app)
	if g.db == nil {
		return nil, nil
	}
	least := 0
	if f.Stuck {
		least = stuckAfter
	}
	all, err := sqldb.Select(ctx, g.db, func(r sqldb.Row) (Info, error) { return scanInfo(r) }, `
		SELECT `+infoColumns+` FROM kaptar_sagas
		WHERE (due_at IS NOT NULL AND $1 = '' OR status = $1) AND (name = $2 OR $2 = '') AND attempts >= $3
		ORDER BY created_at, name, id LIMIT $4`, string(f.Status), f.Name, least, cmp.Or(f.Limit, 100))
	if err != nil {
		return nil, fmt.Errorf("saga: list: %w", err)
	}
	return all, nil
}

// Show returns one saga with its state, or an error that wraps [ErrUnknown].
func Show(ctx context.Context, app *kaptar.App, name, id string) (Info, error) {
	g := registryOf(app)
	err := sql.ErrNoRows
	var i Info
	if g.db != nil {
		var state []byte
		i, err = scanInfo(g.db.QueryRowContext(ctx, `SELECT `+infoColumns+`, state FROM kaptar_sagas WHERE name = $1 AND id = $2`, name, id), &state)
		i.State = state
	}
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrUnknown
	}
	if err != nil {
		return Info{}, fmt.Errorf("saga: %s %s: %w", name, id, err)
	}
	return i, nil
}

// Retry makes a waiting saga try its step now and sets its count of attempts back to 0. It does
// nothing if the step is due or running already.
func Retry(ctx context.Context, app *kaptar.App, name, id string) error {
	i, err := Show(ctx, app, name, id)
	if err != nil {
		return err
	}
	if i.Status.over() {
		return fmt.Errorf("saga: retry %s %s: it is over", name, id)
	}
	g := registryOf(app)
	now := time.Now().UnixMilli()
	err = sqldb.InTx(ctx, g.db, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `
			UPDATE kaptar_sagas SET due_at = $1, attempts = 0, revision = revision + 1, updated_at = $1
			WHERE name = $2 AND id = $3 AND due_at > $1`, now, name, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("saga: retry %s %s: %w", name, id, err)
	}
	g.notify(i)
	return nil
}

// Cancel makes a saga compensate that has not come to its pivot. The step that it is at may have
// had its effect already, so it is done first; then all steps are undone. Cancel returns an error
// and changes nothing if the saga is at its pivot, past it, or over.
func Cancel(ctx context.Context, app *kaptar.App, name, id, reason string) error {
	g := registryOf(app)
	for {
		i, err := Show(ctx, app, name, id)
		if err != nil {
			return err
		}
		r := g.find(name, i.Version)
		if r == nil {
			return fmt.Errorf("saga: cancel %s %s: its version %d is not registered here", name, id, i.Version)
		}
		w, err := r.read(ctx, id)
		if err == nil {
			var after position
			if after, err = r.def.cancel(w.position, reason); err == nil {
				m := w.to(after, 0, w.state)
				m.Due = time.Now().UnixMilli()
				err = sqldb.InTx(ctx, g.db, func(ctx context.Context, tx *sql.Tx) error { return r.updateOne(ctx, tx, m) })
			}
		}
		switch {
		case err == nil:
			g.notify(i)
			return nil
		case !errors.Is(err, errMoved) || ctx.Err() != nil:
			return fmt.Errorf("saga: cancel %s %s: %w", name, id, err)
		}
	}
}

func (g *registry) notify(i Info) {
	sqldb.NewSignal(g.db, leaseName(i.Name, i.Version)).Notify()
}
