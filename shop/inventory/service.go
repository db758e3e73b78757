// Package inventory is inventory-service: what is in stock, its price, what is reserved for whom.
package inventory

import (
	"context"
	"database/sql"
	"embed"
	"strings"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/shop/events"
	"github.com/kaptar/kaptar/shop/internal/rest"
	inventoryv1 "github.com/kaptar/kaptar/shop/proto/inventory/v1"
)

//go:embed migrations
var migrations embed.FS

type settings struct {
	Demo bool `config:"demo" help:"fill the shop with demo data"`
}

// Service returns inventory-service.
func Service() kaptar.Service {
	set := new(settings)
	return kaptar.Service{
		Name: "inventory-service", Version: "v1",
		Listen: ":8083", GRPCListen: ":50053",
		Settings: set,
		Setup:    func(app *kaptar.App) error { return setup(app, set) },
	}
}

func setup(app *kaptar.App, set *settings) error {
	db, err := app.DB(migrations)
	if err != nil {
		return err
	}
	changed, err := messaging.NewPublisher(app, events.StockChanged)
	if err != nil {
		return err
	}
	st := &store{db: db, publish: func(ctx context.Context, tx *sql.Tx, l level) error {
		return changed.Publish(ctx, tx, l.SKU, events.StockChangedV1{SKU: l.SKU, Available: l.Available, Reserved: l.Reserved})
	}}
	inventoryv1.RegisterInventoryServiceServer(app.GRPC(), &rpc{store: st})
	app.Server().Priority = func(route string) server.Priority {
		if strings.HasPrefix(route, "/inventory.v1.") && route != inventoryv1.InventoryService_Prices_FullMethodName {
			return server.Critical // what was ordered comes before what may be
		}
		return server.Normal
	}
	api, err := rest.New(app, "Inventory", auth.Policies{
		"GET /stock/{sku}":                 auth.Public(),
		"PUT /stock/{sku}":                 auth.Any(auth.Scope("stock:write"), auth.Service("customers")),
		"/inventory.v1.InventoryService/*": auth.Service("order-service"),
	})
	if err != nil {
		return err
	}
	routes(api, st)
	if set.Demo {
		return st.stockDemo(context.Background(), 100)
	}
	return nil
}
