package bank

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/kaptar/kaptar/sqldb"
)

// What became of a charge.
const (
	undecided = "undecided" // every request for it has failed so far
	approved  = "approved"
	declined  = "declined"
)

// A charge is money taken, or not, for one Idempotency-Key.
type charge struct {
	Key         string `json:"idempotency_key"`
	OrderID     int64  `json:"order_id"`
	AmountCents int64  `json:"amount_cents"`
	Status      string `json:"status" enum:"undecided,approved,declined" doc:"undecided: every request has failed so far"`
	Reason      string `json:"reason,omitempty"`
	Requests    int64  `json:"requests" doc:"How often it was asked for"`
	Failures    int64  `json:"failures" doc:"How many of these requests were made to fail"`
}

// errOtherContent tells that a key is used again for something else.
var errOtherContent = errors.New("bank: this Idempotency-Key belongs to a request with other content")

// store is all the SQL of the bank; it runs on SQLite and PostgreSQL.
type store struct{ db *sql.DB }

// request counts a request for c and, unless fail is set, decides it the first time.
func (s store) request(ctx context.Context, c charge, fail bool, decide func() (status, reason string)) (charge, error) {
	asked := c
	err := sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		c = asked
		err := tx.QueryRowContext(ctx, `
			INSERT INTO charges (idempotency_key, order_id, amount_cents, status, reason, requests, failures)
			VALUES ($1, $2, $3, 'undecided', '', 1, 0)
			ON CONFLICT (idempotency_key) DO UPDATE SET requests = charges.requests + 1
			RETURNING order_id, amount_cents, status, reason, requests, failures`, c.Key, c.OrderID, c.AmountCents).
			Scan(&c.OrderID, &c.AmountCents, &c.Status, &c.Reason, &c.Requests, &c.Failures)
		switch {
		case err != nil:
			return fmt.Errorf("bank: count request %s: %w", c.Key, err)
		case c.OrderID != asked.OrderID || c.AmountCents != asked.AmountCents:
			return errOtherContent
		case fail:
			c.Failures++
		case c.Status == undecided:
			c.Status, c.Reason = decide()
		default:
			return nil
		}
		_, err = tx.ExecContext(ctx, `UPDATE charges SET status = $1, reason = $2, failures = $3 WHERE idempotency_key = $4`,
			c.Status, c.Reason, c.Failures, c.Key)
		if err != nil {
			return fmt.Errorf("bank: charge %s: %w", c.Key, err)
		}
		return nil
	})
	return c, err
}

// refund gives the money back, once per key.
func (s store) refund(ctx context.Context, key string, orderID, cents int64) error {
	_, err := s.db.ExecContext(ctx, `
		INSERT INTO refunds (idempotency_key, order_id, amount_cents) VALUES ($1, $2, $3)
		ON CONFLICT (idempotency_key) DO NOTHING`, key, orderID, cents)
	if err != nil {
		return fmt.Errorf("bank: refund %s: %w", key, err)
	}
	return nil
}

// summary counts everything that happened.
type summary struct {
	Approved      int64 `json:"approved" doc:"Charges approved, of all there are"`
	ApprovedCents int64 `json:"approved_cents"`
	Declined      int64 `json:"declined"`
	Requests      int64 `json:"requests"`
	Failures      int64 `json:"failures"`
	Refunds       int64 `json:"refunds"`
	RefundedCents int64 `json:"refunded_cents"`
}

func (s store) summary(ctx context.Context) (summary, error) {
	var sum summary
	err := s.db.QueryRowContext(ctx, `
		SELECT coalesce(sum(CASE status WHEN 'approved' THEN 1 ELSE 0 END), 0),
			coalesce(sum(CASE status WHEN 'declined' THEN 1 ELSE 0 END), 0),
			coalesce(sum(CASE status WHEN 'approved' THEN amount_cents ELSE 0 END), 0),
			coalesce(sum(requests), 0), coalesce(sum(failures), 0),
			(SELECT count(*) FROM refunds), (SELECT coalesce(sum(amount_cents), 0) FROM refunds)
		FROM charges`).
		Scan(&sum.Approved, &sum.Declined, &sum.ApprovedCents, &sum.Requests, &sum.Failures, &sum.Refunds, &sum.RefundedCents)
	if err != nil {
		return summary{}, fmt.Errorf("bank: summary: %w", err)
	}
	return sum, nil
}

// charges returns up to limit charges, of one order if orderID is not 0, the last orders first.
func (s store) charges(ctx context.Context, orderID int64, limit int) ([]charge, error) {
	all, err := sqldb.Select(ctx, s.db, func(row sqldb.Row) (c charge, err error) {
		err = row.Scan(&c.Key, &c.OrderID, &c.AmountCents, &c.Status, &c.Reason, &c.Requests, &c.Failures)
		return c, err
	}, `
		SELECT idempotency_key, order_id, amount_cents, status, reason, requests, failures FROM charges
		WHERE order_id = $1 OR $1 = 0 ORDER BY order_id DESC, idempotency_key LIMIT $2`, orderID, limit)
	if err != nil {
		return nil, fmt.Errorf("bank: charges: %w", err)
	}
	return all, nil
}
