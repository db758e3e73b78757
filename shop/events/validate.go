package events

import (
	"errors"
	"fmt"
	"math"
)

// MaxCents is the most that an order can cost: 50 items, 1000 pieces of each, at a price of up to a
// thousand million cents. The sum of 100,000 such amounts fits into an int64.
const MaxCents = 50 * 1000 * 1_000_000_000

// between returns an error unless least ≤ n ≤ most.
func between(what string, n, least, most int64) error {
	if n < least || n > most {
		return fmt.Errorf("events: %s %d: expected %d to %d", what, n, least, most)
	}
	return nil
}

func id(what string, n int64) error { return between(what, n, 1, math.MaxInt64) }

func text(what, s string, least, most int64) error {
	return between("length of "+what, int64(len(s)), least, most)
}

// Validate returns an error if u cannot be a user of user-service.
func (u UserV1) Validate() error {
	return errors.Join(id("user_id", u.UserID), text("username", u.Username, 1, 80), text("email", u.Email, 1, 120))
}

// Validate returns an error if o cannot be an order.
func (o OrderV1) Validate() error {
	errs := []error{
		id("order_id", o.OrderID), id("user_id", o.UserID), between("number of items", int64(len(o.Items)), 1, 50),
		text("reason", o.Reason, 0, 4096),
	}
	var total int64
	for _, i := range o.Items[:min(len(o.Items), 50)] {
		err := errors.Join(text("sku", i.SKU, 1, 64), between("quantity", i.Quantity, 1, 1000), between("price_cents", i.PriceCents, 0, 1_000_000_000))
		if errs = append(errs, err); err == nil {
			total += i.Quantity * i.PriceCents
		}
	}
	return errors.Join(append(errs, between("total_cents", o.TotalCents, total, total))...)
}

// Validate returns an error if s cannot be the stock of a sku.
func (s StockChangedV1) Validate() error {
	return errors.Join(text("sku", s.SKU, 1, 64), between("available", s.Available, 0, MaxCents), between("reserved", s.Reserved, 0, MaxCents))
}

// Validate returns an error if p cannot be a payment.
func (p PaymentCapturedV1) Validate() error {
	return errors.Join(id("order_id", p.OrderID), id("user_id", p.UserID), between("amount_cents", p.AmountCents, 1, MaxCents))
}

// Validate returns an error if m cannot be a mail.
func (m EmailSendV1) Validate() error {
	return errors.Join(id("user_id", m.UserID), text("subject", m.Subject, 1, 500), text("body", m.Body, 0, 64<<10))
}
