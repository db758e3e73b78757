package order

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/shop/internal/rest"
	inventoryv1 "github.com/kaptar/kaptar/shop/proto/inventory/v1"
	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
)

// A service takes orders. Its errors are HTTP problems for the client.
type service struct {
	store     *store
	backlog   *backlog
	users     userv1.UserServiceClient
	inventory inventoryv1.InventoryServiceClient
	log       *slog.Logger
}

// place takes an order of items without prices. If the user has sent key before, it returns the
// order of that time.
func (s *service) place(ctx context.Context, user int64, items []item, key string) (o order, replayed bool, err error) {
	if i := repeated(items); i >= 0 {
		return order{}, false, badSKU(items, i, "is there twice; expected one line per sku")
	}
	if key != "" { // before anything else, so that the answer does not depend on other services
		o, err = s.store.byKey(ctx, user, key)
		if !errors.Is(err, errNoOrder) {
			return s.replay(o, items, err)
		}
	}
	if s.backlog.full() {
		return order{}, false, rest.Full("order: too many orders wait for their checkout; nothing was ordered", retryAfter)
	}
	if err := s.checkUser(ctx, user); err != nil {
		return order{}, false, err
	}
	if err := s.price(ctx, items); err != nil {
		return order{}, false, err
	}
	o, isNew, err := s.store.place(ctx, order{UserID: user, Items: items, TotalCents: total(items)}, key)
	if err != nil || !isNew {
		return s.replay(o, items, err)
	}
	return o, false, nil
}

// replay returns the order o that was placed before, if it has the same items.
func (s *service) replay(o order, items []item, err error) (order, bool, error) {
	if err == nil && !sameItems(o.Items, items) {
		err = rest.Problem(http.StatusUnprocessableEntity, errKeyTaken.Error(),
			&huma.ErrorDetail{Location: "header.Idempotency-Key", Message: fmt.Sprintf("order %d was placed with it, for other items", o.ID)})
	}
	return o, err == nil, err
}

func (s *service) checkUser(ctx context.Context, user int64) error {
	_, err := s.users.GetUser(ctx, &userv1.GetUserRequest{Id: user})
	switch {
	case err == nil:
		return nil
	case grpcstatus.Code(err) == codes.NotFound:
		return rest.Problem(http.StatusNotFound, fmt.Sprintf("order: no user %d", user),
			&huma.ErrorDetail{Location: "body.user_id", Message: "there is no such user", Value: user})
	}
	return s.away(ctx, "user-service", err)
}

// price fills in the current price of each item.
func (s *service) price(ctx context.Context, items []item) error {
	req := &inventoryv1.PricesRequest{}
	for _, it := range items {
		req.Skus = append(req.Skus, it.SKU)
	}
	resp, err := s.inventory.Prices(ctx, req)
	if err != nil && grpcstatus.Code(err) != codes.NotFound {
		return s.away(ctx, "inventory-service", err)
	}
	unknown := unknownSKU(err)
	for i, it := range items {
		price, known := resp.GetPriceCents()[it.SKU]
		if err != nil && it.SKU == unknown || err == nil && !known {
			return badSKU(items, i, "is not in the catalogue")
		}
		items[i].PriceCents = price
	}
	if err != nil {
		return s.away(ctx, "inventory-service", err)
	}
	return nil
}

// unknownSKU returns the sku that inventory-service's NOT_FOUND names.
func unknownSKU(err error) string {
	for _, detail := range grpcstatus.Convert(err).Details() {
		if r, ok := detail.(*errdetails.ResourceInfo); ok {
			return r.GetResourceName()
		}
	}
	return ""
}

func badSKU(items []item, i int, what string) error {
	return rest.Problem(http.StatusBadRequest, fmt.Sprintf("order: sku %q %s", items[i].SKU, what),
		&huma.ErrorDetail{Location: fmt.Sprintf("body.items[%d].sku", i), Message: what, Value: items[i].SKU})
}

// away returns an error that asks the client to try again later.
func (s *service) away(ctx context.Context, service string, err error) error {
	s.log.WarnContext(ctx, "order not taken", "target", service, "error", err)
	return rest.Away(service, fmt.Sprintf("order: %s cannot be asked at the moment; nothing was ordered", service), err)
}
