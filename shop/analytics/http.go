package analytics

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

func routes(api huma.API, sales store) {
	huma.Register(api, huma.Operation{
		OperationID: "get-sales", Summary: "Get what was sold so far", Tags: []string{"sales"},
		Method: http.MethodGet, Path: "/sales",
	}, sales.get)
}

type saleBody struct {
	Quantity   int64 `json:"quantity" example:"2"`
	TotalCents int64 `json:"total_cents" example:"1800"`
}

type salesBody struct {
	Orders        int64               `json:"orders" doc:"Orders confirmed"`
	TotalCents    int64               `json:"total_cents" doc:"What they are worth"`
	CapturedCents int64               `json:"captured_cents" doc:"What was paid"`
	BySKU         map[string]saleBody `json:"by_sku"`
	Placed        int64               `json:"placed" doc:"Orders placed, whatever came of them"`
	Cancelled     int64               `json:"cancelled"`
	Users         int64               `json:"users"`
	StockChanges  int64               `json:"stock_changes"`
}

type salesOutput struct{ Body salesBody }

func (s store) get(ctx context.Context, _ *struct{}) (*salesOutput, error) {
	sums, bySKU, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	out := &salesOutput{salesBody{
		Orders: sums[orders], TotalCents: sums[totalCents], CapturedCents: sums[capturedCents],
		BySKU:  make(map[string]saleBody, len(bySKU)),
		Placed: sums[placed], Cancelled: sums[cancelled], Users: sums[users], StockChanges: sums[stockChanges],
	}}
	for sku, sale := range bySKU {
		out.Body.BySKU[sku] = saleBody(sale)
	}
	return out, nil
}
