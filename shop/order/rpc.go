package order

import (
	"context"
	"errors"
	"strconv"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/auth"
	orderv1 "github.com/kaptar/kaptar/shop/proto/order/v1"
)

const (
	usualPage   = 50
	longestPage = 100
)

// rpc reads orders for other services.
type rpc struct {
	orderv1.UnimplementedOrderServiceServer
	store *store
}

func (r *rpc) GetOrder(ctx context.Context, req *orderv1.GetOrderRequest) (*orderv1.GetOrderResponse, error) {
	o, err := r.store.get(ctx, req.GetId())
	if err == nil && auth.Check(ctx, auth.Any(ownerOf(o.UserID), auth.Scope("orders:read"))) != nil {
		err = errNoOrder // do not reveal that it exists
	}
	if errors.Is(err, errNoOrder) {
		return nil, grpcstatus.Errorf(codes.NotFound, "order: no order %d", req.GetId())
	}
	if err != nil {
		return nil, err
	}
	return &orderv1.GetOrderResponse{Order: toWire(o)}, nil
}

func (r *rpc) ListOrders(ctx context.Context, req *orderv1.ListOrdersRequest) (*orderv1.ListOrdersResponse, error) {
	size := int(req.GetPageSize())
	if size == 0 {
		size = usualPage
	}
	if size < 0 || size > longestPage {
		return nil, grpcstatus.Errorf(codes.InvalidArgument, "order: page size %d; expected 1 to %d", size, longestPage)
	}
	var before int64
	if token := req.GetPageToken(); token != "" {
		var err error
		if before, err = strconv.ParseInt(token, 10, 64); err != nil || before <= 0 {
			return nil, grpcstatus.Errorf(codes.InvalidArgument, "order: page token %q; expected next_page_token of the page before", token)
		}
	}
	orders, next, err := r.store.list(ctx, req.GetUserId(), before, size)
	if err != nil {
		return nil, err
	}
	resp := new(orderv1.ListOrdersResponse)
	for _, o := range orders {
		resp.Orders = append(resp.Orders, toWire(o))
	}
	if next > 0 {
		resp.NextPageToken = strconv.FormatInt(next, 10)
	}
	return resp, nil
}

func toWire(o order) *orderv1.Order {
	out := &orderv1.Order{Id: o.ID, UserId: o.UserID, Status: onWire[o.Status], Reason: o.Reason, TotalCents: o.TotalCents}
	for _, it := range o.Items {
		out.Items = append(out.Items, &orderv1.Item{Sku: it.SKU, Quantity: it.Quantity, PriceCents: it.PriceCents})
	}
	return out
}

var onWire = map[status]orderv1.OrderStatus{
	pending:   orderv1.OrderStatus_ORDER_STATUS_PENDING,
	confirmed: orderv1.OrderStatus_ORDER_STATUS_CONFIRMED,
	cancelled: orderv1.OrderStatus_ORDER_STATUS_CANCELLED,
}
