// Package edge is the shop's one address for all services, their merged API and a small storefront.
package edge

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httputil"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/cache"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/transport"
)

type settings struct {
	RateLimit     float64      `config:"rate_limit" default:"0" help:"requests a second of one client, by its address; 0 for any number"`
	ForwardedFrom server.Peers `config:"forwarded_from" help:"proxies whose X-Forwarded-For names the client, such as 10.0.0.0/8; default: none"`
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

// A route sends a resource, with everything below it, to the service that owns it.
type route struct{ resource, service string }

// routes are the resources the outside may reach; anything else is not found.
func routes() []route {
	return []route{
		{"users", "user-service"},
		{"login", "user-service"},
		{"refresh", "user-service"},
		{"logout", "user-service"},
		{".well-known", "user-service"},
		{"orders", "order-service"},
		{"stock", "inventory-service"},
		{"payments", "payment-service"},
		{"mails", "notification-service"},
		{"sales", "analytics-service"},
	}
}

//go:embed storefront.html storefront.js storefront.css
var storefront embed.FS

func setup(app *kaptar.App, set *settings) error {
	hold := &app.Server().Limit.Hold
	*hold = cmp.Or(*hold, time.Second)
	if set.RateLimit > 0 {
		counter, err := cache.NewCounter(app)
		if err != nil {
			return err
		}
		app.Use(server.RateLimit(server.RateOptions{Rate: set.RateLimit, ForwardedFrom: set.ForwardedFrom, Counter: counter}))
	}
	if app.Settings().DeadlineFrom == nil {
		app.Server().DeadlineFrom = server.Peers{} // nobody outside has a say in how long our services may take
	}
	if app.Settings().TLS.Client == "" {
		app.Server().CheckPeer = nil // browsers have no certificate
	}
	app.Server().Priority = func(route string) server.Priority {
		if strings.HasPrefix(route, http.MethodGet+" ") {
			return server.Critical // to look at something costs little, and must not wait behind a flood of orders
		}
		return server.Normal
	}
	var services []string
	for _, r := range routes() {
		services = append(services, r.service)
		proxy := newProxy(app, r.service)
		for _, version := range []string{"", "/v1"} {
			for _, method := range []string{"GET ", ""} {
				path := method + version + "/" + r.resource
				app.Handle(path, proxy)
				app.Handle(path+"/{rest...}", proxy)
			}
		}
	}
	app.HandleFunc("GET /openapi.json", serveOpenAPI(app.Client(), slices.Compact(slices.Sorted(slices.Values(services)))))
	app.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	for path, file := range map[string]string{"{$}": "storefront.html", "storefront.js": "storefront.js", "storefront.css": "storefront.css"} {
		app.HandleFunc("GET /"+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
			http.ServeFileFS(w, r, storefront, file)
		})
	}
	return nil
}

// newProxy passes requests on as they are: the services know the plain and the versioned path.
func newProxy(app *kaptar.App, service string) http.Handler {
	return &httputil.ReverseProxy{
		Transport: app.Client().Transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme = "http"
			r.Out.URL.Host = service
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if !errors.Is(err, context.Canceled) {
				app.Logger().WarnContext(r.Context(), "not passed on", "target", service, "error", err)
			}
			server.WriteProblem(w, r, problemOf(w, service, err))
		},
	}
}

// problemOf says what a caller can do about a call to service that failed.
func problemOf(w http.ResponseWriter, service string, err error) server.Problem {
	p := server.Problem{Status: http.StatusBadGateway, Detail: service + " could not be reached", Dependency: server.DependencyOf(err)}
	open, isOpen := errors.AsType[*transport.OpenError](err)
	switch {
	case isOpen:
		seconds := max(1, int(math.Ceil(open.RetryAfter.Seconds())))
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
		p.Status = http.StatusServiceUnavailable
		p.Detail = fmt.Sprintf("%s keeps failing and is not called for the next %d s", service, seconds)
	case errors.Is(err, transport.ErrNoInstances):
		w.Header().Set("Retry-After", "1")
		p.Status, p.Detail = http.StatusServiceUnavailable, service+" is not running"
	case errors.Is(err, context.DeadlineExceeded):
		p.Status, p.Detail = http.StatusGatewayTimeout, service+" did not answer in time"
	}
	return p
}
