// Package analytics is analytics-service: what the shop has sold.
//
// It keeps nothing but a read model of the events of all other services from the very first one on.
// To compute another one, give it an empty database and a new name: it reads everything again.
package analytics

import (
	"embed"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/shop/internal/rest"
)

//go:embed migrations
var migrations embed.FS

// Service returns analytics-service.
func Service() kaptar.Service {
	return kaptar.Service{Name: "analytics-service", Version: "v1", Listen: ":8086", Setup: setup}
}

func setup(app *kaptar.App) error {
	db, err := app.DB(migrations)
	if err != nil {
		return err
	}
	sales := store{db}
	api, err := rest.New(app, "Sales", auth.Policies{"GET /sales": auth.Scope("sales:read")})
	if err != nil {
		return err
	}
	huma.Register(api, rest.Op("get-sales", "GET /sales", "Get what was sold so far"), sales.get)
	return subscribe(app, sales)
}
