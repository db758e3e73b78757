// Package bank simulates the payment API of a company outside the shop, with
// switches that make it fail, slow down and decline: PUT /faults.
//
// It keeps what any such API promises: one Idempotency-Key is charged at most once,
// whatever happens to requests, answers and the bank itself.
package bank

import (
	"embed"
	"sync/atomic"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/shop/internal/rest"
)

//go:embed migrations
var migrations embed.FS

// Service returns the bank.
func Service() kaptar.Service {
	return kaptar.Service{Name: "bank", Version: "v1", Listen: ":8090", Setup: setup}
}

type service struct {
	store    store
	switches atomic.Pointer[switches]
}

func setup(app *kaptar.App) error {
	db, err := app.DB(migrations)
	if err != nil {
		return err
	}
	s := &service{store: store{db}}
	s.switches.Store(new(switches))
	api, err := rest.New(app, "Bank", auth.Policies{ // it is outside of the shop, and a toy
		"POST /charges": auth.Public(), "GET /charges": auth.Public(), "POST /refunds": auth.Public(),
		"GET /faults": auth.Public(), "PUT /faults": auth.Public(),
	})
	if err != nil {
		return err
	}
	s.routes(api)
	return nil
}
