package order

import (
	"context"
	"strings"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
	"github.com/kaptar/kaptar/shop/inventory"
	inventoryv1 "github.com/kaptar/kaptar/shop/proto/inventory/v1"
	paymentv1 "github.com/kaptar/kaptar/shop/proto/payment/v1"
)

// TestStrangers has somebody else call the neighbours for orders that are placed later: releases
// and refunds change nothing, and what was charged or reserved for other things is not taken for the
// order's own.
func TestStrangers(t *testing.T) {
	t.Parallel()
	sys, _, _ := start(t)
	stock := inventoryv1.NewInventoryServiceClient(sys.Conn("inventory-service"))
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
			_, err := stock.Release(t.Context(), &inventoryv1.ReleaseRequest{OrderId: id})
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
			_, err := stock.Reserve(t.Context(), &inventoryv1.ReserveRequest{OrderId: id, Items: []*inventoryv1.Item{{Sku: "honey", Quantity: 1}}})
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

// payments is a payment-service that has captured for each order what it likes.
type payments struct {
	paymentv1.UnimplementedPaymentServiceServer
	of map[int64]*paymentv1.ChargeResponse
}

func (p payments) Charge(_ context.Context, req *paymentv1.ChargeRequest) (*paymentv1.ChargeResponse, error) {
	return p.of[req.GetOrderId()], nil
}

func TestPaymentIsCompared(t *testing.T) {
	t.Parallel()
	captured := func(user, cents int64) *paymentv1.ChargeResponse {
		return &paymentv1.ChargeResponse{Status: paymentv1.PaymentStatus_PAYMENT_STATUS_CAPTURED, UserId: user, AmountCents: cents}
	}
	p := payments{of: map[int64]*paymentv1.ChargeResponse{1: captured(1, 1800), 2: captured(1, 1), 3: captured(2, 1800), 4: captured(0, 0)}}
	service := kaptar.Service{Name: "payment-service", Setup: func(app *kaptar.App) error {
		paymentv1.RegisterPaymentServiceServer(app.GRPC(), p)
		return nil
	}}
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("order-service"), Settings: map[string]string{"demo": "true"}},
		Service(), inventory.Service(), users{}.service(), service)
	for id := int64(1); id <= 4; id++ {
		want := cancelled
		if id == 1 {
			want = confirmed
		}
		place(t, sys, "", tea)
		if o := ended(t, sys, 1, id); o.Status != want || want == cancelled && !strings.HasPrefix(o.Reason, "the payment is of ") {
			t.Errorf("%v for 1800 of user 1: %+v; want it %s", p.of[id], o, want)
		}
	}
	wantStock(t, sys, "98/0")
}
