package consul_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers/consul"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

const (
	rightToken = "6f1cf7b1-7d53-4b4b-8f5d-0a3b8c7d9e01"
	wrongToken = "6f1cf7b1-7d53-4b4b-8f5d-0a3b8c7d9eff"
)

// guarded starts an agent that takes TLS and knows one token.
func guarded(t *testing.T, a *servertest.Authority) *servers.Server {
	t.Helper()
	return servertest.Start(t, servers.Consul, servers.Options{
		TLS:    a.Dir,
		Config: `acl { enabled = true, default_policy = "deny", tokens { initial_management = "` + rightToken + `" } }`,
	})
}

// TestTLS also has the agent come back with certificates of another authority: a program whose files
// change with it goes on.
func TestTLS(t *testing.T) {
	t.Parallel()
	a := servertest.NewAuthority(t)
	s := guarded(t, a)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(rightToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, url := range map[string]string{
		"token":      strings.Replace(s.URL(), "://", "://"+rightToken+"@", 1) + "&tls=true",
		"token_file": s.URL() + "&check=none&token_file=" + file,
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t, url, nil)
			roundTrip(t, p, name)
			a.Renew()
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			roundTrip(t, p, name)
		})
	}
}

func roundTrip(t *testing.T, p *program, key string) {
	t.Helper()
	in := discovery.Instance{ID: "i", Service: "tls-" + key, HTTP: "127.0.0.1:1"}
	eventually(t, "a value over TLS", func() bool { _, err := p.Put(t.Context(), key, []byte("v")); return err == nil })
	if got, err := p.Get(t.Context(), key); err != nil || string(got.Value) != "v" {
		t.Errorf("Get over TLS = %q, %v, want v", got.Value, err)
	}
	register(t, p, in)
	if err := p.Deregister(t.Context(), in); err != nil {
		t.Errorf("Deregister over TLS: %v", err)
	}
}

// TestTLSErrors: what is wrong and what to do about it.
func TestTLSErrors(t *testing.T) {
	t.Parallel()
	a, other := servertest.NewAuthority(t), servertest.NewAuthority(t)
	s, plain := guarded(t, a), servertest.Shared(t, servers.Consul)
	a.Issue("expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	a.Issue("elsewhere", func(c *x509.Certificate) { c.IPAddresses = nil })
	ca := "ca=" + a.File("ca.pem")
	for name, c := range map[string]struct{ url, want string }{
		"another authority":       {"consul://" + s.Addr("") + "?ca=" + other.File("ca.pem"), "name the authority's with the parameter ca"},
		"system's authority":      {"consul://" + s.Addr("") + "?tls=true", "name the authority's with the parameter ca"},
		"expired":                 {"consul://" + a.Serve("expired", nil) + "?" + ca, "certificate has expired or is not valid yet"},
		"another host":            {"consul://" + a.Serve("elsewhere", nil) + "?" + ca, "certificate is for another host"},
		"TLS to a plain port":     {"consul://" + plain.Addr("") + "?" + ca, "no TLS is spoken at that port"},
		"plain to a TLS port":     {"consul://" + s.Addr(""), "add the parameter tls=true"},
		"no client's certificate": {"consul://" + s.Addr("") + "?" + ca, "the parameters cert and key"},
		"client's of another":     {"consul://" + s.Addr("") + "?" + ca + "&cert=" + other.File("client.pem") + "&key=" + other.File("client.pem"), "the parameters cert and key"},
		"wrong token":             {"consul://" + wrongToken + "@" + s.Addr("") + "?" + a.Query(), "may the token of the URL do this?"},
		"no token":                {"consul://" + s.Addr("") + "?" + a.Query(), "may the token of the URL do this?"},
		"token file":              {s.URL() + "&token_file=/no/token", "token_file: open /no/token: no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := open(t, c.url, nil).Get(t.Context(), "k")
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), wrongToken) {
				t.Errorf("%v, want %q and no token", err, c.want)
			}
			t.Log(err)
		})
	}
	for query, want := range map[string]string{
		"ca=/no/file":                          "ca: open /no/file: no such file",
		"ca=tls_test.go":                       "tls_test.go: expected certificates in PEM",
		"cert=" + a.File("client.pem"):         "one of them is missing, expected both",
		"cert=/no/file&key=/no/file":           "cert and key: /no/file and /no/file: expected a certificate and its key in PEM",
		a.Query() + "&tls=false":               "parameters ca, cert and key are for TLS: expected no tls=false",
		"token_file=x&tls=false&insecure=true": `unknown parameter "insecure"`,
	} {
		if _, err := consul.Open("consul://h?"+query, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%s): %v, want %q", query, err, want)
		}
	}
}
