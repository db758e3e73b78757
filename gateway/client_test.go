package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/gateway"
	"github.com/kaptar/kaptar/kaptartest"
)

// TestIdentity: a service learns who calls from the gateway alone, and never sees what they showed.
func TestIdentity(t *testing.T) {
	t.Parallel()
	who := func(w http.ResponseWriter, r *http.Request) {
		p := auth.From(r.Context())
		if p == nil {
			p = new(auth.Principal)
		}
		fmt.Fprintf(w, "%s %v by %s %v", p.Subject, p.Scopes, p.Caller, r.Header["Authorization"])
	}
	users := kaptar.Service{Name: "user-service", Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /v1/users/me", who)
		app.HandleFunc("GET /v1/users/mine", who)
		return auth.Protect(app, auth.Policies{"GET /v1/users/me": auth.Optional(), "GET /v1/users/mine": auth.Authenticated()}, nil)
	}}
	sys := kaptartest.StartWith(t, &kaptartest.Options{Settings: robot}, users, edge(func(o *gateway.Options) {
		o.Routes[1] = gateway.Route{Resource: "orders", Service: "order-service", Policy: auth.Scope("orders:read")}
	}))
	for _, c := range []struct {
		path   string
		header []string
		status int
		body   string
	}{
		{"/v1/users/me", nil, 200, " [] by gateway []"},
		{"/v1/users/mine", nil, 401, ""},
		{"/v1/users/mine", []string{"X-Api-Key", "robot's"}, 200, "key:robot [users:read] by gateway []"},
		{"/v1/users/me", []string{"X-Api-Key", "robot's", "Kaptar-Principal", "a.b.c"}, 200, "key:robot [users:read] by gateway []"},
		{"/v1/users/me", []string{"X-Api-Key", "wrong"}, 401, ""},
		{"/v1/users/me", []string{"Authorization", "Bearer a.b.c"}, 401, ""},
		{"/v1/users/me", []string{"Authorization", "Bearer a.b.c", "X-Api-Key", "robot's"}, 400, ""},
		{"/v1/orders/1", nil, 401, ""},
		{"/v1/orders/1", []string{"X-Api-Key", "robot's"}, 403, ""},
	} {
		a := sys.Do(http.MethodGet, "gateway", c.path, "", c.header...)
		if a.Status != c.status || c.status == 200 && a.Body != c.body || len(c.header) > 0 && a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("GET %s with %v: %d %s %v, want %d %s", c.path, c.header, a.Status, a.Body, a.Header, c.status, c.body)
		}
	}
}

// TestStolenToken: an internal token, good as it may be, is nothing that the outside can show.
func TestStolenToken(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: &auth.Principal{Subject: "root", Scopes: []string{"*"}}},
		edge(func(o *gateway.Options) { o.Routes[0].Policy = auth.Authenticated() }), things("user-service", nil))
	if a := sys.Do(http.MethodGet, "gateway", "/v1/users/1", ""); a.Status != http.StatusUnauthorized {
		t.Errorf("from outside: %d, want 401", a.Status)
	}
	proxied := kaptartest.StartWith(t, &kaptartest.Options{
		As: &auth.Principal{Subject: "root"}, Settings: map[string]string{"services.gateway.forwarded_from": "127.0.0.1"},
	}, edge(func(o *gateway.Options) { o.Routes[0].Policy = auth.Authenticated() }), things("user-service", nil))
	if a := proxied.Do(http.MethodGet, "gateway", "/v1/users/1", ""); a.Status != http.StatusNotFound { // which the service answers
		t.Errorf("from a proxy that is one of us: %d, want what the service answers", a.Status)
	}
}

// TestRates: what one client sends is held against no other, and what is refused against nobody.
func TestRates(t *testing.T) {
	t.Parallel()
	s := open(t, together, map[string]string{"services.gateway.rate_limit": "0.01"}, nil, nil) // one, and the next in 100 s
	s.sys.Do(http.MethodGet, "gateway", "/v1/stock/1", "")                                     // takes the one of 127.0.0.1
	one := func(line string) []int {
		return s.statuses(s.send(line + " HTTP/1.1\r\nHost: <host>\r\nConnection: close\r\n\r\n"))
	}
	for range 5 {
		for _, bad := range []string{"GET /v1/users/..", "TRACE /v1/users/1", "GET /" + strings.Repeat("x", 9<<10), "GET /v1/users/1 2"} {
			if got := one(bad); len(got) != 1 || got[0] == http.StatusTooManyRequests {
				t.Errorf("%.20s: %v, want what is wrong with it", bad, got)
			}
		}
	}
	if got := one("GET /v1/users/1"); !same(got, []int{200}) {
		t.Errorf("the first good one: %v, want 200", got)
	}
	if got := one("GET /v1/users/1"); !same(got, []int{429}) {
		t.Errorf("the second: %v, want 429", got)
	}
	if got := one("GET /v1/nowhere"); !same(got, []int{429}) {
		t.Errorf("one without a route: %v, want 429", got)
	}
}

// TestRatesOfRoutes: a route may have a limit of its own, and so has each client behind a proxy.
func TestRatesOfRoutes(t *testing.T) {
	t.Parallel()
	s := open(t, together, map[string]string{"services.gateway.forwarded_from": "127.0.0.0/8"}, func(o *gateway.Options) {
		o.Routes[0].RateLimit, o.Routes[0].MaxBody = 0.01, 10
		o.Routes = append(o.Routes, gateway.Route{Resource: "login", Service: "user-service", Versions: []string{"v2"}})
	}, nil)
	for _, c := range []struct {
		path, client, body string
		status             int
	}{
		{"/v1/users/1", "10.0.0.1", "", 200},
		{"/users/1", "10.0.0.1", "", 429}, // the same route
		{"/v2/login", "10.0.0.1", "", 200},
		{"/login", "10.0.0.1", "", 404}, // v2 alone
		{"/v1/users/1", "10.0.0.2", "", 200},
		{"/v1/users/1", "10.0.0.3", strings.Repeat("x", 11), 413},
		{"/v2/login", "10.0.0.3", strings.Repeat("x", 11), 200},
	} {
		if a := s.sys.Do(http.MethodPost, "gateway", c.path, c.body, "X-Forwarded-For", c.client); a.Status != c.status {
			t.Errorf("POST %s of %s: %d %s, want %d", c.path, c.client, a.Status, a.Body, c.status)
		}
	}
}
