package analytics

import (
	"context"
)

type salesBody struct {
	Orders        int64           `json:"orders" doc:"Orders confirmed"`
	TotalCents    int64           `json:"total_cents" doc:"What they are worth"`
	CapturedCents int64           `json:"captured_cents" doc:"What was paid"`
	BySKU         map[string]sale `json:"by_sku"`
	Placed        int64           `json:"placed" doc:"Orders placed, whatever came of them"`
	Cancelled     int64           `json:"cancelled"`
	Users         int64           `json:"users"`
	StockChanges  int64           `json:"stock_changes"`
}

type salesOutput struct{ Body salesBody }

func (s store) get(ctx context.Context, _ *struct{}) (*salesOutput, error) {
	sums, bySKU, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	return &salesOutput{salesBody{
		Orders: sums[orders], TotalCents: sums[totalCents], CapturedCents: sums[capturedCents],
		BySKU: bySKU, Placed: sums[placed], Cancelled: sums[cancelled], Users: sums[users], StockChanges: sums[stockChanges],
	}}, nil
}
