package inventory

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

// reserve sets all items aside for the order, or none; reason says why not. The
// first call for an order decides: the same answer comes at every repetition,
// even when the stock has changed since, so that a late one can do no harm.
// It returns errOtherItems when the first call was for others.
func (s *store) reserve(ctx context.Context, order int64, items []item) (ok bool, reason string, err error) {
	err = sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		first, err := begin(ctx, tx, order)
		if err != nil {
			return err
		}
		if !first {
			ok, reason, err = decided(ctx, tx, order, items)
			return err
		}
		if reason, err = missing(ctx, tx, items); err != nil {
			return err
		}
		ok = reason == ""
		if !ok {
			return refuse(ctx, tx, order, reason)
		}
		for _, it := range items {
			_, err := tx.ExecContext(ctx, `INSERT INTO reservation_items (order_id, sku, quantity) VALUES ($1, $2, $3)`, order, it.SKU, it.Quantity)
			if err != nil {
				return fmt.Errorf("inventory: reserve for order %d: %w", order, err)
			}
		}
		return s.move(ctx, tx, items, -1, +1)
	})
	return ok, reason, err
}

// release puts back what is reserved; a repeated reserve then has no effect. An order that nothing
// was reserved for leaves no trace: order-service releases only what it knows to be reserved, and
// nobody else may keep its order from being reserved later.
func (s *store) release(ctx context.Context, order int64) error {
	return sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		items, err := finish(ctx, tx, order, released)
		if err != nil {
			return err
		}
		return s.move(ctx, tx, items, +1, -1)
	})
}

// ship takes what is reserved for the order out of the stock, or returns errNotReserved.
func (s *store) ship(ctx context.Context, order int64) error {
	return sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		items, err := finish(ctx, tx, order, shipped)
		if err != nil {
			return err
		}
		if len(items) > 0 {
			return s.move(ctx, tx, items, 0, -1)
		}
		var now state
		err = tx.QueryRowContext(ctx, `SELECT state FROM reservations WHERE order_id = $1`, order).Scan(&now)
		if errors.Is(err, sql.ErrNoRows) || err == nil && now != shipped {
			return errNotReserved
		}
		return err
	})
}

// begin writes the order's reservation; of two transactions at once the second waits for the first.
func begin(ctx context.Context, tx *sql.Tx, order int64) (first bool, err error) {
	return changes(tx.ExecContext(ctx, `
		INSERT INTO reservations (order_id, state, changed_at) VALUES ($1, $2, $3)
		ON CONFLICT (order_id) DO NOTHING`, order, reserved, time.Now().UnixMilli()))
}

// decided is the answer that an earlier reserve or release settled.
func decided(ctx context.Context, tx *sql.Tx, order int64, items []item) (ok bool, reason string, err error) {
	var now state
	if err := tx.QueryRowContext(ctx, `SELECT state, reason FROM reservations WHERE order_id = $1`, order).Scan(&now, &reason); err != nil {
		return false, "", fmt.Errorf("inventory: reservation of order %d: %w", order, err)
	}
	if now == released {
		return false, cmp.Or(reason, "the order was released"), nil
	}
	held, err := reservedFor(ctx, tx, order)
	if err == nil && !slices.Equal(held, items) {
		err = errOtherItems
	}
	return err == nil, "", err
}

// missing says which items the stock does not suffice for. It locks their rows, in that order, by an
// update that leaves the key alone: SQLite would look for every reservation of the old one.
func missing(ctx context.Context, tx *sql.Tx, items []item) (reason string, err error) {
	for _, it := range items {
		var available int64
		err := tx.QueryRowContext(ctx, `UPDATE stock SET available = available WHERE sku = $1 RETURNING available`, it.SKU).Scan(&available)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return "unknown sku " + it.SKU, nil
		case err != nil:
			return "", fmt.Errorf("inventory: stock of %s: %w", it.SKU, err)
		case available < it.Quantity:
			return fmt.Sprintf("out of stock: %s (%d wanted, %d available)", it.SKU, it.Quantity, available), nil
		}
	}
	return "", nil
}

// refuse makes the reservation that begin wrote a final no.
func refuse(ctx context.Context, tx *sql.Tx, order int64, reason string) error {
	_, err := tx.ExecContext(ctx, `UPDATE reservations SET state = $1, reason = $2 WHERE order_id = $3`, released, reason, order)
	return err
}

// finish takes the order's reservation from reserved to last; it has no items if it was another.
func finish(ctx context.Context, tx *sql.Tx, order int64, last state) ([]item, error) {
	done, err := changes(tx.ExecContext(ctx, `
		UPDATE reservations SET state = $1, changed_at = $2 WHERE order_id = $3 AND state = $4`,
		last, time.Now().UnixMilli(), order, reserved))
	if err != nil || !done {
		return nil, err
	}
	return reservedFor(ctx, tx, order)
}

// reservedFor returns the items of the order's reservation by sku.
func reservedFor(ctx context.Context, tx *sql.Tx, order int64) ([]item, error) {
	return sqldb.Select(ctx, tx, func(row sqldb.Row) (it item, err error) {
		err = row.Scan(&it.SKU, &it.Quantity)
		return it, err
	}, `SELECT sku, quantity FROM reservation_items WHERE order_id = $1 ORDER BY sku`, order)
}

// move changes the levels of items: each quantity times available and times reserved.
func (s *store) move(ctx context.Context, tx *sql.Tx, items []item, available, reserved int64) error {
	for _, it := range items {
		l, err := scanLevel(tx.QueryRowContext(ctx, `
			UPDATE stock SET available = available + $1, reserved = reserved + $2 WHERE sku = $3
			RETURNING `+levelColumns, available*it.Quantity, reserved*it.Quantity, it.SKU))
		if err != nil {
			return fmt.Errorf("inventory: stock of %s: %w", it.SKU, err)
		}
		if err := s.publish(ctx, tx, l); err != nil {
			return err
		}
	}
	return nil
}

// changes reports whether a statement changed a row.
func changes(r sql.Result, err error) (bool, error) {
	n, err := sqldb.Affected(r, err)
	return n > 0, err
}
