package auth

import (
	"crypto/rsa"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kaptar/kaptar/config"
)

const fuzzKey = "0123456789abcdef0123456789abcdef"

// FuzzToken: no text but a token that was signed is somebody, and what is read is read in one way.
func FuzzToken(f *testing.F) {
	i, err := newInternal("orders", []config.Secret{fuzzKey})
	if err != nil {
		f.Fatal(err)
	}
	good := i.token("orders", &Principal{Subject: "7", Roles: []string{"r"}, Scopes: []string{"a", "*"}})
	f.Add(good)
	f.Add("eyJhbGciOiJub25lIn0.eyJpc3MiOiJhIn0.")
	f.Add("eyJhbGciOiJIUzI1NiIsInR5cCI6ImthcHRhcitqd3QiLCJjcml0IjpbImV4cCJdfQ.e30.e30")
	f.Add("..")
	f.Add("e30.e30.e30")
	f.Add("e30.eyJleHAiOjFlOTk5fQ.AA")
	f.Add("e30.eyJzdWIiOiJcdWQ4MDAifQ.AA")
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := i.principal(raw)
		if (err == nil) != (raw == good) {
			t.Errorf("%q is %v, %v", raw, p, err)
		}
		read, err := parse(raw)
		if err != nil {
			return
		}
		if len(raw) > maxToken || strings.Count(raw, ".") != 2 || strings.ContainsAny(raw, "=+/ \r\n\t") || read.header.Crit != nil {
			t.Errorf("%q was read", raw)
		}
		if ends, err := read.claims.current(time.Unix(1<<31, 0)); err == nil && (ends.Year() < 2000 || ends.Year() > 9999) {
			t.Errorf("%q ends at %v", raw, ends)
		}
	})
}

// FuzzKeys: of what an issuer says, only keys that are safe to use come through.
func FuzzKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"enc"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"c2VjcmV0"},{"kty":"RSA","n":"AQ","e":"AQAB"},{"kty":"RSA","n":"0vx7","e":"AA"}]}`))
	f.Add([]byte(`{"keys":null}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}],"keys":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := parseKeys(text)
		if err != nil {
			return
		}
		if len(set.keys) == 0 || len(set.keys) > maxKeys {
			t.Errorf("%d keys of %s", len(set.keys), text)
		}
		for i := range set.keys {
			k := &set.keys[i]
			if r, ok := k.Key.(*rsa.PublicKey); !k.IsPublic() || ok && r.N.BitLen() < minRSA ||
				!slices.ContainsFunc(algorithms, func(alg jose.SignatureAlgorithm) bool { return fits(k, alg) }) && k.Algorithm == "" {
				t.Errorf("key %v of %s", k.Key, text)
			}
		}
	})
}

// FuzzDiscovery: a document leads to keys only over a connection that nobody else can answer.
func FuzzDiscovery(f *testing.F) {
	const issuer = "https://login.test"
	f.Add([]byte(`{"issuer":"https://login.test","jwks_uri":"https://login.test/certs"}`))
	f.Add([]byte(`{"issuer":"https://login.test/","jwks_uri":"https://login.test/certs"}`))
	f.Add([]byte(`{"issuer":"https://login.test","jwks_uri":"http://169.254.169.254/latest"}`))
	f.Add([]byte(`{"issuer":"https://login.test","jwks_uri":"https://login.test@evil.test/","x":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		from, err := parseDiscovery(text, issuer)
		if err != nil {
			return
		}
		near := strings.HasPrefix(from, "http://") && !strings.HasPrefix(from, "http://169.")
		if !strings.Contains(string(text), "issuer") || !strings.HasPrefix(strings.ToLower(from), "https://") && !near {
			t.Errorf("%s leads to %s", text, from)
		}
	})
}
