package order

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/shop/internal/rest"
)

type placeInput struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"200" doc:"the same key of the same user is the same order, however often it is sent"`
	Body           struct {
		UserID int64  `json:"user_id" minimum:"1"`
		Items  []line `json:"items" minItems:"1" maxItems:"50"`
	}
}

// line is an item as a client asks for it.
type line struct {
	SKU      string `json:"sku" minLength:"1" maxLength:"64"`
	Quantity int64  `json:"quantity" minimum:"1" maximum:"1000"`
}

type placeOutput struct {
	Replayed string `header:"Idempotent-Replayed" doc:"true when the order was there before"`
	Body     order
}

type listInput struct {
	UserID int64 `path:"user_id" minimum:"1"`
	Limit  int   `query:"limit" minimum:"1" maximum:"100" default:"50"`
	After  int64 `query:"after" minimum:"1" doc:"next of the page before"`
}

type listOutput struct {
	Body struct {
		Orders []order `json:"orders" nullable:"false"`
		Next   string  `json:"next" doc:"after of the next page; empty on the last one"`
	}
}

type getInput struct {
	UserID int64 `path:"user_id" minimum:"1"`
	ID     int64 `path:"id" minimum:"1"`
}

type getOutput struct{ Body order }

func routes(api huma.API, s *service) {
	place := rest.Op("place-order", "POST /orders", "Order something; the answer is a pending order, whose checkout goes on",
		http.StatusBadRequest, http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusServiceUnavailable)
	place.DefaultStatus = http.StatusCreated
	huma.Register(api, place, func(ctx context.Context, in *placeInput) (*placeOutput, error) {
		if err := auth.Check(ctx, auth.Any(ownerOf(in.Body.UserID), auth.Scope("orders:write"))); err != nil {
			return nil, err
		}
		items := make([]item, len(in.Body.Items))
		for i, l := range in.Body.Items {
			items[i] = item{SKU: l.SKU, Quantity: l.Quantity}
		}
		o, replayed, err := s.place(ctx, in.Body.UserID, items, in.IdempotencyKey)
		out := &placeOutput{Body: o}
		if replayed {
			out.Replayed = "true"
		}
		return out, err
	})
	list := rest.Op("list-orders", "GET /orders/{user_id}", "A user's orders, the newest first", http.StatusBadRequest)
	huma.Register(api, list, func(ctx context.Context, in *listInput) (*listOutput, error) {
		out := new(listOutput)
		orders, next, err := s.store.list(ctx, in.UserID, in.After, in.Limit)
		out.Body.Orders = orders
		if next > 0 {
			out.Body.Next = strconv.FormatInt(next, 10)
		}
		return out, err
	})
	get := rest.Op("get-order", "GET /orders/{user_id}/{id}", "One order of a user", http.StatusNotFound)
	huma.Register(api, get, func(ctx context.Context, in *getInput) (*getOutput, error) {
		o, err := s.store.get(ctx, in.ID)
		if errors.Is(err, errNoOrder) || err == nil && o.UserID != in.UserID {
			return nil, rest.Problem(http.StatusNotFound, errNoOrder.Error())
		}
		return &getOutput{o}, err
	})
}
