package inventory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

// A store keeps stock and reservations. Changes are published in the transactions that make them.
type store struct {
	db      *sql.DB
	publish func(ctx context.Context, tx *sql.Tx, now level) error
}

const levelColumns = `sku, available, reserved, price_cents`

func scanLevel(row sqldb.Row) (l level, err error) {
	err = row.Scan(&l.SKU, &l.Available, &l.Reserved, &l.PriceCents)
	return l, err
}

// level returns the stock of sku, or *unknownSKUError.
func (s *store) level(ctx context.Context, sku string) (level, error) {
	l, err := scanLevel(s.db.QueryRowContext(ctx, `SELECT `+levelColumns+` FROM stock WHERE sku = $1`, sku))
	if errors.Is(err, sql.ErrNoRows) {
		return level{}, &unknownSKUError{sku}
	}
	return l, err
}

// set says how much of sku is available. price nil keeps the price; a new sku has defaultPrice.
func (s *store) set(ctx context.Context, sku string, available int64, price *int64) (l level, err error) {
	err = sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		l, err = scanLevel(tx.QueryRowContext(ctx, `
			INSERT INTO stock (sku, available, price_cents, stocked_at)
			VALUES ($1, $2, COALESCE($3, CAST($4 AS BIGINT)), $5)
			ON CONFLICT (sku) DO UPDATE SET
				available   = excluded.available,
				price_cents = COALESCE($3, stock.price_cents),
				stocked_at  = COALESCE(stock.stocked_at, excluded.stocked_at)
			RETURNING `+levelColumns, sku, available, price, defaultPrice, time.Now().UnixMilli()))
		if err != nil {
			return fmt.Errorf("inventory: set stock of %s: %w", sku, err)
		}
		return s.publish(ctx, tx, l)
	})
	return l, err
}

// stockDemo puts n pieces of everything in stock that never was.
func (s *store) stockDemo(ctx context.Context, n int64) error {
	return sqldb.InTx(ctx, s.db, func(ctx context.Context, tx *sql.Tx) error {
		levels, err := sqldb.Select(ctx, tx, scanLevel, `
			UPDATE stock SET available = $1, stocked_at = $2 WHERE stocked_at IS NULL
			RETURNING `+levelColumns, n, time.Now().UnixMilli())
		if err != nil {
			return fmt.Errorf("inventory: stock demo data: %w", err)
		}
		for _, l := range levels {
			if err := s.publish(ctx, tx, l); err != nil {
				return err
			}
		}
		return nil
	})
}
