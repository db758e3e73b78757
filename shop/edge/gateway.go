// Package edge is the shop's one address for all services, their merged API and a small storefront.
package edge

import (
	"embed"
	"fmt"
	"net/http"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/gateway"
	"github.com/kaptar/kaptar/rollout"
	"github.com/kaptar/kaptar/shop/internal/rest"
)

type settings struct {
	gateway.Settings
	LoginLimit   float64       `config:"login_rate_limit" default:"0" help:"logins a second of one client, by its address; 0 for any number"`
	ReleaseLease time.Duration `config:"release_lease" default:"10s" help:"how long the gateway that controls releases may be silent before another one does"`
}

// Validate refuses a lease that is shorter than a busy machine stands still.
func (s *settings) Validate() error {
	if s.ReleaseLease < time.Second {
		return fmt.Errorf("release_lease %v: expected 1s at least", s.ReleaseLease)
	}
	return nil
}

// Service is the gateway on port 8080. It has no state.
func Service() kaptar.Service {
	set := new(settings)
	return kaptar.Service{
		Name: "gateway", Version: "v1", Listen: ":8080",
		Settings: set,
		Setup:    func(app *kaptar.App) error { return setup(app, set) },
	}
}

//go:embed storefront.html storefront.js storefront.css
var storefront embed.FS

// policy is what the storefront's page may do: use its own files, and call the gateway.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// setup serves the resources that the outside may reach; anything else is not found.
func setup(app *kaptar.App, set *settings) error {
	policies := auth.Policies{"GET /favicon.ico": auth.Public()}
	for path, file := range map[string]string{"{$}": "storefront.html", "storefront.js": "storefront.js", "storefront.css": "storefront.css"} {
		app.HandleFunc("GET /"+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Security-Policy", policy)
			http.ServeFileFS(w, r, storefront, file)
		})
		policies["GET /"+path] = auth.Public()
	}
	app.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	if err := rollout.Control(app, &rollout.Options{Lease: set.ReleaseLease}); err != nil {
		return err
	}
	// Who logs in again may still show a token that has expired.
	return gateway.New(app, &gateway.Options{Title: "Shop", Settings: &set.Settings, Policies: policies, Auth: rest.Credentials(), Routes: []gateway.Route{
		{Resource: "users", Service: "user-service"},
		{Resource: "login", Service: "user-service", Policy: auth.Public(), RateLimit: set.LoginLimit},
		{Resource: "refresh", Service: "user-service", Policy: auth.Public(), RateLimit: set.LoginLimit},
		{Resource: "logout", Service: "user-service", Policy: auth.Public()},
		{Resource: ".well-known", Service: "user-service", Policy: auth.Public()},
		{Resource: "orders", Service: "order-service"},
		{Resource: "stock", Service: "inventory-service"},
		{Resource: "payments", Service: "payment-service"},
		{Resource: "mails", Service: "notification-service"},
		{Resource: "sales", Service: "analytics-service"},
	}})
}
