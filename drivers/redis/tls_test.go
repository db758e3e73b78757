package redis_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/kaptar/kaptar/cache"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

const rightPassword, wrongPassword = "Right1", "Secret2"

// probe makes a session and uses it.
func probe(t *testing.T, url string) (drivers.Backend, error) {
	t.Helper()
	b, err := new(drivers.Set).Open(t.Context(), url)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = b.Close(t.Context()) })
	return b, use(t, b)
}

func use(t *testing.T, b drivers.Backend) error {
	t.Helper()
	session := b.(interface {
		Session(service string, limit time.Duration) cache.Session
	}).Session("s", 3*time.Second)
	defer session.Close()
	_, err := session.Probe(t.Context())
	return err
}

// TestTLS also has the server come back with certificates of another authority: a program whose
// files change with it goes on.
func TestTLS(t *testing.T) {
	t.Parallel()
	a, other := servertest.NewAuthority(t), servertest.NewAuthority(t)
	s, plain := servertest.Start(t, servers.Redis, servers.Options{
		TLS: a.Dir, Config: "user ada on >" + rightPassword + " ~* &* +@all\nuser default off",
	}), servertest.Shared(t, servers.Redis)
	ada, ca := "rediss://ada:"+rightPassword+"@", "?ca="+a.File("ca.pem")
	a.Issue("expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	a.Issue("elsewhere", func(c *x509.Certificate) { c.IPAddresses = nil })
	for name, c := range map[string]struct{ url, want string }{
		"another authority":       {ada + s.Addr("") + "?ca=" + other.File("ca.pem"), "name the authority's with the parameter ca"},
		"system's authority":      {ada + s.Addr(""), "name the authority's with the parameter ca"},
		"expired":                 {ada + a.Serve("expired", nil) + ca, "certificate has expired or is not valid yet"},
		"another host":            {ada + a.Serve("elsewhere", nil) + ca, "certificate is for another host"},
		"TLS to a plain port":     {ada + plain.Addr("") + ca, "maybe no TLS is spoken at that port"},
		"plain to a TLS port":     {"redis://ada:" + rightPassword + "@" + s.Addr(""), "rediss://"},
		"no client's certificate": {ada + s.Addr("") + ca, "the parameters cert and key"},
		"client's of another":     {ada + s.Addr("") + ca + "&cert=" + other.File("client.pem") + "&key=" + other.File("client.pem"), "the parameters cert and key"},
		"wrong password":          {"rediss://ada:" + wrongPassword + "@" + s.Addr("") + "?" + a.Query(), "check the user and password"},
		"no user":                 {s.URL(), "check the user and password"},
		"no file":                 {ada + s.Addr("") + "?ca=/no/file", "ca: open /no/file: no such file"},
		"no key":                  {ada + s.Addr("") + "?cert=" + a.File("client.pem"), "one of them is missing, expected both"},
		"no TLS":                  {"redis://h?" + a.Query(), "parameters ca, cert and key are for TLS: expected rediss://"},
		"skip_verify":             {"rediss://h?skip_verify=true", "expected ca=FILE with the authority"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := probe(t, c.url)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), wrongPassword) || strings.Contains(err.Error(), rightPassword) {
				t.Errorf("%v, want %q and no password", err, c.want)
			}
			t.Log(err)
		})
	}
	b, err := probe(t, ada+s.Addr("")+"?db=2&"+a.Query())
	if err != nil {
		t.Fatal(err)
	}
	var client *goredis.Client
	if !b.(interface{ As(target any) bool }).As(&client) {
		t.Fatal("As gives no client")
	}
	for _, when := range []string{"before", "after"} {
		if err := client.Set(t.Context(), when, "v", 0).Err(); err != nil {
			t.Errorf("Set %s the certificates changed: %v", when, err)
		}
		if err := use(t, b); err != nil {
			t.Errorf("Probe %s the certificates changed: %v", when, err)
		}
		if when == "before" {
			a.Renew()
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}
