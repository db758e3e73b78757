package auth

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/internal/principal"
)

const (
	internalType = "kaptar+jwt"
	internalLife = 60 * time.Second // of a token, which is used for half of it
	kept         = 4096             // internal tokens made, in each of two generations
)

// internal makes and checks the tokens between services.
type internal struct {
	name   string // of this service
	signer jose.Signer
	keys   [][]byte
	made   cache[errand, *made]
	seen   cache[string, *seen]
}

// An errand is a call to a service in somebody's name; nil is the caller's own.
type errand struct {
	service string
	who     *Principal
}

// made is a token with what it was made of.
type made struct {
	text string
	who  Principal
	used time.Time // until when it is used
}

func newInternal(name string, keys []config.Secret) (*internal, error) {
	i := &internal{name: name, made: cache[errand, *made]{budget: kept}, seen: cache[string, *seen]{budget: verified}}
	for _, k := range keys {
		i.keys = append(i.keys, []byte(k.Reveal()))
	}
	var err error
	i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: i.keys[0]}, new(jose.SignerOptions).WithType(internalType))
	if err != nil {
		return nil, fmt.Errorf("auth: internal_keys: %w", err)
	}
	return i, nil
}

// outgoing is what an internal token says.
type outgoing struct {
	Issuer   string   `json:"iss"`
	Audience string   `json:"aud"`
	Subject  string   `json:"sub,omitempty"`
	Roles    []string `json:"roles,omitempty"`
	SCP      []string `json:"scp,omitempty"` // a list, as a scope of an issuer may have spaces
	Expires  int64    `json:"exp"`
	Until    int64    `json:"until,omitempty"`
	Nobody   bool     `json:"nobody,omitempty"`
}

// token returns one for a call to service in the name of who; "" when none can be made.
func (i *internal) token(service string, who *Principal) string {
	now, key := time.Now(), errand{service, who}
	if m, ok := i.made.get(key, 1); ok && now.Before(m.used) && (who == nil || who.same(&m.who)) {
		return m.text
	}
	ends := now.Add(internalLife)
	say := outgoing{Issuer: i.name, Audience: service}
	m := new(made)
	if who != nil {
		m.who, say.Nobody = *who, who.outsider
		say.Subject, say.Roles, say.SCP = who.Subject, who.Roles, who.Scopes
		if !who.Expires.IsZero() {
			say.Until = who.Expires.Unix()
			if who.Expires.Before(ends) {
				ends = who.Expires
			}
		}
	}
	say.Expires = ends.Unix()
	m.used = now.Add(ends.Sub(now) / 2)
	payload, _ := json.Marshal(say) // texts and numbers, which never fail
	signed, err := i.signer.Sign(payload)
	if err == nil {
		m.text, err = signed.CompactSerialize()
	}
	if err != nil {
		return ""
	}
	i.made.put(key, m, 1)
	return m.text
}

// principal returns who a token speaks for.
func (i *internal) principal(raw string) (*Principal, error) {
	now := time.Now()
	if s, ok := i.seen.get(raw, len(raw)); ok {
		if now.Before(s.ends.Add(leeway)) {
			return &s.Principal, nil
		}
		return nil, errExpired
	}
	t, err := parse(raw)
	if err != nil {
		return nil, err
	}
	c := &t.claims
	switch {
	case t.header.Typ != internalType:
		return nil, errType
	case t.header.Alg != string(jose.HS256):
		return nil, errAlgorithm
	}
	if err := i.signed(t); err != nil {
		return nil, err
	}
	ends, err := c.current(now)
	switch {
	case err != nil:
		return nil, err
	case ends.After(now.Add(internalLife + leeway)):
		return nil, errExpired
	case len(c.Audience) != 1 || !c.isFor(i.name):
		return nil, errAudience
	case c.Issuer == nil:
		return nil, errIssuer
	case c.Subject != nil && !isSubject(c.Subject), c.Subject == nil && *c.Issuer == "", c.Subject != nil && c.Nobody:
		return nil, errSubject
	}
	s := &seen{ends: ends, Principal: Principal{Roles: c.Roles, Scopes: c.scopes(), Caller: *c.Issuer, outsider: c.Nobody}}
	if c.Subject != nil {
		s.Subject = *c.Subject
	}
	if c.Until != nil {
		s.Expires = date(*c.Until)
	}
	i.seen.put(strings.Clone(raw), s, len(raw))
	return &s.Principal, nil
}

func (i *internal) signed(t *token) (err error) {
	for _, key := range i.keys {
		if err = t.verify(jose.HS256, key); err == nil {
			return nil
		}
	}
	return err
}

// seen is a principal with the end of the token that spoke for it.
type seen struct {
	Principal
	ends time.Time
}

// Token returns the internal token for a call to service in the name of whom ctx is for, to be sent
// as transport.PrincipalHeader; "" without internal keys. Protect does so for Client and Conn of its App.
func (a *Auth) Token(ctx context.Context, service string) string {
	if a.internal == nil {
		return ""
	}
	who, _ := ctx.Value(principal.Key{}).(*Principal)
	return a.internal.token(service, who)
}
