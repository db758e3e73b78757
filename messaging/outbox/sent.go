package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

const (
	sentEvery   = time.Minute
	sentSlice   = 2000
	resendSlice = 500
)

// These statements take a list of ids, in PostgreSQL's syntax; see anyOf.
const (
	keepSent = `INSERT INTO kaptar_outbox_sent (id, msgid, topic, key, headers, payload, raw, created_at, sent_at)
		SELECT id, msgid, topic, key, headers, payload, raw, created_at, $1 FROM kaptar_outbox WHERE id = ANY($2) ON CONFLICT (id) DO NOTHING`
	deleteSent = `DELETE FROM kaptar_outbox WHERE id = ANY($1)`
	putBack    = `INSERT INTO kaptar_outbox (msgid, topic, key, headers, payload, raw, created_at)
		SELECT msgid, topic, key, headers, payload, raw, $1 FROM kaptar_outbox_sent WHERE id = ANY($2) ORDER BY id`
	deletePut = `DELETE FROM kaptar_outbox_sent WHERE id = ANY($1)`
)

var anyOfLists = strings.NewReplacer("= ANY($1)", "IN (SELECT value FROM json_each($1))",
	"= ANY($2)", "IN (SELECT value FROM json_each($2))", "= ANY($3)", "IN (SELECT value FROM json_each($3))")

// anyOf returns a statement that takes a list of values, and the list, as dialect has them.
func anyOf[T int64 | string](dialect sqldb.Dialect, values []T) (statement func(string) string, list any) {
	if dialect == sqldb.SQLite {
		text, _ := json.Marshal(values) //nolint:errchkjson // neither has a value that cannot be written
		return anyOfLists.Replace, string(text)
	}
	return strings.Clone, values // pgx takes the slice as an array
}

// remove deletes rows that were sent, and moves them to kaptar_outbox_sent if they are to be kept.
func (r *Relay) remove(ctx context.Context, ids []int64) error {
	dialect := sqldb.DialectOf(r.db)
	statement, list := anyOf(dialect, ids)
	err := sqldb.InTx(ctx, r.db, func(ctx context.Context, tx *sql.Tx) error {
		if dialect == sqldb.Postgres {
			if _, err := tx.ExecContext(ctx, keepIndex); err != nil {
				return err
			}
		}
		if r.keep > 0 {
			if _, err := tx.ExecContext(ctx, statement(keepSent), time.Now().UnixMilli(), list); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, statement(deleteSent), list)
		return err
	})
	if err != nil {
		return fmt.Errorf("outbox: delete %d sent rows: %w", len(ids), err)
	}
	return nil
}

// purge deletes some of the sent events that are older than Keep. While there are more it does so
// at each call, else once a minute.
func (t *turn) purge(ctx context.Context) error {
	if time.Since(t.purged) < sentEvery {
		return nil
	}
	var n int64
	err := sqldb.InTx(ctx, t.db, func(ctx context.Context, tx *sql.Tx) (err error) {
		n, err = sqldb.Affected(tx.ExecContext(ctx, `DELETE FROM kaptar_outbox_sent WHERE id IN (
			SELECT id FROM kaptar_outbox_sent WHERE sent_at < $1 ORDER BY sent_at LIMIT $2)`, time.Now().Add(-t.keep).UnixMilli(), sentSlice))
		return err
	})
	if err != nil {
		return fmt.Errorf("outbox: forget sent events: %w", err)
	}
	if n < sentSlice {
		t.purged = time.Now()
	}
	return nil
}

// Resend puts the events that were sent since a time and are still kept (see RelayOptions.Keep)
// back into the outbox of db, with their ids, and returns how many. It is for a broker that has
// lost its messages: consumers recognise by the id what they have handled, and handle the rest. A
// topic other than "" selects the events of that topic.
//
// The events are sent in their order, after those that wait already. Resend works in slices. When
// it fails, the events that it counts are in the outbox, and the others are still kept.
func Resend(ctx context.Context, db *sql.DB, since time.Time, topic string) (n int, err error) {
	dialect, signal := sqldb.DialectOf(db), sqldb.NewSignal(db, signalName)
	const chosen = " FROM kaptar_outbox_sent WHERE sent_at >= $1 AND ($2 = '' OR topic = $2)"
	// The relay is sending meanwhile, and what was put back gets higher ids.
	var last sql.NullInt64
	if err := db.QueryRowContext(ctx, "SELECT max(id)"+chosen, since.UnixMilli(), topic).Scan(&last); err != nil {
		return 0, fmt.Errorf("outbox: resend: %w", err)
	}
	for {
		var ids []int64
		err := sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) (err error) {
			ids, err = sqldb.Select(ctx, tx, func(row sqldb.Row) (id int64, err error) { return id, row.Scan(&id) },
				"SELECT id"+chosen+" AND id <= $3 ORDER BY id LIMIT $4", since.UnixMilli(), topic, last.Int64, resendSlice)
			if err != nil || len(ids) == 0 {
				return err
			}
			statement, list := anyOf(dialect, ids)
			sqldb.AfterCommit(ctx, signal.Notify)
			if _, err = tx.ExecContext(ctx, statement(putBack), time.Now().UnixMilli(), list); err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, statement(deletePut), list)
			return err
		})
		if err != nil {
			return n, fmt.Errorf("outbox: resend: %w", err)
		}
		if len(ids) == 0 {
			return n, nil
		}
		n += len(ids)
	}
}
