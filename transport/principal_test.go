package transport

import (
	"context"
	"crypto/tls"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/metadata"

	"github.com/kaptar/kaptar/discovery"
)

// TestPrincipalGoesToServices: to those that the registry knows, and with TLS, whose certificates
// show them, to those that DNS knows. Nothing outside gets one.
func TestPrincipalGoesToServices(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		url  string
		tls  *tls.Config
		want string
	}{
		{orders, nil, "of order-service"},
		{orders, new(tls.Config), "of order-service"},
		{"http://only-dns/", nil, ""},
		{"https://only-dns/", nil, ""},
		{"http://only-dns/", new(tls.Config), "of only-dns"},
		{"http://only-dns:80/", nil, ""},
		{"http://only-dns:80/", new(tls.Config), ""},
		{"https://only-dns.example/", nil, ""},
		{"http://127.0.0.1:1/", nil, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := new(discovery.Memory)
			_ = m.Register(t.Context(), newInstance("a"))
			seen := "no call"
			tr := over(t, Options{Resolver: m, TLS: tt.tls, Principal: func(_ context.Context, service string) string { return "of " + service }},
				func(r *http.Request) (*http.Response, error) {
					seen = r.Header.Get(PrincipalHeader)
					return reply(r, 200), nil
				})
			tr.lookup = func(context.Context, string) ([]string, error) { return []string{"10.0.0.9"}, nil }
			if status, err := do(t, tr, "GET", tt.url, nil); status != 200 || seen != tt.want {
				t.Errorf("%s, with TLS %t: %d, %v, the principal is %q, want %q", tt.url, tt.tls != nil, status, err, seen, tt.want)
			}
		})
	}
	for external, want := range map[bool]int{false: 1, true: 0} {
		c := rpcCall{call: call{tg: new(target), ctx: t.Context(), principal: "of order-service", attempt: attempt{external: external}}}
		md, _ := metadata.FromOutgoingContext(c.traced())
		if len(md[principalKey]) != want {
			t.Errorf("an RPC, external %t: metadata %v, want %d principals", external, md, want)
		}
	}
}

// TestRedirectToService: who is called does not choose what else is called in our name.
func TestRedirectToService(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		from, to string
		calls    int
	}{
		{"https://hooks.example/", "http://order-service/", 1},
		{"https://hooks.example/", "http://ORDER-SERVICE/", 1},
		{"http://user-service/", "http://order-service/", 1},
		{"http://order-service:80/", "http://order-service/", 1},
		{"http://order-service/", "/orders", 2},
		{"http://order-service/", "http://Order-Service/orders", 2},
		{"http://order-service/", "https://hooks.example/", 2},
		{"https://hooks.example/", "https://other.example/", 2},
	} {
		for _, status := range []int{302, 307} {
			synctest.Test(t, func(t *testing.T) {
				m := new(discovery.Memory)
				_ = m.Register(t.Context(), newInstance("a"))
				_ = m.Register(t.Context(), discovery.Instance{Service: "user-service", ID: "u", HTTP: "u:80"})
				calls := 0
				tr := over(t, Options{Resolver: m}, func(r *http.Request) (*http.Response, error) {
					if calls++; calls > 1 {
						return reply(r, 200), nil
					}
					resp := reply(r, status)
					resp.Header.Set("Location", tt.to)
					return resp, nil
				})
				tr.lookup = func(context.Context, string) ([]string, error) { return []string{"10.0.0.9"}, nil }
				resp, err := (&http.Client{Transport: tr}).Post(tt.from, "text/plain", strings.NewReader("x"))
				if err == nil {
					_ = resp.Body.Close()
				}
				if calls != tt.calls || (err == nil) != (tt.calls == 2) {
					t.Errorf("%d from %s to %s: %d calls, %v, want %d calls", status, tt.from, tt.to, calls, err, tt.calls)
				}
			})
		}
	}
}

// TestRedirectWithKey: an API key is for the host that it was sent to first.
func TestRedirectWithKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ways := map[string]string{
			"https://api.example/": "https://api.example/2", "https://api.example/2": "https://evil.example/", "https://evil.example/": "https://evil.example/2",
		}
		var keys []string
		tr := over(t, Options{}, func(r *http.Request) (*http.Response, error) {
			keys = append(keys, r.URL.String()+" "+r.Header.Get("X-Api-Key"))
			to := ways[r.URL.String()]
			if to == "" {
				return reply(r, 200), nil
			}
			resp := reply(r, 302)
			resp.Header.Set("Location", to)
			return resp, nil
		})
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example/", http.NoBody)
		req.Header.Set("X-Api-Key", "k")
		resp, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		want := []string{"https://api.example/ k", "https://api.example/2 k", "https://evil.example/ ", "https://evil.example/2 "}
		if !slices.Equal(keys, want) {
			t.Errorf("asked with keys %q, want %q", keys, want)
		}
	})
}
