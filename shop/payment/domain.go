package payment

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/kaptar/kaptar/transport"
)

// A payment is pending until the bank answers, then captured or declined, and at last refunded.
type payment struct {
	OrderID     int64  `json:"order_id"`
	UserID      int64  `json:"user_id"`
	AmountCents int64  `json:"amount_cents"`
	Status      status `json:"status" enum:"pending,captured,declined,refunded"`
	Reason      string `json:"reason,omitempty" doc:"why it was declined"`
}

type status string

const (
	pending  status = "pending"
	captured status = "captured"
	declined status = "declined"
	refunded status = "refunded"
)

var (
	errNoPayment = errors.New("payment: no payment for the order")
	errOther     = errors.New("payment: the order has a payment of another amount or user")
)

// A delay says why a payment stays pending, and when to ask again.
type delay struct {
	Reason     string
	RetryAfter time.Duration
}

// A service charges and refunds orders. What it did for an order it does not do
// again, at the bank neither: the bank is called under a key made of the order's id.
// No transaction is open while the bank is called.
type service struct {
	store *store
	bank  *bank
	log   *slog.Logger
}

// charge asks the bank for the order's money, unless it has answered before. A bank that cannot be
// reached is no error: the payment is still pending, and delay says more.
func (s *service) charge(ctx context.Context, want payment) (payment, *delay, error) {
	p, err := s.store.begin(ctx, want)
	if err != nil {
		return payment{}, nil, err
	}
	if p.AmountCents != want.AmountCents || p.UserID != want.UserID {
		return payment{}, nil, errOther
	}
	return s.ask(ctx, p)
}

// refund gives the order's money back. While it is pending the bank is asked first: nobody else knows
// what became of the charge, and asking for it again under the same key is the way to learn it.
func (s *service) refund(ctx context.Context, order int64) (payment, *delay, error) {
	p, err := s.store.get(ctx, order)
	if err != nil {
		return payment{}, nil, err
	}
	p, wait, err := s.ask(ctx, p)
	if err != nil || wait != nil || p.Status != captured {
		return p, wait, err
	}
	if err := s.bank.refund(ctx, p); err != nil {
		return s.wait(ctx, p, err)
	}
	p, err = s.store.finish(context.WithoutCancel(ctx), p, captured, refunded, "")
	return p, nil, err
}

// ask takes p from pending to what the bank says, and writes that down even if the caller has gone.
func (s *service) ask(ctx context.Context, p payment) (payment, *delay, error) {
	if p.Status != pending {
		return p, nil, nil
	}
	result, reason, err := s.bank.charge(ctx, p)
	if err != nil {
		return s.wait(ctx, p, err)
	}
	p, err = s.store.finish(context.WithoutCancel(ctx), p, pending, result, reason)
	return p, nil, err
}

// wait leaves p as it is, because the bank failed with err.
func (s *service) wait(ctx context.Context, p payment, err error) (payment, *delay, error) {
	if ctx.Err() != nil { // the caller has gone, and the bank need not be at fault
		return payment{}, nil, ctx.Err()
	}
	after := retryAfter(err)
	s.log.WarnContext(ctx, "bank cannot be used", "order_id", p.OrderID, "error", err, "again_in", after)
	return p, &delay{err.Error(), after}, nil
}

// retryAfter is when it makes sense to try the bank again after err.
func retryAfter(err error) time.Duration {
	const usual, least, most = time.Second, 50 * time.Millisecond, 5 * time.Second
	if open, ok := errors.AsType[*transport.OpenError](err); ok {
		return min(max(open.RetryAfter, least), most)
	}
	return usual
}
