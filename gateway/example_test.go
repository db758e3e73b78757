package gateway_test

import (
	"fmt"
	"net/http"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/gateway"
)

// A gateway is a service like any other: this one is the address of two that own users and orders.
// What is not among its routes, such as /metrics of a service, is not found.
func ExampleNew() {
	set := new(gateway.Settings)
	service := kaptar.Service{Name: "gateway", Version: "v1", Settings: set, Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, "see /openapi.json")
		})
		policies := auth.Policies{"GET /{$}": auth.Public()}
		return gateway.New(app, &gateway.Options{Settings: set, Policies: policies, Routes: []gateway.Route{
			{Resource: "users", Service: "user-service"},
			{Resource: "login", Service: "user-service", RateLimit: 5},
			{Resource: "orders", Service: "order-service", Policy: auth.Authenticated(), Versions: []string{"", "v1", "v2"}, MaxBody: 64 << 10},
		}})
	}}
	fmt.Println(service.Name) // kaptar.Main(service)
	// Output: gateway
}
