package payment

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/kaptar/kaptar/shop/events"
	paymentv1 "github.com/kaptar/kaptar/shop/proto/payment/v1"
)

// rpc is what order-service calls.
type rpc struct {
	paymentv1.UnimplementedPaymentServiceServer
	service *service
}

func (r *rpc) Charge(ctx context.Context, req *paymentv1.ChargeRequest) (*paymentv1.ChargeResponse, error) {
	if req.GetOrderId() <= 0 || req.GetUserId() <= 0 || req.GetAmountCents() <= 0 || req.GetAmountCents() > events.MaxCents {
		return nil, grpcstatus.Errorf(codes.InvalidArgument,
			"payment: charge of %d cents for order %d of user %d; expected all of them positive, and %d cents at most",
			req.GetAmountCents(), req.GetOrderId(), req.GetUserId(), int64(events.MaxCents))
	}
	p, wait, err := r.service.charge(ctx, payment{
		OrderID: req.GetOrderId(), UserID: req.GetUserId(), AmountCents: req.GetAmountCents(), Status: pending,
	})
	if errors.Is(err, errOther) {
		return nil, grpcstatus.Error(codes.AlreadyExists, err.Error())
	}
	if err != nil {
		return nil, err
	}
	resp := &paymentv1.ChargeResponse{Status: onWire[p.Status], Reason: p.Reason, UserId: p.UserID, AmountCents: p.AmountCents}
	if wait != nil {
		resp.Reason, resp.RetryAfter = wait.Reason, durationpb.New(wait.RetryAfter)
	}
	return resp, nil
}

func (r *rpc) Refund(ctx context.Context, req *paymentv1.RefundRequest) (*paymentv1.RefundResponse, error) {
	if req.GetOrderId() <= 0 {
		return nil, grpcstatus.Errorf(codes.InvalidArgument, "payment: refund of order %d; expected a positive id", req.GetOrderId())
	}
	p, wait, err := r.service.refund(ctx, req.GetOrderId())
	if errors.Is(err, errNoPayment) {
		return nil, grpcstatus.Error(codes.NotFound, err.Error())
	}
	if err != nil {
		return nil, err
	}
	resp := &paymentv1.RefundResponse{Status: onWire[p.Status], Reason: p.Reason}
	if wait != nil { // it may be captured already, but the refund is not done
		resp.Status, resp.Reason = paymentv1.PaymentStatus_PAYMENT_STATUS_PENDING, wait.Reason
	}
	return resp, nil
}

var onWire = map[status]paymentv1.PaymentStatus{
	pending:  paymentv1.PaymentStatus_PAYMENT_STATUS_PENDING,
	captured: paymentv1.PaymentStatus_PAYMENT_STATUS_CAPTURED,
	declined: paymentv1.PaymentStatus_PAYMENT_STATUS_DECLINED,
	refunded: paymentv1.PaymentStatus_PAYMENT_STATUS_REFUNDED,
}
