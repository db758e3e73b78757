package payment

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/shop/internal/rest"
)

type orderPath struct {
	OrderID int64 `path:"order_id" minimum:"1"`
}

type paymentOutput struct{ Body payment }

func routes(api huma.API, st *store) {
	get := rest.Op("get-payment", "GET /payments/{order_id}", "The payment of an order", http.StatusNotFound)
	huma.Register(api, get, func(ctx context.Context, in *orderPath) (*paymentOutput, error) {
		p, err := st.get(ctx, in.OrderID)
		if err == nil && auth.Check(ctx, auth.Any(auth.Subject(strconv.FormatInt(p.UserID, 10)), auth.Scope("payments:read"))) != nil {
			err = errNoPayment // which others have made is nobody's business
		}
		if errors.Is(err, errNoPayment) {
			return nil, rest.Problem(http.StatusNotFound, err.Error())
		}
		return &paymentOutput{p}, err
	})
}
