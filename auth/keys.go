package auth

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

const (
	maxDocument = 64 << 10 // bytes of a key set or a discovery document
	maxKeys     = 100
	minRSA      = 2048 // bits
	maxRSA      = 8192
)

// A keySet is what an issuer has published, and the tokens that were checked with it. It does not
// change but for its age.
type keySet struct {
	text   string
	keys   []jose.JSONWebKey
	at     atomic.Int64 // when it was fetched last, in nanoseconds since the epoch
	tokens cache[string, *Principal]
}

// parseKeys reads a key set. Keys that cannot be used, such as those of other kinds, are left out.
func parseKeys(text []byte) (*keySet, error) {
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("expected a JSON Web Key Set: %w", err)
	}
	if n := len(document.Keys); n > maxKeys {
		return nil, fmt.Errorf("it has %d keys: expected at most %d", n, maxKeys)
	}
	set := &keySet{text: string(text), tokens: cache[string, *Principal]{budget: verified}}
	for _, raw := range document.Keys {
		var key jose.JSONWebKey
		if err := key.UnmarshalJSON(raw); err == nil && usable(&key) {
			set.keys = append(set.keys, key)
		}
	}
	if len(set.keys) == 0 {
		return nil, fmt.Errorf("none of its %d keys can be used: expected public ones for signatures, RSA of %d bits or more, P-256, P-384, P-521 or Ed25519",
			len(document.Keys), minRSA)
	}
	return set, nil
}

// usable reports whether a key may be used for signatures at all.
func usable(key *jose.JSONWebKey) bool {
	if !key.Valid() || !key.IsPublic() || cmp.Or(key.Use, "sig") != "sig" {
		return false
	}
	if k, ok := key.Key.(*rsa.PublicKey); ok {
		return k.N.BitLen() >= minRSA && k.N.BitLen() <= maxRSA && k.E >= 3 && k.E%2 == 1
	}
	return slices.ContainsFunc(algorithms, func(alg jose.SignatureAlgorithm) bool { return fits(key, alg) })
}

// fits reports whether a key is one for alg.
func fits(key *jose.JSONWebKey, alg jose.SignatureAlgorithm) bool {
	if key.Algorithm != "" && key.Algorithm != string(alg) {
		return false
	}
	switch k := key.Key.(type) {
	case *rsa.PublicKey:
		return slices.Contains(algorithms[:6], alg)
	case *ecdsa.PublicKey:
		switch alg {
		case jose.ES256:
			return k.Curve == elliptic.P256()
		case jose.ES384:
			return k.Curve == elliptic.P384()
		case jose.ES512:
			return k.Curve == elliptic.P521()
		}
	case ed25519.PublicKey:
		return alg == jose.EdDSA && len(k) == ed25519.PublicKeySize
	}
	return false
}

// find returns the key for a token; nil when there is none. Without a kid there must be one key only.
func (s *keySet) find(alg jose.SignatureAlgorithm, kid string) any {
	if kid == "" && len(s.keys) > 1 {
		return nil
	}
	for i := range s.keys {
		if k := &s.keys[i]; (kid == "" || k.KeyID == kid) && fits(k, alg) {
			return k.Key
		}
	}
	return nil
}
