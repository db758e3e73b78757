package outbox

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/sqldb"
)

const maxReason = 16 << 10

// DeadLetter is a message that a group could not handle.
type DeadLetter struct {
	ID       int64 // given by AddDeadLetter
	Group    string
	Message  driver.Message
	Reason   string    // the last error; cut at 16 KiB
	Attempts int       // tries so far; 0 is taken as 1
	FirstAt  time.Time // first failure; zero is taken as LastAt; millisecond precision
	LastAt   time.Time // last failure; zero is taken as now
}

// AddDeadLetter stores d as part of tx, which should be the one with the inbox mark (see
// [MarkHandled]): after its commit the message can be acknowledged. A message that is there already
// for the same group, as after a failed replay, gets the new Reason and LastAt, and the sum of the
// Attempts.
func AddDeadLetter(ctx context.Context, tx *sql.Tx, d DeadLetter) error {
	m := &d.Message
	if d.Group == "" || m.ID == "" {
		return fmt.Errorf("outbox: dead letter %q of group %q: both must be given", m.ID, d.Group)
	}
	headers, err := m.Headers.MarshalJSON()
	if err != nil {
		return fmt.Errorf("outbox: dead letter %q: %w", m.ID, err)
	}
	d.LastAt = cmp.Or(d.LastAt, time.Now())
	d.FirstAt = cmp.Or(d.FirstAt, d.LastAt)
	_, err = tx.ExecContext(ctx, `INSERT INTO kaptar_dead_letters
		(grp, msgid, source, topic, key, headers, payload, raw, reason, attempts, first_at, last_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (grp, msgid, source) DO UPDATE SET reason = excluded.reason, last_at = excluded.last_at,
			attempts = kaptar_dead_letters.attempts + excluded.attempts`,
		d.Group, m.ID, source(m), clean(m.Topic), clean(m.Key), string(headers), payload(m.Data), m.Raw,
		clean(d.Reason[:min(len(d.Reason), maxReason)]), cmp.Or(d.Attempts, 1), d.FirstAt.UnixMilli(), d.LastAt.UnixMilli())
	if err != nil {
		return fmt.Errorf("outbox: dead letter %q of group %q: %w", m.ID, d.Group, err)
	}
	return nil
}

// clean drops what PostgreSQL's text cannot hold: a dead letter must not fail for the oddness that
// made it one.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// DeadLetters returns all dead letters, oldest first, whole: as much memory as they take.
func DeadLetters(ctx context.Context, db *sql.DB) ([]DeadLetter, error) {
	all, err := sqldb.Select(ctx, db, func(row sqldb.Row) (d DeadLetter, err error) {
		var headers []byte
		var first, last int64
		m := &d.Message
		if err := row.Scan(&d.ID, &d.Group, &m.ID, &m.Topic, &m.Key, &headers, &m.Data, &m.Raw, &d.Reason, &d.Attempts, &first, &last); err != nil {
			return d, err
		}
		d.FirstAt, d.LastAt = time.UnixMilli(first), time.UnixMilli(last)
		return d, m.Headers.UnmarshalJSON(headers)
	}, `SELECT id, grp, msgid, topic, key, headers, payload, raw, reason, attempts, first_at, last_at FROM kaptar_dead_letters ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("outbox: dead letters: %w", err)
	}
	return all, nil
}
