package inventory

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// A level is how much there is of one sku.
type level struct {
	SKU        string `json:"sku"`
	Available  int64  `json:"available" doc:"what can still be reserved"`
	Reserved   int64  `json:"reserved" doc:"what is set aside for orders that are not shipped yet"`
	PriceCents int64  `json:"price_cents"`
}

// An item is one line of a reservation.
type item struct {
	SKU      string
	Quantity int64
}

// A reservation goes one way only: nothing → reserved → shipped, or from reserved to
// released. A refused one is released from the beginning. released and shipped are final.
type state string

const (
	reserved state = "reserved"
	released state = "released" // also: refused
	shipped  state = "shipped"
)

const maxItems = 100 // of a reservation, or whose prices are asked for

const defaultPrice = 1000 // cents, of a sku that comes without a price

// unknownSKUError says that there is no such sku in the catalogue.
type unknownSKUError struct{ sku string }

func (e *unknownSKUError) Error() string { return fmt.Sprintf("inventory: unknown sku %q", e.sku) }

// errNotReserved: an order is to be shipped for which nothing is set aside.
var errNotReserved = errors.New("inventory: nothing is reserved for the order")

// errOtherItems: an order's items are to be reserved, but it has a reservation of others.
var errOtherItems = errors.New("inventory: other items are reserved for the order")

// sorted returns items by sku, the order in which all transactions lock stock, or what is wrong.
func sorted(items []item) ([]item, error) {
	if len(items) == 0 || len(items) > maxItems {
		return nil, fmt.Errorf("inventory: %d items to reserve; expected 1 to %d", len(items), maxItems)
	}
	items = slices.SortedFunc(slices.Values(items), func(a, b item) int { return cmp.Compare(a.SKU, b.SKU) })
	for i, it := range items {
		if it.Quantity <= 0 {
			return nil, fmt.Errorf("inventory: quantity %d of %q; expected at least 1", it.Quantity, it.SKU)
		}
		if i > 0 && items[i-1].SKU == it.SKU {
			return nil, fmt.Errorf("inventory: %q is there twice; expected one line per sku", it.SKU)
		}
	}
	return items, nil
}
