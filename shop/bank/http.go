package bank

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaptar/kaptar/shop/internal/rest"
)

func (s *service) routes(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "charge", Summary: "Take money", Tags: []string{"bank"},
		Method: http.MethodPost, Path: "/charges",
		Description: "The answer to one Idempotency-Key is always the same, and its money is taken once.",
		Errors:      []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, s.postCharge)
	huma.Register(api, huma.Operation{
		OperationID: "refund", Summary: "Give money back", Tags: []string{"bank"},
		Method: http.MethodPost, Path: "/refunds",
		Errors: []int{http.StatusServiceUnavailable},
	}, s.postRefund)
	huma.Register(api, huma.Operation{
		OperationID: "list-charges", Summary: "List and count charges", Tags: []string{"bank"},
		Method: http.MethodGet, Path: "/charges",
	}, s.getCharges)
	huma.Register(api, huma.Operation{
		OperationID: "get-faults", Summary: "Get what is wrong with the bank", Tags: []string{"faults"},
		Method: http.MethodGet, Path: "/faults",
	}, s.getFaults)
	huma.Register(api, huma.Operation{
		OperationID: "set-faults", Summary: "Set what is wrong with the bank", Tags: []string{"faults"},
		Method: http.MethodPut, Path: "/faults",
	}, s.putFaults)
}

type moneyInput struct {
	Key  string `header:"Idempotency-Key" required:"true" maxLength:"200" example:"order-7"`
	Body struct {
		OrderID     int64 `json:"order_id" minimum:"1" example:"7"`
		AmountCents int64 `json:"amount_cents" minimum:"1" example:"1800"`
	}
}

type resultOutput struct {
	Body struct {
		ID     string `json:"id" example:"order-7"`
		Status string `json:"status" enum:"approved,declined,refunded"`
		Reason string `json:"reason,omitempty" doc:"Why it was declined"`
	}
}

func (s *service) postCharge(ctx context.Context, in *moneyInput) (*resultOutput, error) {
	f := s.faults.get()
	fail, err := f.strike(ctx)
	if err != nil {
		return nil, err
	}
	c := charge{Key: in.Key, OrderID: in.Body.OrderID, AmountCents: in.Body.AmountCents}
	c, err = s.store.request(ctx, c, fail, func() (string, string) {
		if f.decline() {
			return declined, "insufficient funds"
		}
		return approved, ""
	})
	switch {
	case errors.Is(err, errOtherContent):
		return nil, rest.Problem(http.StatusUnprocessableEntity, "the Idempotency-Key belongs to a request with other content",
			&huma.ErrorDetail{Location: "header.Idempotency-Key", Message: "used before with other content", Value: in.Key})
	case err != nil:
		return nil, err
	case fail:
		return nil, errDown()
	}
	out := new(resultOutput)
	out.Body.ID, out.Body.Status, out.Body.Reason = c.Key, c.Status, c.Reason
	return out, nil
}

func (s *service) postRefund(ctx context.Context, in *moneyInput) (*resultOutput, error) {
	fail, err := s.faults.get().strike(ctx)
	if err != nil {
		return nil, err
	}
	if fail {
		return nil, errDown()
	}
	if err := s.store.refund(ctx, in.Key, in.Body.OrderID, in.Body.AmountCents); err != nil {
		return nil, err
	}
	out := new(resultOutput)
	out.Body.ID, out.Body.Status = in.Key, "refunded"
	return out, nil
}

func errDown() error {
	return rest.Problem(http.StatusServiceUnavailable, "the bank is out of order (error_rate of /faults)")
}

type chargesInput struct {
	OrderID int64 `query:"order_id" minimum:"1" doc:"Only the charges of this order"`
	Limit   int   `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

type chargeBody struct {
	Key         string `json:"idempotency_key"`
	OrderID     int64  `json:"order_id"`
	AmountCents int64  `json:"amount_cents"`
	Status      string `json:"status" enum:"undecided,approved,declined" doc:"undecided: every request has failed so far"`
	Reason      string `json:"reason,omitempty"`
	Requests    int64  `json:"requests" doc:"How often it was asked for"`
	Failures    int64  `json:"failures" doc:"How many of these requests were made to fail"`
}

type chargesOutput struct {
	Body struct {
		Charges       []chargeBody `json:"charges"`
		Approved      int64        `json:"approved" doc:"Charges approved, of all there are"`
		ApprovedCents int64        `json:"approved_cents"`
		Declined      int64        `json:"declined"`
		Requests      int64        `json:"requests"`
		Failures      int64        `json:"failures"`
		Refunds       int64        `json:"refunds"`
		RefundedCents int64        `json:"refunded_cents"`
	}
}

func (s *service) getCharges(ctx context.Context, in *chargesInput) (*chargesOutput, error) {
	charges, err := s.store.charges(ctx, in.OrderID, in.Limit)
	if err != nil {
		return nil, err
	}
	sum, err := s.store.summary(ctx)
	if err != nil {
		return nil, err
	}
	out := new(chargesOutput)
	out.Body.Charges = make([]chargeBody, len(charges)) // [] rather than null when there are none
	for i, c := range charges {
		out.Body.Charges[i] = chargeBody(c)
	}
	out.Body.Approved, out.Body.Declined, out.Body.ApprovedCents = sum.Approved, sum.Declined, sum.ApprovedCents
	out.Body.Requests, out.Body.Failures = sum.Requests, sum.Failures
	out.Body.Refunds, out.Body.RefundedCents = sum.Refunds, sum.RefundedCents
	return out, nil
}

type faultsOutput struct{ Body faults }

func (s *service) getFaults(context.Context, *struct{}) (*faultsOutput, error) {
	return &faultsOutput{s.faults.get()}, nil
}

type faultsInput struct{ Body faults }

func (s *service) putFaults(_ context.Context, in *faultsInput) (*faultsOutput, error) {
	s.faults.set(in.Body)
	return &faultsOutput{in.Body}, nil
}
