package inventory

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaptar/kaptar/shop/internal/rest"
)

type getInput struct {
	SKU string `path:"sku" maxLength:"64" example:"tea"`
}

type setInput struct {
	SKU  string `path:"sku" maxLength:"64" pattern:"^[a-z0-9][a-z0-9._-]*$" example:"tea"`
	Body struct {
		Available  int64  `json:"available" minimum:"0" maximum:"1000000000"`
		PriceCents *int64 `json:"price_cents,omitempty" minimum:"1" maximum:"1000000000" doc:"left out: as it is, or 1000 for a new sku"`
	}
}

type levelOutput struct{ Body level }

func routes(api huma.API, st *store) {
	get := rest.Op("get-stock", "GET /stock/{sku}", "How much there is of a sku", http.StatusNotFound)
	huma.Register(api, get, func(ctx context.Context, in *getInput) (*levelOutput, error) {
		l, err := st.level(ctx, in.SKU)
		if unknown, ok := errors.AsType[*unknownSKUError](err); ok {
			return nil, rest.Problem(http.StatusNotFound, unknown.Error())
		}
		return &levelOutput{l}, err
	})
	set := rest.Op("set-stock", "PUT /stock/{sku}", "Say how much is available of a sku, new or known", http.StatusBadRequest)
	huma.Register(api, set, func(ctx context.Context, in *setInput) (*levelOutput, error) {
		l, err := st.set(ctx, in.SKU, in.Body.Available, in.Body.PriceCents)
		return &levelOutput{l}, err
	})
}
