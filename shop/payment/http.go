package payment

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/shop/internal/rest"
)

type orderPath struct {
	OrderID int64 `path:"order_id" minimum:"1"`
}

type paymentOutput struct{ Body payment }

func routes(app *kaptar.App, st *store) {
	get := rest.Op("get-payment", "GET /payments/{order_id}", "The payment of an order", http.StatusNotFound)
	huma.Register(rest.New(app, "Payments"), get, func(ctx context.Context, in *orderPath) (*paymentOutput, error) {
		p, err := st.get(ctx, in.OrderID)
		if errors.Is(err, errNoPayment) {
			return nil, rest.Problem(http.StatusNotFound, err.Error())
		}
		return &paymentOutput{p}, err
	})
}
