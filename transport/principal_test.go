package transport

import (
	"context"
	"crypto/tls"
	"net/http"
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
		c := rpcCall{call: call{ctx: t.Context(), principal: "of order-service", attempt: attempt{external: external}}}
		md, _ := metadata.FromOutgoingContext(c.traced())
		if len(md[principalKey]) != want {
			t.Errorf("an RPC, external %t: metadata %v, want %d principals", external, md, want)
		}
	}
}
