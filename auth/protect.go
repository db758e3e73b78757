package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/kaptar/kaptar"
)

type protectedKey struct{}

// Protect checks the policies of all routes and RPCs of app, and passes the principal of each call
// on to the calls that it makes. Call it once, during Setup; policies may be filled until the
// service listens. The service does not start if a route or RPC has no policy, or a policy has no
// route or RPC. gRPC's health and reflection need no policy.
//
// The settings auth.… override the credentials of opts, which may be nil.
func Protect(app *kaptar.App, policies Policies, opts *Options) error {
	first := false
	_, err := kaptar.Attach(app, protectedKey{}, func() (struct{}, error) { first = true; return struct{}{}, nil })
	if err == nil && !first {
		err = errors.New("auth: Protect was called already: expected one call, with all policies")
	}
	if err != nil {
		return err
	}
	o := *cmp.Or(opts, new(Options))
	o.Credentials = kaptar.SectionOf[Settings](app).Auth.over(&o.Credentials)
	o.Name, o.Client, o.Log, o.Metrics = app.Name(), app.Client(), app.Logger(), app.Metrics()
	a, err := New(&o)
	if err != nil {
		return err
	}
	fixed := table{} // policies, as they are when the service listens
	server, none := app.Server(), new(Policy)
	server.CheckRoutes = func(routes []string) error {
		maps.Copy(fixed, policies.table())
		return fixed.check(routes, a.internal != nil || server.TLS != nil)
	}
	server.RouteMiddleware = append(server.RouteMiddleware, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a.serve(cmp.Or(fixed[r.Pattern], none), h, w, r)
		})
	})
	app.UseGRPC(a.unary(fixed), a.stream(fixed))
	app.Transport().Principal = a.Token
	app.Transport().Sticky = sticky
	app.Go("keys of issuers", a.Run)
	return nil
}

// sticky is the key of transport.Options.Sticky: the subject on whose behalf a call is made.
func sticky(ctx context.Context) string {
	if p := From(ctx); p != nil {
		return p.Subject
	}
	return ""
}

// check returns errors for routes without a policy and for policies that cannot work. It copies
// policies for all methods of a service to each method. callers is true if services can be
// identified.
func (p table) check(routes []string, callers bool) error {
	var errs []error
	used := map[string]bool{}
	for _, route := range routes {
		all := route[:strings.LastIndexByte(route, '/')+1] + "*"
		key := route
		if _, own := p[route]; !own && route[0] == '/' {
			key = all
		}
		policy, ok := p[key]
		if !ok {
			errs = append(errs, fmt.Errorf("auth: %s has no policy: expected one, such as auth.Authenticated(), or auth.Public() for everybody", route))
			continue
		}
		used[key] = true
		p[route], used[route] = policy, true
		parts(policy, func(part *Policy) {
			if err := checkOwner(part, route); err != nil {
				errs = append(errs, fmt.Errorf("auth: policy of %s: %s: %w", route, part, err))
			}
			if part.rule == service && !callers {
				errs = append(errs, fmt.Errorf("auth: policy of %s: %s: nobody can be told to be a service: "+
					"set auth.internal_keys, in AUTH_INTERNAL_KEYS, to a secret of 32 bytes or more that all services share", route, part))
			}
		})
	}
	for _, route := range slices.Sorted(maps.Keys(p)) {
		if !used[route] {
			errs = append(errs, fmt.Errorf("auth: policy for %s: there is no such route or RPC", route))
		}
	}
	return errors.Join(errs...)
}

// checkOwner finds an Owner whose parameter the route does not have.
func checkOwner(p *Policy, route string) error {
	if p.rule != owner {
		return nil
	}
	param := p.names[0]
	if strings.Contains(route, "{"+param+"}") || strings.Contains(route, "{"+param+"...}") {
		return nil
	}
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(route, "/"), "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil && strings.Count(route, "/") == 2 && route[0] == '/' {
		return nil // an RPC that was not made by protoc: its requests show it
	}
	if m, ok := d.(protoreflect.MethodDescriptor); ok {
		field := m.Input().Fields().ByName(protoreflect.Name(param))
		if !m.IsStreamingClient() && !m.IsStreamingServer() && field != nil && !field.IsList() {
			return nil
		}
	}
	return errors.New("expected the name of a value of its path, or of a text or an integer in the request of a unary RPC")
}
