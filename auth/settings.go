package auth

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/kaptar/kaptar/config"
)

func init() { config.RegisterSection[Settings]("github.com/kaptar/kaptar/auth") }

// Settings are this package's section of the configuration.
type Settings struct {
	Auth Credentials `config:"auth"`
}

// Credentials are what a service accepts, and what it shows to others.
type Credentials struct {
	Issuers map[string]Issuer `config:"issuers,dashed"`
	Keys    map[string]Key    `config:"keys,dashed"`
	// InternalKeys sign the tokens between services with the first, and all are accepted: a new key
	// goes to the end everywhere, then to the front, then the old one goes.
	InternalKeys []config.Secret `config:"internal_keys" help:"secrets of 32 bytes or more that all services share; the first signs the tokens between services, all are accepted"`
}

// An Issuer is who signs bearer tokens.
type Issuer struct {
	Issuer     string   `config:"issuer" help:"the iss of its tokens"`
	Audience   string   `config:"audience" help:"the aud that its tokens must have"`
	JWKSURL    string   `config:"jwks_url" help:"where its public keys are; default: what issuer/.well-known/openid-configuration says"`
	Algorithms []string `config:"algorithms" help:"of its signatures; default RS256,ES256,EdDSA"`
	Prefix     string   `config:"prefix" help:"stands in front of the sub of its tokens, so that users of two issuers cannot be taken for each other"`
}

// A Key is an API key of a machine.
type Key struct {
	SHA256 string   `config:"sha256" help:"the key's SHA-256 in hex, as printf %s KEY | sha256sum has it; the key should be random, of 32 characters or more"`
	Scopes []string `config:"scopes" help:"what it may do; * is everything"`
	Roles  []string `config:"roles"`
}

const (
	keyPrefix = "key:" // of the subjects of API keys
	shortest  = 32     // bytes of an internal key
	mostKeys  = 8      // internal keys, each of which is tried
)

// algorithms are those of signatures that can be checked with a public key.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// defaultAlgorithms are those of an issuer that names none.
var defaultAlgorithms = []string{"RS256", "ES256", "EdDSA"}

// Validate finds what cannot work, or would not be safe. What is missing may stand in Options.
func (c *Credentials) Validate() error { return c.check(false) }

// check is Validate for what must be complete.
func (c *Credentials) check(complete bool) error {
	var errs []error
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Issuers)) {
		i := c.Issuers[name]
		if err := i.check(complete); err != nil {
			errs = append(errs, fmt.Errorf("issuers.%s: %w", name, err))
		}
		for what, value := range map[string]string{"issuer": i.Issuer, "prefix": i.Prefix} {
			if other, taken := seen[what+value]; taken && complete {
				errs = append(errs, fmt.Errorf("issuers.%s: %s %q is that of issuers.%s too: expected one of its own", name, what, value, other))
			}
			seen[what+value] = name
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Keys)) {
		text := c.Keys[name].SHA256
		if sum, err := hex.DecodeString(text); (err != nil || len(sum) != 32) && (complete || text != "") {
			errs = append(errs, fmt.Errorf("keys.%s.sha256: expected 64 hex digits, as printf %%s KEY | sha256sum has them", name))
		}
	}
	for i, key := range c.InternalKeys {
		if len(key.Reveal()) < shortest {
			errs = append(errs, fmt.Errorf("internal_keys: number %d has %d bytes: expected at least %d, as openssl rand -hex 32 makes them",
				i+1, len(key.Reveal()), shortest))
		}
	}
	if n := len(c.InternalKeys); n > mostKeys {
		errs = append(errs, fmt.Errorf("internal_keys: %d keys: expected at most %d", n, mostKeys))
	}
	return errors.Join(errs...)
}

func (i *Issuer) check(complete bool) error {
	var errs []error
	if i.Issuer == "" && complete {
		errs = append(errs, errors.New("issuer: expected the iss of its tokens"))
	}
	if i.Audience == "" && complete {
		errs = append(errs, errors.New("audience: expected the aud that tokens for this system have"))
	}
	if strings.HasPrefix(i.Prefix, keyPrefix) || strings.ContainsFunc(i.Prefix, func(r rune) bool { return r <= ' ' || r > '~' }) {
		errs = append(errs, fmt.Errorf("prefix %q: expected printable ASCII that does not begin with %q, as the names of API keys do", i.Prefix, keyPrefix))
	}
	if i.JWKSURL != "" {
		if err := checkURL(i.JWKSURL); err != nil {
			errs = append(errs, fmt.Errorf("jwks_url: %w", err))
		}
	} else if err := checkURL(i.Issuer); err != nil && complete {
		errs = append(errs, fmt.Errorf("issuer, as there is no jwks_url: %w", err))
	}
	for _, a := range i.Algorithms {
		if !slices.Contains(algorithms, jose.SignatureAlgorithm(a)) {
			errs = append(errs, fmt.Errorf("algorithms: %q: expected some of %v", a, algorithms))
		}
	}
	return errors.Join(errs...)
}

// checkURL refuses what anybody on the way could answer.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("expected a URL such as https://login.example.com/jwks.json")
	}
	host := u.Hostname()
	addr, err := netip.ParseAddr(host)
	near := err == nil && addr.IsLoopback() || !strings.ContainsAny(host, ".:")
	if u.Scheme == "https" || u.Scheme == "http" && near {
		return nil
	}
	return fmt.Errorf("%s://%s: expected https; http is for services, such as http://user-service/…, and loopback", u.Scheme, u.Host)
}

// over returns c with what d has for what c leaves open.
func (c *Credentials) over(d *Credentials) Credentials {
	out := Credentials{Issuers: map[string]Issuer{}, Keys: map[string]Key{}, InternalKeys: c.InternalKeys}
	if len(out.InternalKeys) == 0 {
		out.InternalKeys = d.InternalKeys
	}
	maps.Copy(out.Issuers, d.Issuers)
	maps.Copy(out.Keys, d.Keys)
	maps.Copy(out.Keys, c.Keys)
	for name, i := range c.Issuers {
		own := out.Issuers[name]
		own.Issuer, own.Audience = cmp.Or(i.Issuer, own.Issuer), cmp.Or(i.Audience, own.Audience)
		own.JWKSURL, own.Prefix = cmp.Or(i.JWKSURL, own.JWKSURL), cmp.Or(i.Prefix, own.Prefix)
		if len(i.Algorithms) > 0 {
			own.Algorithms = i.Algorithms
		}
		out.Issuers[name] = own
	}
	return out
}
