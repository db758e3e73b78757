package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

const purgeSlice = 500

// Once marks the message msgID as handled by group, as part of tx. It returns true the first time; then the caller does
// the effect in the same tx. False means that it was committed before, and nothing is to be done but to acknowledge the
// message. A second transaction with the same mark waits for the first to end.
func Once(ctx context.Context, tx *sql.Tx, group, msgID string) (first bool, err error) {
	if group == "" || msgID == "" {
		return false, fmt.Errorf("outbox: inbox mark of group %q, message %q: both must be given", group, msgID)
	}
	res, err := tx.ExecContext(ctx, `INSERT INTO kaptar_inbox (grp, msgid, handled_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		group, msgID, time.Now().UnixMilli())
	if err != nil {
		return false, fmt.Errorf("outbox: inbox mark of group %q, message %q: %w", group, msgID, err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return false, fmt.Errorf("outbox: inbox mark of group %q, message %q: %w", group, msgID, err)
	}
	return n == 1, nil
}

// PurgeInbox deletes the marks that are older than the given age, 500 a transaction so that handlers are not kept
// waiting, and returns how many it deleted, also beside an error. A message that comes again after its mark is purged
// is handled again: the age must exceed the time that the broker keeps messages.
func PurgeInbox(ctx context.Context, db *sql.DB, olderThan time.Duration) (int, error) {
	if olderThan <= 0 {
		return 0, errors.New("outbox: purge inbox: the age must be positive")
	}
	before := time.Now().Add(-olderThan).UnixMilli()
	total := 0
	for {
		var n int64
		err := sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
			res, err := tx.ExecContext(ctx, `DELETE FROM kaptar_inbox WHERE (grp, msgid) IN
				(SELECT grp, msgid FROM kaptar_inbox WHERE handled_at < $1 ORDER BY handled_at LIMIT $2)`, before, purgeSlice)
			if err != nil {
				return err
			}
			n, err = res.RowsAffected()
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
