package analytics

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"

	"github.com/kaptar/kaptar/shop/events"
	"github.com/kaptar/kaptar/sqldb"
)

// totals are sums by name.
type totals map[string]int64

// The names.
const (
	users         = "users"
	placed        = "placed"
	orders        = "orders"
	cancelled     = "cancelled"
	totalCents    = "total_cents"
	capturedCents = "captured_cents"
	stockChanges  = "stock_changes"
)

// A sale is what was sold of one sku.
type sale struct {
	Quantity   int64 `json:"quantity" example:"2"`
	TotalCents int64 `json:"total_cents" example:"1800"`
}

// store is all the SQL of analytics-service; it runs on SQLite and PostgreSQL. Sums, of what is not
// negative, end at the largest integer: beyond it PostgreSQL fails, for ever, and SQLite goes on with
// floats, which nobody here reads.
type store struct{ db *sql.DB }

// addTotals adds to the sums, in order of name, so that no two transactions wait for each other.
func (s store) addTotals(ctx context.Context, tx *sql.Tx, t totals) error {
	for _, name := range slices.Sorted(maps.Keys(t)) {
		_, err := tx.ExecContext(ctx, `
			INSERT INTO totals (name, value) VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET value = CASE
				WHEN totals.value > 9223372036854775807 - excluded.value THEN 9223372036854775807
				ELSE totals.value + excluded.value END`, name, t[name])
		if err != nil {
			return fmt.Errorf("analytics: add %s: %w", name, err)
		}
	}
	return nil
}

// addItems adds to what was sold, in order of sku for the same reason.
func (s store) addItems(ctx context.Context, tx *sql.Tx, items []events.ItemV1) error {
	bySKU := slices.SortedFunc(slices.Values(items), func(a, b events.ItemV1) int { return cmp.Compare(a.SKU, b.SKU) })
	for _, i := range bySKU {
		_, err := tx.ExecContext(ctx, `
			INSERT INTO sales_by_sku (sku, quantity, total_cents) VALUES ($1, $2, $3)
			ON CONFLICT (sku) DO UPDATE SET
				quantity = CASE WHEN sales_by_sku.quantity > 9223372036854775807 - excluded.quantity
					THEN 9223372036854775807 ELSE sales_by_sku.quantity + excluded.quantity END,
				total_cents = CASE WHEN sales_by_sku.total_cents > 9223372036854775807 - excluded.total_cents
					THEN 9223372036854775807 ELSE sales_by_sku.total_cents + excluded.total_cents END`,
			i.SKU, i.Quantity, i.Quantity*i.PriceCents)
		if err != nil {
			return fmt.Errorf("analytics: add sale of %s: %w", i.SKU, err)
		}
	}
	return nil
}

// read returns the whole read model. Totals that nothing was added to are missing.
func (s store) read(ctx context.Context) (totals, map[string]sale, error) {
	sums, bySKU := make(totals), make(map[string]sale)
	_, err := sqldb.Select(ctx, s.db, func(row sqldb.Row) (none struct{}, err error) {
		var kind, name string
		var value, cents int64
		err = row.Scan(&kind, &name, &value, &cents)
		if kind == "sale" {
			bySKU[name] = sale{value, cents}
		} else {
			sums[name] = value
		}
		return none, err
	}, `SELECT 'total', name, value, 0 FROM totals UNION ALL SELECT 'sale', sku, quantity, total_cents FROM sales_by_sku`)
	if err != nil {
		return nil, nil, fmt.Errorf("analytics: read: %w", err)
	}
	return sums, bySKU, nil
}
