package bank

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaptar/kaptar/shop/internal/rest"
)

func (s *service) routes(api huma.API) {
	charge := rest.Op("charge", "POST /charges", "Take money", http.StatusUnprocessableEntity, http.StatusServiceUnavailable)
	charge.Description = "The answer to one Idempotency-Key is always the same, and its money is taken once."
	huma.Register(api, charge, s.postCharge)
	huma.Register(api, rest.Op("refund", "POST /refunds", "Give money back", http.StatusServiceUnavailable), s.postRefund)
	huma.Register(api, rest.Op("list-charges", "GET /charges", "List and count charges"), s.getCharges)
	huma.Register(api, rest.Op("get-faults", "GET /faults", "Get what is wrong with the bank"), s.getFaults)
	huma.Register(api, rest.Op("set-faults", "PUT /faults", "Set what is wrong with the bank"), s.putFaults)
}

type moneyInput struct {
	Key  string `header:"Idempotency-Key" required:"true" maxLength:"200" example:"order-7"`
	Body struct {
		OrderID     int64 `json:"order_id" minimum:"1" example:"7"`
		AmountCents int64 `json:"amount_cents" minimum:"1" maximum:"100000000000000" example:"1800"`
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
	f := s.switches.Load()
	fault := f.draw()
	if err := fault.Wait(ctx); err != nil {
		return nil, err
	}
	fail := fault.Status != 0
	c := charge{Key: in.Key, OrderID: in.Body.OrderID, AmountCents: in.Body.AmountCents}
	c, err := s.store.request(ctx, c, fail, func() (string, string) {
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
	fault := s.switches.Load().draw()
	if err := fault.Wait(ctx); err != nil {
		return nil, err
	}
	if fault.Status != 0 {
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

type chargesOutput struct {
	Body struct {
		Charges []charge `json:"charges"`
		summary
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
	out.Body.Charges, out.Body.summary = charges, sum
	return out, nil
}

// faultsBody is what is read and sent.
type faultsBody struct{ Body switches }

func (s *service) getFaults(context.Context, *struct{}) (*faultsBody, error) {
	return &faultsBody{*s.switches.Load()}, nil
}

func (s *service) putFaults(_ context.Context, in *faultsBody) (*faultsBody, error) {
	s.switches.Store(&in.Body)
	return in, nil
}
