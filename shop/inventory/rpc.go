package inventory

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	inventoryv1 "github.com/kaptar/kaptar/shop/proto/inventory/v1"
)

// rpc is what order-service calls.
type rpc struct {
	inventoryv1.UnimplementedInventoryServiceServer
	store *store
}

func (r *rpc) Prices(ctx context.Context, req *inventoryv1.PricesRequest) (*inventoryv1.PricesResponse, error) {
	if n := len(req.GetSkus()); n > maxItems {
		return nil, status.Errorf(codes.InvalidArgument, "inventory: prices of %d skus; expected at most %d", n, maxItems)
	}
	prices := make(map[string]int64, len(req.GetSkus()))
	for _, sku := range req.GetSkus() {
		l, err := r.store.level(ctx, sku)
		if unknown, ok := errors.AsType[*unknownSKUError](err); ok {
			return nil, notFound(unknown)
		}
		if err != nil {
			return nil, err
		}
		prices[sku] = l.PriceCents
	}
	return &inventoryv1.PricesResponse{PriceCents: prices}, nil
}

// notFound names the sku in the text and, for programs, as a ResourceInfo.
func notFound(e *unknownSKUError) error {
	s := status.New(codes.NotFound, e.Error())
	if detailed, err := s.WithDetails(&errdetails.ResourceInfo{ResourceType: "sku", ResourceName: e.sku}); err == nil {
		s = detailed
	}
	return s.Err()
}

func (r *rpc) Reserve(ctx context.Context, req *inventoryv1.ReserveRequest) (*inventoryv1.ReserveResponse, error) {
	if err := checkOrder(req.GetOrderId()); err != nil {
		return nil, err
	}
	items := make([]item, len(req.GetItems()))
	for i, it := range req.GetItems() {
		items[i] = item{it.GetSku(), it.GetQuantity()}
	}
	items, err := sorted(items)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	ok, reason, err := r.store.reserve(ctx, req.GetOrderId(), items)
	if errors.Is(err, errOtherItems) {
		return nil, status.Error(codes.AlreadyExists, err.Error())
	}
	if err != nil {
		return nil, err
	}
	return &inventoryv1.ReserveResponse{Reserved: ok, Reason: reason}, nil
}

func (r *rpc) Release(ctx context.Context, req *inventoryv1.ReleaseRequest) (*inventoryv1.ReleaseResponse, error) {
	if err := checkOrder(req.GetOrderId()); err != nil {
		return nil, err
	}
	if err := r.store.release(ctx, req.GetOrderId()); err != nil {
		return nil, err
	}
	return &inventoryv1.ReleaseResponse{}, nil
}

func (r *rpc) Ship(ctx context.Context, req *inventoryv1.ShipRequest) (*inventoryv1.ShipResponse, error) {
	if err := checkOrder(req.GetOrderId()); err != nil {
		return nil, err
	}
	err := r.store.ship(ctx, req.GetOrderId())
	if errors.Is(err, errNotReserved) {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	if err != nil {
		return nil, err
	}
	return &inventoryv1.ShipResponse{}, nil
}

func checkOrder(id int64) error {
	if id <= 0 {
		return status.Errorf(codes.InvalidArgument, "inventory: order id %d; expected a positive number", id)
	}
	return nil
}
