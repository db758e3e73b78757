package outbox

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/sqldb"
)

const (
	purgeSlice = 500
	maxSource  = 255 // bytes; an index entry is limited in size
)

// mark does nothing if there is a mark from before sources were stored, which stands for every
// source.
const mark = `INSERT INTO kaptar_inbox (grp, msgid, source, handled_at)
	SELECT $1, $2, $3, CAST($4 AS BIGINT) WHERE NOT EXISTS (SELECT 1 FROM kaptar_inbox WHERE grp = $1 AND msgid = $2 AND source = '*')
	ON CONFLICT DO NOTHING`

// MarkHandled marks m as handled by group, as part of tx. If first is true, the caller has m's
// effect in the same tx. If not, that was committed before, and the message only has to be
// acknowledged. A second transaction with the same mark waits for the first to end.
//
// As in CloudEvents, a message is identified by its source, the header ce-source, together with its
// ID, so two publishers may use the same IDs.
func MarkHandled(ctx context.Context, tx *sql.Tx, group string, m *driver.Message) (first bool, err error) {
	if group == "" || m.ID == "" {
		return false, fmt.Errorf("outbox: inbox mark of group %q, message %q: both must be given", group, m.ID)
	}
	n, err := sqldb.Affected(tx.ExecContext(ctx, mark, group, m.ID, source(m), time.Now().UnixMilli()))
	if err != nil {
		return false, fmt.Errorf("outbox: inbox mark of group %q, message %q: %w", group, m.ID, err)
	}
	return n == 1, nil
}

// source returns the source of m in a form that every database can store.
func source(m *driver.Message) string {
	s := m.Headers.Get(driver.HeaderSource)
	if len(s) > maxSource || s == "*" {
		return fmt.Sprintf("sha256-%x", sha256.Sum256([]byte(s)))
	}
	return sqldb.Text(s)
}

// PurgeInbox deletes the marks that are older than the given age, in transactions of 500 so that
// handlers do not wait long. It returns how many it has deleted, with an error too. A message that
// is redelivered after its mark was purged is handled again, so the age must exceed the time for
// which the broker keeps messages.
func PurgeInbox(ctx context.Context, db *sql.DB, olderThan time.Duration) (int, error) {
	if olderThan <= 0 {
		return 0, errors.New("outbox: purge inbox: the age must be positive")
	}
	before := time.Now().Add(-olderThan).UnixMilli()
	total := 0
	for {
		var n int64
		err := sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) (err error) {
			n, err = sqldb.Affected(tx.ExecContext(ctx, `DELETE FROM kaptar_inbox WHERE (grp, msgid, source) IN
				(SELECT grp, msgid, source FROM kaptar_inbox WHERE handled_at < $1 ORDER BY handled_at LIMIT $2)`, before, purgeSlice))
			return err
		})
		if err != nil {
			return total, fmt.Errorf("outbox: purge inbox: %w", err)
		}
		total += int(n)
		if n < purgeSlice {
			return total, nil
		}
	}
}
