package payment

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

// A store keeps payments. One that is captured is published in the transaction that says so.
type store struct {
	db      *sql.DB
	publish func(ctx context.Context, tx *sql.Tx, p payment) error
}

const columns = `order_id, user_id, amount_cents, status, reason`

func scan(row *sql.Row) (p payment, err error) {
	err = row.Scan(&p.OrderID, &p.UserID, &p.AmountCents, &p.Status, &p.Reason)
	if errors.Is(err, sql.ErrNoRows) {
		err = errNoPayment
	}
	return p, err
}

// get returns the order's payment, or errNoPayment.
func (s *store) get(ctx context.Context, order int64) (payment, error) {
	return scan(s.db.QueryRowContext(ctx, `SELECT `+columns+` FROM payments WHERE order_id = $1`, order))
}

// begin writes p, unless the order has a payment already, and returns the one that it has.
func (s *store) begin(ctx context.Context, p payment) (now payment, err error) {
	err = sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `
			INSERT INTO payments (order_id, user_id, amount_cents, status, changed_at) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (order_id) DO NOTHING`, p.OrderID, p.UserID, p.AmountCents, p.Status, time.Now().UnixMilli())
		if err != nil {
			return fmt.Errorf("payment: begin for order %d: %w", p.OrderID, err)
		}
		now, err = scan(tx.QueryRowContext(ctx, `SELECT `+columns+` FROM payments WHERE order_id = $1`, p.OrderID))
		return err
	})
	return now, err
}

// finish takes the order's payment from one status to the next, unless another call was faster.
func (s *store) finish(ctx context.Context, p payment, from, to status, reason string) (now payment, err error) {
	err = sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		now, err = scan(tx.QueryRowContext(ctx, `
			UPDATE payments SET status = $1, reason = $2, changed_at = $3 WHERE order_id = $4 AND status = $5
			RETURNING `+columns, to, reason, time.Now().UnixMilli(), p.OrderID, from))
		if errors.Is(err, errNoPayment) {
			now, err = scan(tx.QueryRowContext(ctx, `SELECT `+columns+` FROM payments WHERE order_id = $1`, p.OrderID))
			return err
		}
		if err != nil {
			return fmt.Errorf("payment: %s for order %d: %w", to, p.OrderID, err)
		}
		if to == captured {
			return s.publish(ctx, tx, now)
		}
		return nil
	})
	return now, err
}
