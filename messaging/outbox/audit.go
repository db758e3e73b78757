package outbox

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/sqldb"
)

// An Audit is the record of a change that somebody made by hand.
type Audit struct {
	ID       int64     // given by the database
	At       time.Time // given by AddAudit; millisecond precision
	Who, Why string    // required
	Action   string    // required; such as "replay", "edit" or "drop"
	Group    string
	Message  driver.Message // its ID, Topic, Key and source; of Before all
	Source   string         // of the message, as the inbox keeps it
	Before   string         // what was changed, as JSON
}

// AddAudit stores a, as part of the transaction with the change. Before is made of d, if there is one.
func AddAudit(ctx context.Context, tx *sql.Tx, a Audit, d *DeadLetter) error {
	before := []byte("{}")
	if d != nil {
		headers, err := d.Message.Headers.MarshalJSON()
		if err == nil {
			before, err = json.Marshal(map[string]any{
				"state": d.State, "reason": d.Reason, "attempts": d.Attempts, "seq": d.Seq, "headers": json.RawMessage(headers), "data": d.Message.Data,
			})
		}
		if err != nil {
			return fmt.Errorf("outbox: audit: %w", err)
		}
		a.Group, a.Message = d.Group, d.Message
	}
	m := &a.Message
	_, err := tx.ExecContext(ctx, `INSERT INTO kaptar_dead_letter_audit (at, who, why, action, grp, msgid, source, topic, key, before)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, time.Now().UnixMilli(), clean(a.Who), clean(a.Why), a.Action, a.Group,
		m.ID, source(m), clean(m.Topic), clean(m.Key), cmp.Or(a.Before, string(before)))
	if err != nil {
		return fmt.Errorf("outbox: audit: %w", err)
	}
	return nil
}

// Audits returns at most limit records, the last ones first; with before other than 0 those with a
// lower ID.
func Audits(ctx context.Context, q querier, before int64, limit int) ([]Audit, error) {
	all, err := sqldb.Select(ctx, q, func(row sqldb.Row) (a Audit, err error) {
		var at int64
		err = row.Scan(&a.ID, &at, &a.Who, &a.Why, &a.Action, &a.Group, &a.Message.ID, &a.Source, &a.Message.Topic, &a.Message.Key, &a.Before)
		a.At = time.UnixMilli(at)
		return a, err
	}, `SELECT id, at, who, why, action, grp, msgid, source, topic, key, before FROM kaptar_dead_letter_audit
		WHERE $1 = 0 OR id < $1 ORDER BY id DESC LIMIT $2`, before, limit)
	if err != nil {
		return nil, fmt.Errorf("outbox: audit: %w", err)
	}
	return all, nil
}

// EditDeadLetter gives a dead letter, as it was read, the headers and the data of m, as part of tx. Its
// identity and its place in the order of its key stay. ErrNoDeadLetter is in the chain of the error
// when it was changed since, driver.ErrInvalid or driver.ErrTooLarge when no broker would take m.
func EditDeadLetter(ctx context.Context, tx *sql.Tx, d *DeadLetter, m driver.Message) error {
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

// DelayDeadLetter lets one that was just replayed be tried at due, as part of the same tx.
func DelayDeadLetter(ctx context.Context, tx *sql.Tx, id int64, due time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE kaptar_dead_letters SET due_at = $1 WHERE id = $2 AND state = 'retrying'`, due.UnixMilli(), id)
	if err != nil {
		return fmt.Errorf("outbox: dead letter %d: %w", id, err)
	}
	return nil
}

// A Count is how many dead letters of a group, topic and kind are in a state.
type Count struct {
	Group, Topic, Kind, State string
	N                         int64
	Oldest                    time.Time // first failure
}

// CountDeadLetters counts all dead letters.
func CountDeadLetters(ctx context.Context, q querier) ([]Count, error) {
	all, err := sqldb.Select(ctx, q, func(row sqldb.Row) (c Count, err error) {
		var first int64
		err = row.Scan(&c.Group, &c.Topic, &c.Kind, &c.State, &c.N, &first)
		c.Oldest = time.UnixMilli(first)
		return c, err
	}, `SELECT grp, topic, kind, state, count(*), min(first_at) FROM kaptar_dead_letters WHERE state <> '`+dropped+`'
		GROUP BY grp, topic, kind, state ORDER BY grp, topic, kind, state`)
	if err != nil {
		return nil, fmt.Errorf("outbox: count of dead letters: %w", err)
	}
	return all, nil
}
