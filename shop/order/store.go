package order

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

// A store keeps orders and checkouts. A new status is published in its own transaction.
type store struct {
	db      *sql.DB
	publish func(ctx context.Context, tx *sql.Tx, o order) error
}

// A job is an order in its checkout.
type job struct {
	order
	checkout
	Version     int64
	Traceparent string // of the request that placed the order
}

// errMoved: somebody else has moved the checkout since the job was read.
var errMoved = errors.New("order: the checkout has moved on")

const columns = `id, user_id, status, reason, items, total_cents`

// scan reads columns, and then more. A pending order has no reason yet: that is the checkout's.
func scan(row sqldb.Row, more ...any) (o order, err error) {
	var items string
	err = row.Scan(append([]any{&o.ID, &o.UserID, &o.Status, &o.Reason, &items, &o.TotalCents}, more...)...)
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

// place writes a new order, or returns the one that the user has placed under key, if not "".
func (s *store) place(ctx context.Context, o order, key, traceparent string) (now order, isNew bool, err error) {
	items, err := json.Marshal(o.Items)
	if err != nil {
		return order{}, false, err
	}
	err = sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		at := time.Now().UnixMilli()
		now, err = scan(tx.QueryRowContext(ctx, `
			INSERT INTO orders (user_id, idempotency_key, items, total_cents, status, created_at, step, next_at, traceparent)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (user_id, idempotency_key) DO NOTHING
			RETURNING `+columns,
			o.UserID, sql.NullString{String: key, Valid: key != ""}, string(items), o.TotalCents, pending, at, reserve, at, traceparent))
		isNew = err == nil
		if errors.Is(err, errNoOrder) {
			now, err = scan(tx.QueryRowContext(ctx, `SELECT `+columns+` FROM orders WHERE user_id = $1 AND idempotency_key = $2`, o.UserID, key))
		}
		if err != nil {
			return fmt.Errorf("order: place: %w", err)
		}
		if isNew {
			return s.publish(ctx, tx, now)
		}
		return nil
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

// list returns up to limit orders of the user, the newest first, from below the id before unless 0.
// next is the before of the following page, 0 when there is none.
func (s *store) list(ctx context.Context, user, before int64, limit int) (orders []order, next int64, err error) {
	if before == 0 {
		before = math.MaxInt64
	}
	orders, err = sqldb.Select(ctx, s.db, func(row sqldb.Row) (order, error) { return scan(row) },
		`SELECT `+columns+` FROM orders WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3`, user, before, limit+1)
	if err != nil {
		return nil, 0, fmt.Errorf("order: list: %w", err)
	}
	if len(orders) > limit {
		orders, next = orders[:limit], orders[limit-1].ID
	}
	return orders, next, nil
}

// due returns up to limit jobs whose next step is due, the longest waiting first.
func (s *store) due(ctx context.Context, limit int) ([]job, error) {
	jobs, err := sqldb.Select(ctx, s.db, func(row sqldb.Row) (j job, err error) {
		j.order, err = scan(row, &j.Step, &j.Attempts, &j.checkout.Status, &j.checkout.Reason, &j.Version, &j.Traceparent)
		return j, err
	}, `
		SELECT `+columns+`, step, attempts, status, reason, version, traceparent FROM orders
		WHERE step <> 'done' AND next_at <= $1 ORDER BY next_at, id LIMIT $2`, time.Now().UnixMilli(), limit)
	if err != nil {
		return nil, fmt.Errorf("order: due: %w", err)
	}
	return jobs, nil
}

// move takes j's checkout to after, with its next step due in wait, and publishes
// the end if that is one. It returns errMoved when j is not how it was read.
func (s *store) move(ctx context.Context, j *job, after checkout, wait time.Duration) error {
	moved := *j
	moved.checkout, moved.Version = after, j.Version+1
	moved.order.Status, moved.order.Reason = after.Status, after.Reason
	err := sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `
			UPDATE orders SET step = $1, attempts = $2, status = $3, reason = $4, next_at = $5, version = $6
			WHERE id = $7 AND version = $8`,
			after.Step, after.Attempts, after.Status, after.Reason, time.Now().Add(wait).UnixMilli(), moved.Version, j.ID, j.Version)
		if err != nil {
			return fmt.Errorf("order: move %d to %s: %w", j.ID, after.Step, err)
		}
		if n, err := r.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return errMoved
		}
		if after.Status == j.order.Status {
			return nil
		}
		return s.publish(ctx, tx, moved.order)
	})
	if err == nil {
		*j = moved
	}
	return err
}
