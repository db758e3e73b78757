package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/sqldb"
)

// Edit replaces the headers and the data of d, as it was read, by those of m, as part of tx. d
// keeps its identity and its number. The error wraps [ErrNoDeadLetter] if d was changed since, and
// driver.ErrInvalid or driver.ErrTooLarge if no broker would accept m.
func (d *DeadLetter) Edit(ctx context.Context, tx *sql.Tx, m driver.Message) error {
	was := &d.Message
	m.ID, m.Topic, m.Key, m.Raw = was.ID, was.Topic, was.Key, was.Raw
	if err := check(&m); err != nil {
		return err
	}
	for _, name := range []string{driver.HeaderID, driver.HeaderSource, driver.HeaderSequence} {
		if m.Headers.Get(name) != was.Headers.Get(name) {
			return fmt.Errorf("outbox: edit of dead letter %d: header %s says which event it is: it stays %q: %w",
				d.ID, name, was.Headers.Get(name), driver.ErrInvalid)
		}
	}
	headers, err := m.Headers.MarshalJSON()
	if err != nil {
		return fmt.Errorf("outbox: edit of dead letter %d: %w", d.ID, err)
	}
	return d.change(ctx, tx, `UPDATE kaptar_dead_letters SET headers = $3, payload = $4, rev = rev + 1 WHERE id = $1 AND rev = $2`,
		string(headers), payload(m.Data))
}

// Delay sets the time of the next try of d, which was replayed in the same tx.
func (d *DeadLetter) Delay(ctx context.Context, tx *sql.Tx, due time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE kaptar_dead_letters SET due_at = $1 WHERE id = $2 AND state = 'retrying'`, due.UnixMilli(), d.ID)
	if err != nil {
		return fmt.Errorf("outbox: dead letter %d: %w", d.ID, err)
	}
	return nil
}

// A Count is the number of dead letters of a group, topic and kind in one state.
type Count struct {
	Group, Topic, Kind, State string
	N                         int64
	Oldest                    time.Time // first failure
}

// CountDeadLetters counts all dead letters.
func CountDeadLetters(ctx context.Context, q sqldb.Querier) ([]Count, error) {
	all, err := sqldb.Select(ctx, q, func(row sqldb.Row) (c Count, err error) {
		var first int64
		err = row.Scan(&c.Group, &c.Topic, &c.Kind, &c.State, &c.N, &first)
		c.Oldest = time.UnixMilli(first)
		return c, err
	}, `SELECT grp, topic, kind, state, count(*), min(first_at) FROM kaptar_dead_letters WHERE `+visible+`
		GROUP BY grp, topic, kind, state ORDER BY grp, topic, kind, state`)
	if err != nil {
		return nil, fmt.Errorf("outbox: count of dead letters: %w", err)
	}
	return all, nil
}
