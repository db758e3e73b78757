package edge

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/kaptartest"
)

// things is a service under the name of one behind the gateway.
func things(name string, handlers map[string]http.HandlerFunc) kaptar.Service {
	return kaptar.Service{Name: name, Setup: func(app *kaptar.App) error {
		for pattern, h := range handlers {
			app.HandleFunc(pattern, h)
		}
		return nil
	}}
}

func TestPassesOn(t *testing.T) {
	t.Parallel()
	sys := kaptartest.Start(t, Service(), things("user-service", map[string]http.HandlerFunc{
		"POST /v1/users/{id}": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Answer", "yes")
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprintf(w, "%s %s %s", r.PathValue("id"), r.URL.Query().Get("q"), r.Header.Get("X-Forwarded-Host"))
		},
	}))
	resp := sys.Do(http.MethodPost, "gateway", "/v1/users/a%2Fb?q=1", "body")
	if host := strings.TrimPrefix(sys.URL("gateway"), "http://"); resp.Status != http.StatusTeapot || resp.Header.Get("X-Answer") != "yes" || resp.Body != "a/b 1 "+host {
		t.Errorf("got %d %v %q, want the service's own answer with a/b, 1 and %s", resp.Status, resp.Header, resp.Body, host)
	}
	if resp := sys.Do(http.MethodGet, "gateway", "/v1/secrets", ""); resp.Status != http.StatusNotFound {
		t.Errorf("a resource without a route: got %d, want 404", resp.Status)
	}
	if resp := sys.Do(http.MethodGet, "gateway", "/", ""); resp.Status != http.StatusOK || !strings.Contains(resp.Body, "<title>Shop</title>") {
		t.Errorf("storefront: got %d %s", resp.Status, resp.Body)
	}
}

func TestServiceAway(t *testing.T) {
	t.Parallel()
	cut := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	slow := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	sys := kaptartest.StartWith(t, &kaptartest.Options{Settings: map[string]string{"services.gateway.request_timeout": "300ms"}}, Service(),
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
	resp := sys.Do(http.MethodPost, "gateway", "/orders", "")
	if resp.Status != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(resp.Body, "order-service keeps failing") {
		t.Errorf("with an open breaker: got %d %v %s, want 503 with Retry-After", resp.Status, resp.Header, resp.Body)
	}
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	describe := func(schema string) map[string]http.HandlerFunc {
		return map[string]http.HandlerFunc{"GET /openapi.json": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"paths":{"/%[1]s":{"get":{"schema":{"$ref":"#/components/schemas/Item"}}}},"components":{"schemas":{"Item":{"title":%[1]q}}}}`, schema)
		}}
	}
	sys := kaptartest.Start(t, Service(), things("user-service", describe("users")), things("order-service", describe("orders")))
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
	if !slices.Contains(got.Unavailable, "analytics-service") || slices.Contains(got.Unavailable, "user-service") {
		t.Errorf("unavailable: got %q, want all but users and orders", got.Unavailable)
	}
}

// TestStorefront: the page works under a policy without unsafe-inline, and shows data as text only.
func TestStorefront(t *testing.T) {
	t.Parallel()
	sys := kaptartest.Start(t, Service())
	for path, want := range map[string]string{"/": "text/html", "/storefront.js": "text/javascript", "/storefront.css": "text/css"} {
		resp := sys.Do(http.MethodGet, "gateway", path, "")
		if ct := resp.Header.Get("Content-Type"); resp.Status != http.StatusOK || !strings.HasPrefix(ct, want) {
			t.Errorf("%s: got %d %s, want 200 %s", path, resp.Status, ct, want)
		}
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'self'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: got the policy %q, want default-src 'self' and nothing unsafe", path, csp)
		}
		for _, bad := range []string{"<style", "style=", "<script>", "javascript:"} {
			if path == "/" && strings.Contains(strings.ToLower(resp.Body), bad) {
				t.Errorf("the page has %q: script and style belong in files of their own", bad)
			}
		}
		for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage", "document.cookie"} {
			if strings.Contains(resp.Body, bad) {
				t.Errorf("%s has %q", path, bad)
			}
		}
		if handlers := regexp.MustCompile(`<[^>]+\son[a-z]+=`).FindString(resp.Body); path == "/" && handlers != "" {
			t.Errorf("the page has the inline handler %q", handlers)
		}
	}
}
