package identity

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 64)
	for uri, want := range map[string]ID{
		"spiffe://example.org/order-service":               {"spiffe://example.org/", "order-service"},
		"spiffe://td/a":                                    {"spiffe://td/", "a"},
		"spiffe://1.2_3-4/a":                               {"spiffe://1.2_3-4/", "a"},
		"spiffe://cluster.local/ns/Shop_1/sa/user-service": {"spiffe://cluster.local/ns/Shop_1/sa/", "user-service"},
		"spiffe://td/..a/a1":                               {"spiffe://td/..a/", "a1"},
		"spiffe://td/" + long[:63]:                         {"spiffe://td/", long[:63]},
		"":                                                 {},
		"spiffe://":                                        {},
		"spiffe://td":                                      {},
		"spiffe://td/":                                     {},
		"spiffe:///a":                                      {},
		"spiffe:/td/a":                                     {},
		"SPIFFE://td/a":                                    {},
		"https://td/a":                                     {},
		" spiffe://td/a":                                   {},
		"spiffe://TD/a":                                    {},
		"spiffe://td:443/a":                                {},
		"spiffe://td:/a":                                   {},
		"spiffe://user@td/a":                               {},
		"spiffe://@td/a":                                   {},
		"spiffe://[::1]/a":                                 {},
		"spiffe://t%64/a":                                  {},
		"spiffe://td\x00/a":                                {},
		"spiffe://tд/a":                                    {},
		"spiffe://td/a/../b":                               {},
		"spiffe://td/./b":                                  {},
		"spiffe://td/a/.":                                  {},
		"spiffe://td//a":                                   {},
		"spiffe://td/a/":                                   {},
		"spiffe://td/a/b//c":                               {},
		"spiffe://td/a%2fb":                                {},
		"spiffe://td/%61":                                  {},
		"spiffe://td/a\\b":                                 {},
		"spiffe://td/a?x=1":                                {},
		"spiffe://td/a?":                                   {},
		"spiffe://td/a#x":                                  {},
		"spiffe://td/a#":                                   {},
		"spiffe://td/a;x":                                  {},
		"spiffe://td/a b":                                  {},
		"spiffe://td/a\n":                                  {},
		"spiffe://td/A":                                    {},
		"spiffe://td/1a":                                   {},
		"spiffe://td/-a":                                   {},
		"spiffe://td/a_b":                                  {},
		"spiffe://td/a.b":                                  {},
		"spiffe://td/а":                                    {}, // Cyrillic
		"spiffe://td/" + long:                              {},
		"spiffe://" + strings.Repeat("d", 256) + "/a":     {},
		"spiffe://td/" + strings.Repeat("a/", 1020) + "a": {},
	} {
		got, err := Parse(uri)
		if got != want || (err == nil) != (want != ID{}) {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", uri, got, err, want)
		}
		if err == nil && got.String() != uri {
			t.Errorf("Parse(%q) is %s again", uri, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"spiffe://example.org/order-service", "spiffe://td/ns/shop/sa/a", "spiffe://td/a/../b", "SPIFFE://TD/A", "spiffe://td:443/a?b#c",
		"spiffe://u:p@td/a", "spiffe://td/%2e%2e/a", "spiffe:///a", "spiffe://td//a", "spiffe://td/a/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		id, err := Parse(uri)
		if err != nil {
			if id != (ID{}) {
				t.Errorf("Parse(%q) = %+v with an error", uri, id)
			}
			return
		}
		_, path, _ := strings.Cut(uri[len(scheme):], "/")
		switch {
		case id.String() != uri, !strings.HasSuffix(id.Prefix, "/"), id.Service == "", strings.ContainsAny(id.Service, "/.%?#:@ \x00"),
			strings.Contains("/"+path, "/../"), strings.Contains("/"+path, "/./"), strings.Contains("/"+path, "//"), strings.ContainsAny(uri[len(scheme):], "%?#:@\\ \x00"):
			t.Errorf("Parse(%q) = %+v", uri, id)
		}
	})
}

func TestServiceOfNobody(t *testing.T) {
	t.Parallel()
	cert := issue(t, authority(t, "td"), "a")
	for name, state := range map[string]*tls.ConnectionState{
		"plain text":   nil,
		"no peer":      {},
		"not verified": {PeerCertificates: []*x509.Certificate{cert.Leaf}},
	} {
		if service, ok := ServiceOf(state); ok || service != "" {
			t.Errorf("%s: %q, %t", name, service, ok)
		}
	}
	verified := &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert.Leaf}}}
	if service, ok := ServiceOf(verified); !ok || service != "a" {
		t.Errorf("verified: %q, %t, want a", service, ok)
	}
}

func authority(t testing.TB, domain string) *Authority {
	t.Helper()
	a, err := NewAuthority(domain)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t testing.TB, a *Authority, service string) tls.Certificate {
	t.Helper()
	text, err := a.Issue(service, caLife)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}
