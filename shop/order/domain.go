package order

import (
	"cmp"
	"errors"
	"slices"
)

// An order is what a user has ordered, at the prices of that time.
type order struct {
	ID         int64  `json:"id"`
	UserID     int64  `json:"user_id"`
	Status     status `json:"status" enum:"pending,confirmed,cancelled"`
	Reason     string `json:"reason,omitempty" doc:"why it was cancelled"`
	Items      []item `json:"items"`
	TotalCents int64  `json:"total_cents"`
}

// A status is what users see of the checkout.
type status string

const (
	pending   status = "pending"
	confirmed status = "confirmed"
	cancelled status = "cancelled"
)

// An item is one line of an order.
type item struct {
	SKU        string `json:"sku"`
	Quantity   int64  `json:"quantity"`
	PriceCents int64  `json:"price_cents" doc:"of one piece"`
}

var (
	errNoOrder  = errors.New("order: no such order")
	errKeyTaken = errors.New("order: the idempotency key was used for another order")
)

func total(items []item) (cents int64) {
	for _, it := range items {
		cents += it.Quantity * it.PriceCents
	}
	return cents
}

// sameItems reports whether a and b ask for the same things, in any order and at any price.
func sameItems(a, b []item) bool {
	bySKU := func(x, y item) int { return cmp.Compare(x.SKU, y.SKU) }
	return slices.EqualFunc(slices.SortedFunc(slices.Values(a), bySKU), slices.SortedFunc(slices.Values(b), bySKU),
		func(x, y item) bool { return x.SKU == y.SKU && x.Quantity == y.Quantity })
}

// repeated returns the index of the first item whose sku has occurred before, or -1.
func repeated(items []item) int {
	seen := make(map[string]bool, len(items))
	for i, it := range items {
		if seen[it.SKU] {
			return i
		}
		seen[it.SKU] = true
	}
	return -1
}
