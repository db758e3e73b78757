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
	api := rest.New(app, "Payments")
	huma.Register(api, huma.Operation{
		OperationID: "get-payment", Method: http.MethodGet, Path: "/payments/{order_id}",
		Summary: "The payment of an order", Errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, in *orderPath) (*paymentOutput, error) {
		p, err := st.get(ctx, in.OrderID)
		if errors.Is(err, errNoPayment) {
			return nil, rest.Problem(http.StatusNotFound, err.Error())
		}
		return &paymentOutput{p}, err
	})
}
