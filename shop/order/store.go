package order

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/saga"
	"github.com/kaptar/kaptar/sqldb"
)

// A store keeps orders. publish and begin run in the transactions that change them.
type store struct {
	db             *sql.DB
	publish, begin func(ctx context.Context, tx *sql.Tx, o order) error
}

const columns = `id, user_id, status, reason, items, total_cents`

// scan reads columns. It ignores the reason of a pending order, where older versions kept that of
// the checkout.
func scan(row sqldb.Row) (o order, err error) {
	var items string
	err = row.Scan(&o.ID, &o.UserID, &o.Status, &o.Reason, &items, &o.TotalCents)
	if o.Status == pending {
		o.Reason = ""
	}
	if errors.Is(err, sql.ErrNoRows) {
		return o, errNoOrder
	}
	if err == nil {
		err = json.Unmarshal([]byte(items), &o.Items)
	}
	return o, err
}

// place stores a new order and starts its checkout, or returns the one that the user has placed
// under key before.
func (s *store) place(ctx context.Context, o order, key string) (now order, isNew bool, err error) {
	items, err := json.Marshal(o.Items)
	if err != nil {
		return order{}, false, err
	}
	err = sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		// The last two columns tell an older version that runs beside this one to leave the order
		// alone.
		now, err = scan(tx.QueryRowContext(ctx, `
			INSERT INTO orders (user_id, idempotency_key, items, total_cents, status, created_at, step, next_at)
			VALUES ($1, $2, $3, $4, $5, $6, 'done', 0)
			ON CONFLICT (user_id, idempotency_key) DO NOTHING
			RETURNING `+columns,
			o.UserID, sql.NullString{String: key, Valid: key != ""}, string(items), o.TotalCents, pending, time.Now().UnixMilli()))
		isNew = err == nil
		if errors.Is(err, errNoOrder) {
			now, err = scan(tx.QueryRowContext(ctx, `SELECT `+columns+` FROM orders WHERE user_id = $1 AND idempotency_key = $2`, o.UserID, key))
		}
		if err != nil {
			return fmt.Errorf("order: place: %w", err)
		}
		if isNew {
			if err = s.publish(ctx, tx, now); err == nil {
				err = s.begin(ctx, tx, now)
			}
		}
		return err
	})
	return now, isNew, err
}

// byKey returns the order that the user placed under key, or errNoOrder.
func (s *store) byKey(ctx context.Context, user int64, key string) (order, error) {
	return scan(s.db.QueryRowContext(ctx, `SELECT `+columns+` FROM orders WHERE user_id = $1 AND idempotency_key = $2`, user, key))
}

// get returns one order, or errNoOrder.
func (s *store) get(ctx context.Context, id int64) (order, error) {
	return scan(s.db.QueryRowContext(ctx, `SELECT `+columns+` FROM orders WHERE id = $1`, id))
}

// list returns up to limit orders of the user with ids below before, the newest first; before 0 is
// no limit. next is the before of the following page, 0 if there is none.
func (s *store) list(ctx context.Context, user, before int64, limit int) (orders []order, next int64, err error) {
	if before == 0 {
		before = math.MaxInt64
	}
	orders, err = sqldb.Select(ctx, s.db, scan,
		`SELECT `+columns+` FROM orders WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3`, user, before, limit+1)
	if err != nil {
		return nil, 0, fmt.Errorf("order: list: %w", err)
	}
	if len(orders) > limit {
		orders, next = orders[:limit], orders[limit-1].ID
	}
	return orders, next, nil
}

func (s *store) end(ctx context.Context, tx *sql.Tx, o *order, out saga.Outcome) error {
	o.Status, o.Reason = confirmed, out.Reason
	if out.Status == saga.Compensated {
		o.Status = cancelled
	}
	if _, err := tx.ExecContext(ctx, `UPDATE orders SET status = $1, reason = $2 WHERE id = $3`, o.Status, o.Reason, o.ID); err != nil {
		return fmt.Errorf("order: end %d: %w", o.ID, err)
	}
	return s.publish(ctx, tx, *o)
}

const (
	adoptEvery = 5 * time.Second
	adoptMost  = 100 // in one transaction
)

// adopt restarts checkouts that an older version has begun, until ctx ends. Such a version may
// place orders beside this one; each of its steps may be repeated. Remove adopt, with the columns
// step, attempts, next_at, version and traceparent, when no such version can run any more.
func (s *store) adopt(ctx context.Context) error {
	for more := true; more; more = steady.Sleep(ctx, adoptEvery) {
		for n := adoptMost; n == adoptMost && ctx.Err() == nil; {
			err := sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
				orders, err := sqldb.Select(ctx, tx, scan, `
					UPDATE orders SET step = 'done', version = version + 1
					WHERE id IN (SELECT id FROM orders WHERE step <> 'done' ORDER BY next_at LIMIT $1) AND step <> 'done'
					RETURNING `+columns, adoptMost)
				for _, o := range orders {
					err = errors.Join(err, s.begin(ctx, tx, o))
				}
				n = len(orders)
				return err
			})
			if err != nil {
				break // the outage is reported elsewhere
			}
		}
	}
	return nil
}
