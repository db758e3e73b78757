// Package order is the shop's order-service: it takes orders and takes each one through its
// checkout.
//
// The checkout is a saga, in checkout.go: stock is reserved, money is charged, stock is shipped.
// When one of the first two is refused, the order is cancelled.
package order

import (
	"embed"
	"strconv"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/shop/internal/rest"
	inventoryv1 "github.com/kaptar/kaptar/shop/proto/inventory/v1"
	orderv1 "github.com/kaptar/kaptar/shop/proto/order/v1"
	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
)

//go:embed migrations
var migrations embed.FS

type settings struct {
	CheckoutWait time.Duration `config:"checkout_wait" default:"20s" help:"orders are refused with 503 while a new one would wait longer for its checkout; 0s takes all"`
}

// Service returns order-service.
func Service() kaptar.Service {
	set := new(settings)
	return kaptar.Service{
		Name: "order-service", Version: "v1",
		Listen: ":8082", GRPCListen: ":50052",
		Settings: set,
		Setup:    func(app *kaptar.App) error { return setup(app, set) },
	}
}

// policies say who may see and place orders. Where only the body or the database says whose an
// order is, the handler checks it with ownerOf.
func policies() auth.Policies {
	readers := auth.Any(auth.Owner("user_id"), auth.Scope("orders:read"))
	return auth.Policies{
		"POST /orders":                                 auth.Authenticated(),
		"GET /orders/{user_id}":                        readers,
		"GET /orders/{user_id}/{id}":                   readers,
		orderv1.OrderService_GetOrder_FullMethodName:   auth.Authenticated(),
		orderv1.OrderService_ListOrders_FullMethodName: readers,
	}
}

func ownerOf(user int64) auth.Policy { return auth.Subject(strconv.FormatInt(user, 10)) }

func setup(app *kaptar.App, set *settings) error {
	db, err := app.DB(migrations)
	if err != nil {
		return err
	}
	events, err := newPublishers(app)
	if err != nil {
		return err
	}
	st := &store{db: db, publish: events.publish}
	if err := newCheckout(app, st); err != nil {
		return err
	}
	app.Go("adopt", st.adopt)
	waiting := &backlog{store: st, most: set.CheckoutWait}
	waiting.room.Store(alwaysRoom)
	app.Go("backlog", waiting.run)

	api, err := rest.New(app, "Orders", policies())
	if err != nil {
		return err
	}
	routes(api, &service{
		store: st, backlog: waiting, log: app.Logger(),
		users:     userv1.NewUserServiceClient(app.Conn("user-service")),
		inventory: inventoryv1.NewInventoryServiceClient(app.Conn("inventory-service")),
	})
	orderv1.RegisterOrderServiceServer(app.GRPC(), &rpc{store: st})
	return nil
}
