package gateway

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/cache"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/server"
)

// A Route sends the requests for a resource to the service that owns it.
type Route struct {
	// Resource is the first part of the path: "users" means /users and everything below it.
	Resource string
	// Service is the name of the service. It gets the path unchanged, with the version.
	Service string
	// Versions are the path prefixes of the resource, as in /v1/users; "" means /users. Default: ""
	// and "v1". Each version of a resource may have only one route.
	Versions []string
	// Policy is who may use the route; default: auth.Optional. The service learns who the caller
	// is, and has policies of its own.
	Policy auth.Policy
	// MaxBody is the largest body of a request in bytes; 0 leaves it to the setting max_body.
	MaxBody int64
	// RateLimit is how many requests per second one client may send to this route; 0 means no
	// limit. Settings.RateLimit applies as well.
	RateLimit float64
}

// Options are for New.
type Options struct {
	Routes []Route
	// Policies are for what the service serves besides Routes and /openapi.json, such as a page.
	// New adds its own to them. They may be filled until the service listens.
	Policies auth.Policies
	// Auth has the accepted credentials; with nil they come from the settings auth.…
	Auth *auth.Options
	// Title is that of /openapi.json; default: the name of the service.
	Title string
	// Settings are usually the Settings of the kaptar.Service, or embedded in them; nil is defaults.
	Settings *Settings
}

// Settings are the settings of a gateway. The tags are for package config.
type Settings struct {
	RateLimit     float64      `config:"rate_limit" default:"0" help:"requests per second from one client, by its address; 0 for no limit"`
	ForwardedFrom server.Peers `config:"forwarded_from" help:"proxies in front, such as 10.0.0.0/8, whose X-Forwarded-For names the client; default: none"`
	TestersFrom   server.Peers `config:"testers_from" help:"who may choose the versions of services with the header Kaptar-Version, such as 10.1.0.0/16; default: none"`
	CORSOrigins   []string     `config:"cors_origins" help:"other origins whose pages may call the gateway, such as https://shop.example; default: none"`
	MaxHeader     config.Size  `config:"max_header" default:"32KiB" help:"largest header of a request, 32 bytes for each field included"`
}

type gateway struct {
	app     *kaptar.App
	set     Settings
	origins http.CrossOriginProtection
	counter server.Counter // nil: each instance counts by itself
	buffers buffers

	policies auth.Policies
}

// New makes app a gateway; call it during Setup. It registers the routes and /openapi.json, which
// describes all services behind them, and wraps everything that app serves in the chain of the
// package comment, with auth.Protect. Deadlines and traces of callers are ignored unless the
// settings deadline_from and trace_from name the callers. A request refused for overload is
// answered after a second (limit.hold), and GET requests are admitted first.
func New(app *kaptar.App, opts *Options) error {
	g := &gateway{app: app, policies: opts.Policies, set: *cmp.Or(opts.Settings, new(Settings))}
	if g.policies == nil {
		g.policies = auth.Policies{}
	}
	g.set.MaxHeader = cmp.Or(g.set.MaxHeader, 32<<10)
	for _, origin := range g.set.CORSOrigins {
		if err := g.origins.AddTrustedOrigin(origin); err != nil {
			return fmt.Errorf("gateway: cors_origins: %q: expected an origin such as https://shop.example: %w", origin, err)
		}
	}
	g.serverOptions()
	if err := g.countTogether(opts.Routes); err != nil {
		return err
	}
	app.Use(g.guard, g.rateLimit("", g.set.RateLimit))
	var services []string
	for _, r := range opts.Routes {
		if r.Resource == "" || r.Service == "" || strings.ContainsAny(r.Resource, "/{} ") {
			return fmt.Errorf("gateway: route %q to service %q: expected one part of a path, such as users, and a service", r.Resource, r.Service)
		}
		services = append(services, r.Service)
		g.route(r)
	}
	slices.Sort(services)
	app.HandleFunc("GET /openapi.json", g.openAPI(cmp.Or(opts.Title, app.Name()), slices.Compact(services)))
	g.policies["GET /openapi.json"] = auth.Public()
	return auth.Protect(app, g.policies, opts.Auth)
}

// serverOptions sets the options of a server that anybody can call.
func (g *gateway) serverOptions() {
	o := g.app.Server()
	o.Limit.Hold = cmp.Or(o.Limit.Hold, time.Second)
	if g.app.Settings().TLS.Client == "" {
		o.CheckPeer = nil // browsers have no certificate
	}
	o.VersionFrom = g.set.TestersFrom
	for _, from := range []*server.Peers{&o.DeadlineFrom, &o.TraceFrom, &o.VersionFrom} {
		if *from == nil {
			*from = server.Peers{} // nobody
		}
	}
	if o.AdminFrom == nil {
		o.AdminFrom = server.Peers{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
		if g.set.ForwardedFrom != nil && (g.set.ForwardedFrom.Has("127.0.0.1:1") || g.set.ForwardedFrom.Has("[::1]:1")) {
			o.AdminFrom = server.Peers{} // a proxy on this machine calls for others
		}
	}
	if o.Priority == nil {
		o.Priority = func(route string) server.Priority {
			if strings.HasPrefix(route, http.MethodGet+" ") {
				return server.Critical // reads are cheap, and must not wait behind a flood of orders
			}
			return server.Normal
		}
	}
}

func (g *gateway) route(r Route) {
	h := g.proxy(r.Service)
	if r.MaxBody != 0 {
		h = server.MaxBody(r.MaxBody, h)
	}
	h = g.rateLimit(r.Resource, r.RateLimit)(h)
	if r.Policy.IsZero() {
		r.Policy = auth.Optional()
	}
	if r.Versions == nil {
		r.Versions = []string{"", "v1"}
	}
	for _, version := range r.Versions {
		path := "/" + r.Resource
		if version != "" {
			path = "/" + version + path
		}
		for _, method := range []string{"GET ", ""} { // two, so that they have priorities of their own
			for _, pattern := range []string{method + path, method + path + "/{rest...}"} {
				g.app.Handle(pattern, h)
				g.policies[pattern] = r.Policy
			}
		}
	}
}

// countTogether opens the counter that all instances share, if there is a rate limit.
func (g *gateway) countTogether(routes []Route) error {
	limited := slices.ContainsFunc(routes, func(r Route) bool { return r.RateLimit > 0 })
	if g.set.RateLimit <= 0 && !limited {
		return nil
	}
	counter, err := cache.NewCounter(g.app)
	if err != nil {
		return err
	}
	g.counter = counter
	return nil
}

// rateLimit returns a rate limit of its own for class.
func (g *gateway) rateLimit(class string, rate float64) func(http.Handler) http.Handler {
	opts := server.RateOptions{Rate: rate, ForwardedFrom: g.set.ForwardedFrom}
	if g.counter != nil {
		opts.Counter = counter{g.counter, class}
	}
	return server.RateLimit(opts)
}

// counter counts the clients of one class separately from those of others.
type counter struct {
	server.Counter
	class string
}

func (c counter) Take(ctx context.Context, key string, every time.Duration, burst int) (time.Duration, error) {
	if c.class != "" {
		key = c.class + ":" + key
	}
	return c.Counter.Take(ctx, key, every, burst)
}

// trusts reports whether r comes from a proxy in Settings.ForwardedFrom.
func (g *gateway) trusts(r *http.Request) bool {
	return g.set.ForwardedFrom != nil && g.set.ForwardedFrom.Has(r.RemoteAddr)
}
