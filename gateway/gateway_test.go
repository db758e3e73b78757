package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/gateway"
	"github.com/kaptar/kaptar/kaptartest"
)

// edge is a gateway before the services of a small shop; change may be nil.
func edge(change func(*gateway.Options)) kaptar.Service {
	set := new(gateway.Settings)
	return kaptar.Service{Name: "gateway", Version: "v1", Settings: set, Setup: func(app *kaptar.App) error {
		opts := &gateway.Options{Settings: set, Routes: []gateway.Route{
			{Resource: "users", Service: "user-service"},
			{Resource: "orders", Service: "order-service"},
			{Resource: "stock", Service: "inventory-service"},
		}}
		if change != nil {
			change(opts)
		}
		return gateway.New(app, opts)
	}}
}

// things is a service under the name of one behind the gateway.
func things(name string, handlers map[string]http.HandlerFunc) kaptar.Service {
	return kaptar.Service{Name: name, Setup: func(app *kaptar.App) error {
		for pattern, h := range handlers {
			app.HandleFunc(pattern, h)
		}
		return nil
	}}
}

func TestServiceAway(t *testing.T) {
	t.Parallel()
	cut := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	slow := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	sys := kaptartest.StartWith(t, &kaptartest.Options{Settings: map[string]string{"services.gateway.request_timeout": "3s"}}, edge(nil),
		things("order-service", map[string]http.HandlerFunc{"POST /orders": cut}),
		things("inventory-service", map[string]http.HandlerFunc{"POST /stock": slow}))
	for _, c := range []struct {
		method, path string
		status       int
		says         string
	}{
		{http.MethodPost, "/users", http.StatusServiceUnavailable, "user-service is not running"},
		{http.MethodPost, "/orders", http.StatusBadGateway, "order-service could not be reached"},
		{http.MethodPost, "/stock", http.StatusGatewayTimeout, ""},
	} {
		resp := sys.Do(c.method, "gateway", c.path, "")
		if ct := resp.Header.Get("Content-Type"); resp.Status != c.status || ct != "application/problem+json" || !strings.Contains(resp.Body, c.says) {
			t.Errorf("%s %s: got %d %s %s, want %d with %q", c.method, c.path, resp.Status, ct, resp.Body, c.status, c.says)
		}
	}
	for range 4 { // the fifth failure in all opens the breaker
		sys.Do(http.MethodPost, "gateway", "/orders", "")
	}
	kaptartest.Eventually(t, "the breaker is open", func() error { // the service is well, so one call in a second goes to it
		resp := sys.Do(http.MethodPost, "gateway", "/orders", "")
		if resp.Status != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(resp.Body, "order-service keeps failing") {
			return fmt.Errorf("got %d %v %s, want 503 with Retry-After", resp.Status, resp.Header, resp.Body)
		}
		return nil
	})
}

// TestProblemWithoutEnd: a service's problem whose body does not come in time is the gateway's.
func TestProblemWithoutEnd(t *testing.T) {
	t.Parallel()
	half := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "20")
		w.WriteHeader(http.StatusGatewayTimeout)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	sys := kaptartest.StartWith(t, &kaptartest.Options{Settings: map[string]string{"services.gateway.request_timeout": "3s"}}, edge(nil),
		things("inventory-service", map[string]http.HandlerFunc{"POST /stock": half}))
	resp := sys.Do(http.MethodPost, "gateway", "/stock", "")
	if want := "inventory-service did not answer in time"; resp.Status != http.StatusGatewayTimeout || !strings.Contains(resp.Body, want) {
		t.Errorf("got %d %s, want 504 with %q", resp.Status, resp.Body, want)
	}
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	describe := func(schema string) map[string]http.HandlerFunc {
		return map[string]http.HandlerFunc{"GET /openapi.json": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"paths":{"/%[1]s":{"get":{"schema":{"$ref":"#/components/schemas/Item"}}}},"components":{"schemas":{"Item":{"title":%[1]q}}}}`, schema)
		}}
	}
	sys := kaptartest.Start(t, edge(nil), things("user-service", describe("users")), things("order-service", describe("orders")))
	var got struct {
		OpenAPI     string
		Paths       map[string]any
		Components  map[string]map[string]struct{ Title string }
		Unavailable []string `json:"x-unavailable"`
	}
	resp := sys.Do(http.MethodGet, "gateway", "/openapi.json", "")
	if err := json.Unmarshal([]byte(resp.Body), &got); err != nil {
		t.Fatalf("%v in %s", err, resp.Body)
	}
	schemas := got.Components["schemas"]
	if got.OpenAPI != "3.1.0" || len(got.Paths) != 2 || schemas["user-service.Item"].Title != "users" || schemas["order-service.Item"].Title != "orders" {
		t.Errorf("got %s, want both paths and both services' Item", resp.Body)
	}
	if !strings.Contains(resp.Body, `"#/components/schemas/order-service.Item"`) {
		t.Errorf("got %s, want references under the new names", resp.Body)
	}
	if !slices.Contains(got.Unavailable, "inventory-service") || slices.Contains(got.Unavailable, "user-service") {
		t.Errorf("unavailable: got %q, want all but users and orders", got.Unavailable)
	}
}

// TestOpenAPIIsBounded: what a service says of itself cannot fill the gateway, or break it.
func TestOpenAPIIsBounded(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) map[string]http.HandlerFunc {
		return map[string]http.HandlerFunc{"GET /openapi.json": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}}
	}
	sys := kaptartest.Start(t, edge(nil), things("user-service", answer(200, `{"paths":{"/users":{}},"x":"`+strings.Repeat("x", 4<<20)+`"}`)),
		things("order-service", answer(200, `{"paths":[]}`)), things("inventory-service", answer(500, `{"paths":{"/stock":{}}}`)))
	var got struct {
		Paths       map[string]any
		Unavailable []string `json:"x-unavailable"`
	}
	sys.Do(http.MethodGet, "gateway", "/openapi.json", "").Decode(t, &got)
	if len(got.Paths) != 0 || len(got.Unavailable) != 3 {
		t.Errorf("got paths %v and unavailable %q, want no paths and all three", got.Paths, got.Unavailable)
	}
}
