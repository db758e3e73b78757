package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

// ErrNotFirst says that a dead letter of an ordered topic has to wait for an earlier one of its
// key. Errors wrap it.
var ErrNotFirst = errors.New("an earlier event of its key is set aside: replay or drop that one first")

// Due says that dead letters of a group and topic are to be retried.
type Due struct {
	Group, Topic string
	At           time.Time // time of the first of them
}

// NextDue returns when dead letters are to be retried, by group and topic.
func NextDue(ctx context.Context, q sqldb.Querier) ([]Due, error) {
	all, err := sqldb.Select(ctx, q, func(row sqldb.Row) (d Due, err error) {
		var at int64
		err = row.Scan(&d.Group, &d.Topic, &at)
		d.At = time.UnixMilli(at)
		return d, err
	}, `SELECT grp, topic, min(due_at) FROM kaptar_dead_letters WHERE state = 'retrying' GROUP BY grp, topic`)
	if err != nil {
		return nil, fmt.Errorf("outbox: due dead letters: %w", err)
	}
	return all, nil
}

// DueDeadLetters returns at most limit dead letters of a group and topic whose next try is due, the
// longest due first.
func DueDeadLetters(ctx context.Context, q sqldb.Querier, group, topic string, limit int) ([]DeadLetter, error) {
	all, err := sqldb.Select(ctx, q, scanLetter, "SELECT "+letterColumns+` FROM kaptar_dead_letters
		WHERE state = 'retrying' AND grp = $1 AND topic = $2 AND due_at <= $3 ORDER BY due_at, id LIMIT $4`,
		group, topic, time.Now().UnixMilli(), limit)
	if err != nil {
		return nil, fmt.Errorf("outbox: due dead letters of %s: %w", topic, err)
	}
	return all, nil
}

// Take removes d, as it was read, as part of tx, in which the caller has d's effect. On an ordered
// topic the next one of the key becomes due. The error wraps [ErrNoDeadLetter] if d is not to be
// retried, or was changed.
func (d *DeadLetter) Take(ctx context.Context, tx *sql.Tx) error {
	return d.remove(ctx, tx, "AND state = 'retrying'")
}

// remove deletes d and makes the next one of its key due.
func (d *DeadLetter) remove(ctx context.Context, tx *sql.Tx, condition string) error {
	o, found, err := d.lock(ctx, tx) // before the dead letter, in the same order as everywhere
	if err != nil {
		return err
	}
	err = d.change(ctx, tx, `DELETE FROM kaptar_dead_letters WHERE id = $1 AND rev = $2 `+condition)
	if err == nil && found {
		if err = o.advance(ctx, tx, d.Seq); err != nil {
			err = fmt.Errorf("outbox: dead letter %d: %w", d.ID, err)
		}
	}
	return err
}

func (d *DeadLetter) lock(ctx context.Context, tx *sql.Tx) (o *order, found bool, err error) {
	o = &order{group: d.Group, topic: d.Message.Topic, source: source(&d.Message), key: d.Message.Key}
	if d.Seq == 0 {
		return o, false, nil
	}
	if found, err = o.lock(ctx, tx); err != nil {
		return o, false, fmt.Errorf("outbox: dead letter %d: %w", d.ID, err)
	}
	return o, found, nil
}

// change runs a statement on d's row. $1 and $2 are its ID and Rev.
func (d *DeadLetter) change(ctx context.Context, tx *sql.Tx, statement string, args ...any) error {
	n, err := sqldb.Affected(tx.ExecContext(ctx, statement, append([]any{d.ID, d.Rev}, args...)...))
	if err == nil && n != 1 {
		err = ErrNoDeadLetter
	}
	if err != nil {
		return fmt.Errorf("outbox: dead letter %d: %w", d.ID, err)
	}
	return nil
}

// Failed records, as part of tx, that d, as it was read, has failed again because of reason. It is
// retried at due; the zero time means never.
func (d *DeadLetter) Failed(ctx context.Context, tx *sql.Tx, reason string, due time.Time) error {
	state := Retrying
	if due.IsZero() {
		state = Dead
	}
	return d.change(ctx, tx, `UPDATE kaptar_dead_letters SET state = $3, reason = $4, due_at = $5, last_at = $6,
		attempts = attempts + 1, retries = retries + 1, rev = rev + 1 WHERE id = $1 AND rev = $2`,
		state, cutReason(reason), millis(due), time.Now().UnixMilli())
}

// ReplayDeadLetter makes a dead letter due now, with its attempts set back to 0, as part of tx. One
// that the broker has refused goes back into the outbox. The error wraps [ErrNotFirst] if an
// earlier one of the key is set aside too. Where earlier ones are missing, the key goes on without
// them.
func ReplayDeadLetter(ctx context.Context, tx *sql.Tx, id int64) error {
	d, err := GetDeadLetter(ctx, tx, id)
	if err != nil {
		return err
	}
	if d.Kind == Publish {
		if err := d.remove(ctx, tx, ""); err != nil {
			return err
		}
		return Add(ctx, tx, d.Message)
	}
	first, err := d.first(ctx, tx)
	if err == nil && !first {
		err = fmt.Errorf("outbox: dead letter %d: %w", id, ErrNotFirst)
	}
	if err != nil {
		return err
	}
	return d.change(ctx, tx, `UPDATE kaptar_dead_letters SET state = 'retrying', due_at = $3, attempts = 0, retries = 0, rev = rev + 1
		WHERE id = $1 AND rev = $2`, time.Now().UnixMilli())
}

// DropDeadLetter deletes a dead letter, as part of tx. If it was the first of its key that is set
// aside, the next one becomes due.
func DropDeadLetter(ctx context.Context, tx *sql.Tx, id int64) error {
	d, err := GetDeadLetter(ctx, tx, id)
	if err != nil {
		return err
	}
	first, err := d.first(ctx, tx)
	if err != nil {
		return err
	}
	if first {
		return d.remove(ctx, tx, "")
	}
	return d.change(ctx, tx, `UPDATE kaptar_dead_letters SET state = '`+dropped+`', payload = $3, due_at = NULL, rev = rev + 1
		WHERE id = $1 AND rev = $2`, []byte{})
}

// first locks the key of d and reports whether no earlier one of it is set aside.
func (d *DeadLetter) first(ctx context.Context, tx *sql.Tx) (bool, error) {
	o, found, err := d.lock(ctx, tx)
	if err != nil || !found {
		return err == nil, err
	}
	var earlier bool
	err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM kaptar_dead_letters
		WHERE grp = $1 AND topic = $2 AND source = $3 AND key = $4 AND seq > $5 AND seq < $6)`,
		o.group, o.topic, o.source, o.key, o.handled, d.Seq).Scan(&earlier)
	if err != nil {
		return false, fmt.Errorf("outbox: dead letter %d: %w", d.ID, err)
	}
	return !earlier, nil
}

// Next returns the dead letter that follows d in the order of its key, if it is to be retried, else
// nil.
func (d *DeadLetter) Next(ctx context.Context, q sqldb.Querier) (*DeadLetter, error) {
	all, err := sqldb.Select(ctx, q, scanLetter, "SELECT "+letterColumns+` FROM kaptar_dead_letters
		WHERE grp = $1 AND topic = $2 AND source = $3 AND key = $4 AND seq > $5 AND state = 'retrying' ORDER BY seq LIMIT 1`,
		d.Group, d.Message.Topic, source(&d.Message), d.Message.Key, d.Seq)
	if err != nil {
		return nil, fmt.Errorf("outbox: dead letter after %d: %w", d.ID, err)
	}
	if len(all) == 0 {
		return nil, nil
	}
	return &all[0], nil
}
