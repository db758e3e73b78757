package auth

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// An issuer checks the tokens of one Issuer.
type issuer struct {
	Issuer
	reserved []string // prefixes of others that are longer than the own one
	keys     *source
}

// verified bounds the bytes of tokens that are kept, in each of two generations.
const verified = 4 << 20

// principal returns who a bearer token speaks for.
func (a *Auth) bearer(ctx context.Context, raw string) (*Principal, error) {
	now := time.Now()
	for _, i := range a.issuers {
		set := i.keys.set()
		if set == nil {
			continue
		}
		if p, ok := set.tokens.get(raw, len(raw)); ok {
			if now.Before(p.Expires.Add(leeway)) {
				return p, nil
			}
			return nil, errExpired
		}
	}
	t, err := parse(raw)
	if err != nil {
		return nil, err
	}
	if typ := strings.ToLower(t.header.Typ); typ != "jwt" && typ != "at+jwt" && typ != "application/at+jwt" {
		return nil, errType
	}
	if t.claims.Issuer == nil {
		return nil, errIssuer
	}
	at := slices.IndexFunc(a.issuers, func(i *issuer) bool { return i.Issuer.Issuer == *t.claims.Issuer })
	if at < 0 {
		return nil, errIssuer
	}
	return a.issuers[at].check(ctx, t, now)
}

func (i *issuer) check(ctx context.Context, t *token, now time.Time) (*Principal, error) {
	if !slices.Contains(i.Algorithms, t.header.Alg) {
		return nil, errAlgorithm
	}
	alg := jose.SignatureAlgorithm(t.header.Alg)
	ends, err := t.claims.current(now) // before a key is asked for
	switch {
	case err != nil:
		return nil, err
	case !t.claims.isFor(i.Audience):
		return nil, errAudience
	case !isSubject(t.claims.Subject):
		return nil, errSubject
	}
	p := &Principal{Subject: i.Prefix + *t.claims.Subject, Roles: t.claims.Roles, Scopes: t.claims.scopes(), Expires: ends}
	if slices.ContainsFunc(i.reserved, func(other string) bool { return strings.HasPrefix(p.Subject, other) }) {
		return nil, errSubject
	}
	if len(p.Scopes) > maxScopes || len(p.Roles) > maxScopes {
		return nil, errMalformed
	}
	p.Scopes = slices.DeleteFunc(p.Scopes, func(s string) bool { return s == allScopes }) // which is ours to give
	set, key, err := i.keys.find(ctx, alg, t.header.Kid)
	if err != nil {
		return nil, err
	}
	if err := t.verify(alg, key); err != nil {
		return nil, err
	}
	set.tokens.put(strings.Clone(t.raw), p, len(t.raw)) // the text may be a part of a larger one
	return p, nil
}
