package order

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"

	inventoryv1 "github.com/kaptar/kaptar/shop/proto/inventory/v1"
	paymentv1 "github.com/kaptar/kaptar/shop/proto/payment/v1"
)

// TestStrangers has somebody else call the neighbours for orders that are placed later: releases
// and refunds change nothing, and what was charged or reserved for other things is not taken for the
// order's own.
func TestStrangers(t *testing.T) {
	t.Parallel()
	sys, _, _ := start(t)
	inventory := inventoryv1.NewInventoryServiceClient(sys.Conn("inventory-service"))
	payment := paymentv1.NewPaymentServiceClient(sys.Conn("payment-service"))
	for i, test := range []struct {
		before func(id int64) error
		status status
		reason string
	}{
		{func(id int64) error {
			if _, err := payment.Refund(t.Context(), &paymentv1.RefundRequest{OrderId: id}); err == nil {
				t.Error("an order that was never charged can be refunded")
			}
			_, err := inventory.Release(t.Context(), &inventoryv1.ReleaseRequest{OrderId: id})
			return err
		}, confirmed, ""},
		{func(id int64) error {
			_, err := payment.Charge(t.Context(), &paymentv1.ChargeRequest{OrderId: id, UserId: 1, AmountCents: 1})
			return err
		}, cancelled, "another amount or user"},
		{func(id int64) error {
			_, err := payment.Charge(t.Context(), &paymentv1.ChargeRequest{OrderId: id, UserId: 2, AmountCents: 1800})
			return err
		}, cancelled, "another amount or user"},
		{func(id int64) error {
			_, err := inventory.Reserve(t.Context(), &inventoryv1.ReserveRequest{OrderId: id, Items: []*inventoryv1.Item{{Sku: "honey", Quantity: 1}}})
			return err
		}, cancelled, "other items are reserved"},
	} {
		id := int64(i + 1)
		if err := test.before(id); err != nil {
			t.Fatalf("before order %d: %v", id, err)
		}
		if o, resp := place(t, sys, "", tea); o.ID != id {
			t.Fatalf("POST /orders = %d %s; want order %d", resp.Status, resp.Body, id)
		}
		if o := ended(t, sys, 1, id); o.Status != test.status || !strings.Contains(o.Reason, test.reason) {
			t.Errorf("order %d ended as %+v; want it %s: %s", id, o, test.status, test.reason)
		}
	}
	wantStock(t, sys, "98/0")
}

// answers is a payment-service that says what it likes.
type answers struct {
	paymentv1.PaymentServiceClient
	resp *paymentv1.ChargeResponse
}

func (a answers) Charge(context.Context, *paymentv1.ChargeRequest, ...grpc.CallOption) (*paymentv1.ChargeResponse, error) {
	return a.resp, nil
}

func TestPaymentIsCompared(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		user, cents int64
		want        outcome
	}{{1, 1800, ok}, {1, 1, refused}, {2, 1800, refused}, {0, 0, refused}} {
		s := &steps{payment: answers{resp: &paymentv1.ChargeResponse{
			Status: paymentv1.PaymentStatus_PAYMENT_STATUS_CAPTURED, UserId: test.user, AmountCents: test.cents,
		}}}
		if got := s.take(t.Context(), order{ID: 1, UserID: 1, TotalCents: 1800}, charge); got.Outcome != test.want {
			t.Errorf("%d cents captured of user %d, 1800 of user 1 wanted: %+v; want %d", test.cents, test.user, got, test.want)
		}
	}
}
