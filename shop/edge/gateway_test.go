package edge

import (
	"fmt"
	"net/http"
	"regexp"
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
	if host := "gateway"; resp.Status != http.StatusTeapot || resp.Header.Get("X-Answer") != "yes" || resp.Body != "a/b 1 "+host {
		t.Errorf("got %d %v %q, want the service's own answer with a/b, 1 and %s", resp.Status, resp.Header, resp.Body, host)
	}
	if resp := sys.Do(http.MethodGet, "gateway", "/v1/secrets", ""); resp.Status != http.StatusNotFound {
		t.Errorf("a resource without a route: got %d, want 404", resp.Status)
	}
	if resp := sys.Do(http.MethodGet, "gateway", "/", ""); resp.Status != http.StatusOK || !strings.Contains(resp.Body, "<title>Shop</title>") {
		t.Errorf("storefront: got %d %s", resp.Status, resp.Body)
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
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'; script-src 'self'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: got the policy %q, want nothing but files of its own", path, csp)
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
