package order

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	inventoryv1 "github.com/kaptar/kaptar/shop/proto/inventory/v1"
	paymentv1 "github.com/kaptar/kaptar/shop/proto/payment/v1"
)

// steps does the steps at the other services. The order's id makes each call safe to repeat.
type steps struct {
	inventory inventoryv1.InventoryServiceClient
	payment   paymentv1.PaymentServiceClient
}

// take does one step for o. After an error the other service may have done its part all the same.
func (s *steps) take(ctx context.Context, o order, st step) answer {
	var a answer
	var err error
	switch st {
	case reserve:
		a, err = s.reserve(ctx, o)
	case charge:
		a, err = s.charge(ctx, o)
	case ship:
		_, err = s.inventory.Ship(ctx, &inventoryv1.ShipRequest{OrderId: o.ID})
		a.Outcome = ok
	case release:
		_, err = s.inventory.Release(ctx, &inventoryv1.ReleaseRequest{OrderId: o.ID})
		a.Outcome = ok
	default:
		err = fmt.Errorf("order: unknown step %q", st)
	}
	switch {
	case err == nil:
		return a
	case (st == reserve || st == charge) && grpcstatus.Code(err) == codes.AlreadyExists: // for ever, however often it is tried
		return answer{Outcome: refused, Reason: grpcstatus.Convert(err).Message()}
	}
	return answer{Outcome: again, Reason: err.Error()}
}

func (s *steps) reserve(ctx context.Context, o order) (answer, error) {
	req := &inventoryv1.ReserveRequest{OrderId: o.ID}
	for _, it := range o.Items {
		req.Items = append(req.Items, &inventoryv1.Item{Sku: it.SKU, Quantity: it.Quantity})
	}
	resp, err := s.inventory.Reserve(ctx, req)
	if err != nil || resp.GetReserved() {
		return answer{Outcome: ok}, err
	}
	return answer{Outcome: refused, Reason: resp.GetReason()}, nil
}

func (s *steps) charge(ctx context.Context, o order) (answer, error) {
	resp, err := s.payment.Charge(ctx, &paymentv1.ChargeRequest{OrderId: o.ID, UserId: o.UserID, AmountCents: o.TotalCents})
	if err != nil {
		return answer{}, err
	}
	if resp.GetAmountCents() != o.TotalCents || resp.GetUserId() != o.UserID {
		return answer{Outcome: refused, Reason: fmt.Sprintf("the payment is of %d cents by user %d", resp.GetAmountCents(), resp.GetUserId())}, nil
	}
	switch resp.GetStatus() {
	case paymentv1.PaymentStatus_PAYMENT_STATUS_CAPTURED:
		return answer{Outcome: ok}, nil
	case paymentv1.PaymentStatus_PAYMENT_STATUS_DECLINED:
		return answer{Outcome: refused, Reason: "payment declined: " + resp.GetReason()}, nil
	case paymentv1.PaymentStatus_PAYMENT_STATUS_REFUNDED:
		return answer{Outcome: refused, Reason: "the payment was refunded"}, nil
	}
	return answer{Outcome: again, Reason: resp.GetReason(), After: resp.GetRetryAfter().AsDuration()}, nil
}
