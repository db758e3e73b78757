package order

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/saga"
	inventoryv1 "github.com/kaptar/kaptar/shop/proto/inventory/v1"
	paymentv1 "github.com/kaptar/kaptar/shop/proto/payment/v1"
)

// newCheckout defines the checkout: an order is reserved, charged and shipped. If one of the first
// two is refused, the order is cancelled and its reservation released. Once it is paid for there is
// no way back. The order's id makes each call safe to repeat.
func newCheckout(app *kaptar.App, st *store) error {
	inventory := inventoryv1.NewInventoryServiceClient(app.Conn("inventory-service"))
	payment := paymentv1.NewPaymentServiceClient(app.Conn("payment-service"))
	reserve := func(ctx context.Context, o *order) error {
		req := &inventoryv1.ReserveRequest{OrderId: o.ID}
		for _, it := range o.Items {
			req.Items = append(req.Items, &inventoryv1.Item{Sku: it.SKU, Quantity: it.Quantity})
		}
		resp, err := inventory.Reserve(ctx, req)
		if err == nil && !resp.GetReserved() {
			return saga.Refuse(resp.GetReason())
		}
		return answer(err)
	}
	release := func(ctx context.Context, o *order) error {
		_, err := inventory.Release(ctx, &inventoryv1.ReleaseRequest{OrderId: o.ID})
		return err
	}
	charge := func(ctx context.Context, o *order) error {
		resp, err := payment.Charge(ctx, &paymentv1.ChargeRequest{OrderId: o.ID, UserId: o.UserID, AmountCents: o.TotalCents})
		switch {
		case err != nil:
			return answer(err)
		case resp.GetAmountCents() != o.TotalCents || resp.GetUserId() != o.UserID:
			return saga.Refuse(fmt.Sprintf("the payment is of %d cents by user %d", resp.GetAmountCents(), resp.GetUserId()))
		case resp.GetStatus() == paymentv1.PaymentStatus_PAYMENT_STATUS_CAPTURED:
			return nil
		case resp.GetStatus() == paymentv1.PaymentStatus_PAYMENT_STATUS_DECLINED:
			return saga.Refuse("payment declined: " + resp.GetReason())
		case resp.GetStatus() == paymentv1.PaymentStatus_PAYMENT_STATUS_REFUNDED:
			return saga.Refuse("the payment was refunded")
		}
		return saga.After(resp.GetRetryAfter().AsDuration(), fmt.Errorf("payment-service: %s", resp.GetReason()))
	}
	ship := func(ctx context.Context, o *order) error {
		_, err := inventory.Ship(ctx, &inventoryv1.ShipRequest{OrderId: o.ID})
		return err
	}
	checkout, err := saga.New(app, saga.Definition[order]{
		Name: "checkout", MaxBackoff: 5 * time.Second, End: st.end,
		Steps: []saga.Step[order]{
			{Name: "reserve", Do: reserve, Undo: release},
			{Name: "charge", Do: charge, Pivot: true},
			{Name: "ship", Do: ship},
		},
	})
	st.begin = func(ctx context.Context, tx *sql.Tx, o order) error {
		return checkout.Start(ctx, tx, strconv.FormatInt(o.ID, 10), o)
	}
	return err
}

// answer turns "the id belongs to another order" into a refusal, since that will not change.
func answer(err error) error {
	if grpcstatus.Code(err) == codes.AlreadyExists {
		return saga.Refuse(grpcstatus.Convert(err).Message())
	}
	return err
}
