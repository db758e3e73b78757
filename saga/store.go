package saga

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

//go:embed migrations
var migrations embed.FS

const (
	versionTable = "kaptar_sagas_schema"
	stuckAfter   = 10 // attempts at one step
)

type row struct {
	id string
	position
	state       []byte
	revision    int64
	traceparent string
	due         int64 // 0: it is over
	created     int64
	updated     int64
}

// errMoved says that the saga has been changed since it was read.
var errMoved = errors.New("saga: it has moved on")

const columns = `id, status, step, state, attempts, COALESCE(due_at, 0), revision, reason, error, traceparent, created_at, updated_at`

func scan(r sqldb.Row) (w row, err error) {
	err = r.Scan(&w.id, &w.Status, &w.Step, &w.state, &w.Attempts, &w.due, &w.revision, &w.Reason, &w.Error, &w.traceparent, &w.created, &w.updated)
	return w, err
}

func insert(ctx context.Context, tx *sql.Tx, d *definition, w row) error {
	n, err := sqldb.Affected(tx.ExecContext(ctx, `
		INSERT INTO kaptar_sagas (name, id, version, status, step, state, attempts, due_at, revision, reason, error, traceparent, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, 0, $7, 0, '', '', $8, $9, $9) ON CONFLICT (id, name) DO NOTHING`,
		d.name, w.id, d.version, w.Status, w.Step, string(w.state), w.due, w.traceparent, w.created))
	if err == nil && n == 0 {
		err = ErrExists
	}
	return err
}

// due returns up to limit sagas whose next step is due, the longest waiting first. It reads over
// the session that holds the lease, so the answer is from a time at which no other process led.
func (r *runner) due(ctx context.Context, lease *sqldb.Lease, limit int) (due []row, err error) {
	err = lease.Use(ctx, func(ctx context.Context, conn *sql.Conn) error {
		due, err = sqldb.Select(ctx, conn, scan, `
			SELECT `+columns+` FROM kaptar_sagas WHERE name = $1 AND version = $2 AND due_at <= $3 ORDER BY due_at, id LIMIT $4`,
			r.def.name, r.def.version, time.Now().UnixMilli(), limit)
		return err
	})
	return due, err
}

func (r *runner) read(ctx context.Context, id string) (row, error) {
	return scan(r.db.QueryRowContext(ctx, `SELECT `+columns+` FROM kaptar_sagas WHERE name = $1 AND version = $2 AND id = $3`,
		r.def.name, r.def.version, id))
}

// A move is an update of one saga. Its JSON names are the columns that the statement reads.
type move struct {
	ID       string `json:"id"`
	Revision int64  `json:"revision"` // before the move
	Status   Status `json:"status"`
	Step     string `json:"step"`
	State    string `json:"state"`
	Attempts int    `json:"attempts"`
	Due      int64  `json:"due"` // 0: the saga is over; -1: unchanged
	Reason   string `json:"reason"`
	Error    string `json:"error"`
	done     chan error
}

// to returns the move of w to after, with the next step due in wait.
func (w *row) to(after position, wait time.Duration, state []byte) *move {
	m := &move{
		ID: w.id, Revision: w.revision, Status: after.Status, Step: after.Step, State: string(state),
		Attempts: after.Attempts, Due: -1, Reason: after.Reason, Error: after.Error,
	}
	switch {
	case after.Status.over():
		m.Due = 0
	case wait > 0:
		m.Due = time.Now().Add(wait).UnixMilli()
	}
	return m
}

// moved is the part of the UPDATE that turns one JSON parameter into rows, by dialect. PostgreSQL
// keeps the plan that it makes while the table is small. Comparing id with itself makes it expect
// one row, which it looks up in the index, instead of 100, for which it would scan the table.
var moved = map[sqldb.Dialect]string{
	sqldb.Postgres: `(SELECT * FROM json_to_recordset($1::json) AS r(id TEXT, revision BIGINT, status TEXT, step TEXT, state TEXT,
		attempts BIGINT, due BIGINT, reason TEXT, error TEXT) WHERE id = id || '') AS m`,
	sqldb.SQLite: `(SELECT value ->> 'id' AS id, value ->> 'revision' AS revision, value ->> 'status' AS status, value ->> 'step' AS step,
		value ->> 'state' AS state, value ->> 'attempts' AS attempts, value ->> 'due' AS due, value ->> 'reason' AS reason,
		value ->> 'error' AS error FROM json_each($1)) AS m`,
}

// update stores moves in one statement. It returns the ids of the sagas that were still at the
// revision that their move starts from.
func (r *runner) update(ctx context.Context, q sqldb.Querier, moves []*move) (ids []string, err error) {
	list, err := json.Marshal(moves)
	if err != nil {
		return nil, err
	}
	return sqldb.Select(ctx, q, func(row sqldb.Row) (id string, err error) { err = row.Scan(&id); return id, err }, `
		UPDATE kaptar_sagas SET status = m.status, step = m.step, state = m.state, attempts = m.attempts, reason = m.reason, error = m.error,
			due_at = CASE m.due WHEN -1 THEN due_at WHEN 0 THEN NULL ELSE m.due END, ended_at = CASE m.due WHEN 0 THEN CAST($2 AS BIGINT) END,
			revision = kaptar_sagas.revision + 1, updated_at = CAST($2 AS BIGINT)
		FROM `+moved[r.dialect]+`
		WHERE kaptar_sagas.name = $3 AND kaptar_sagas.version = $4 AND kaptar_sagas.id = m.id AND kaptar_sagas.revision = m.revision
		RETURNING kaptar_sagas.id`, string(list), time.Now().UnixMilli(), r.def.name, r.def.version)
}

// updateOne stores one move; it returns errMoved if the saga has another revision now.
func (r *runner) updateOne(ctx context.Context, tx *sql.Tx, m *move) error {
	ids, err := r.update(ctx, tx, []*move{m})
	if err == nil && len(ids) == 0 {
		err = errMoved
	}
	return err
}

// write stores m. One statement runs at a time; moves that arrive meanwhile share the next one.
func (r *runner) write(ctx context.Context, m *move) error {
	m.done = make(chan error, 1)
	r.mu.Lock()
	r.moves = append(r.moves, m)
	begin := !r.writing
	r.writing = true
	r.mu.Unlock()
	if begin {
		go r.flush(context.WithoutCancel(ctx))
	}
	return <-m.done
}

// writeTimeout limits one statement. It holds while the process stops, too.
const writeTimeout = 10 * time.Second

func (r *runner) flush(ctx context.Context) {
	for {
		r.mu.Lock()
		moves := r.moves
		r.moves = nil
		if r.writing = len(moves) > 0; !r.writing {
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		r.writeAll(ctx, moves)
	}
}

// writeAll stores moves and tells each one's caller the result. Moves are sorted by id, so that two
// processes that both believe they lead cannot deadlock. If the statement fails, each move is tried
// alone, so that one bad saga does not hold up the others. After a timeout that would only make
// them all wait longer.
func (r *runner) writeAll(ctx context.Context, moves []*move) {
	slices.SortFunc(moves, func(a, b *move) int { return strings.Compare(a.ID, b.ID) })
	ids, err := r.writeTogether(ctx, moves)
	if err != nil && len(moves) > 1 && !errors.Is(err, context.DeadlineExceeded) {
		for _, m := range moves {
			r.writeAll(ctx, []*move{m})
		}
		return
	}
	for _, m := range moves {
		switch {
		case err != nil:
			m.done <- fmt.Errorf("saga: %s %s: write down: %w", r.def.name, m.ID, err)
		case !slices.Contains(ids, m.ID):
			m.done <- errMoved
		default:
			m.done <- nil
		}
	}
}

func (r *runner) writeTogether(ctx context.Context, moves []*move) (ids []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	r.at("before write")
	if r.dialect == sqldb.SQLite { // InTx queues its writers
		err = sqldb.InTx(ctx, r.db, func(ctx context.Context, tx *sql.Tx) error {
			ids, err = r.update(ctx, tx, moves)
			return err
		})
	} else {
		ids, err = r.update(ctx, r.db, moves)
	}
	if err == nil {
		r.at("after write")
	}
	return ids, err
}
