package auth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/telemetry"
)

// Options configure an Auth. With nil or the zero value no credential is accepted.
type Options struct {
	// Credentials are those that are accepted. With Protect, settings override them field by field.
	Credentials
	// Name is the name of this service: the audience of internal tokens for it, and the caller in
	// those that it makes. Protect sets it.
	Name string
	// Client fetches issuers' keys; default http.DefaultClient. Protect sets it.
	Client *http.Client
	// Log gets the reasons why credentials are refused; default slog.Default(). Protect sets it.
	Log *slog.Logger
	// Metrics gets auth_checks_total; nil for none. Protect sets it.
	Metrics prometheus.Registerer
}

// Auth checks credentials. It may be used concurrently.
type Auth struct {
	log      *slog.Logger
	issuers  []*issuer // in the order of their names
	keys     []apiKey
	internal *internal // nil without internal keys
	checks   *prometheus.CounterVec
	allowed  prometheus.Counter
	service  string
	nobody   *Principal // one for all, as tokens are kept by principal
}

// An apiKey is the hash of a key and its principal.
type apiKey struct {
	hash [sha256.Size]byte
	who  *Principal
}

// New returns an Auth for a service without kaptar.App. Wrap what it serves in Require, Unary and
// Stream, and call Run to keep the issuers' keys up to date.
func New(opts *Options) (*Auth, error) {
	o := *cmp.Or(opts, new(Options))
	if err := o.check(true); err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	a := &Auth{log: cmp.Or(o.Log, slog.Default()), service: o.Name, nobody: &Principal{outsider: true}}
	a.checks = telemetry.Register(cmp.Or[prometheus.Registerer](o.Metrics, prometheus.NewRegistry()), prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "auth_checks_total", Help: "Calls whose policy was checked: allowed, or refused and why.",
	}, []string{"service", "result", "reason"}))
	a.allowed = a.checks.WithLabelValues(o.Name, "allowed", "")
	for _, name := range slices.Sorted(maps.Keys(o.Issuers)) {
		a.issuers = append(a.issuers, newIssuer(name, &o, a.log))
	}
	for _, name := range slices.Sorted(maps.Keys(o.Keys)) {
		key := o.Keys[name]
		k := apiKey{who: &Principal{Subject: keyPrefix + name, Roles: key.Roles, Scopes: key.Scopes}}
		_, _ = hex.Decode(k.hash[:], []byte(key.SHA256)) // which was checked
		a.keys = append(a.keys, k)
	}
	if len(o.InternalKeys) > 0 {
		var err error
		if a.internal, err = newInternal(o.Name, o.InternalKeys); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func newIssuer(name string, o *Options, log *slog.Logger) *issuer {
	set := o.Issuers[name]
	i := &issuer{Issuer: set, reserved: []string{keyPrefix}}
	for _, other := range o.Issuers {
		if len(other.Prefix) > len(set.Prefix) {
			i.reserved = append(i.reserved, other.Prefix)
		}
	}
	if len(i.Algorithms) == 0 {
		i.Algorithms = defaultAlgorithms
	}
	client := *cmp.Or(o.Client, http.DefaultClient)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	i.keys = &source{issuer: set, client: &client, outage: steady.Outage{
		What: "keys of issuer", Log: log, Attrs: []slog.Attr{slog.String("issuer", name)},
	}}
	return i
}

// Run fetches the issuers' keys every 5 minutes until ctx ends. Without it they are fetched when a
// token needs an unknown key. Protect calls it.
func (a *Auth) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, i := range a.issuers {
		all.Go(func() { i.keys.keep(ctx) })
	}
	all.Wait()
	return nil
}

// maxAPIKey is in bytes.
const maxAPIKey = 512

// apiKey returns the principal of a key. The time it takes does not reveal which keys exist.
func (a *Auth) apiKey(text string) (*Principal, error) {
	if len(text) > maxAPIKey {
		return nil, errAPIKey
	}
	hash, found := sha256.Sum256([]byte(text)), -1
	for i := range a.keys {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(hash[:], a.keys[i].hash[:]), i, found)
	}
	if found < 0 {
		return nil, errAPIKey
	}
	return a.keys[found].who, nil
}

// shown are the credentials of a call.
type shown struct {
	internal, bearer, key []string
	peer                  string // the service that the connection's certificate names
}

// principal returns the principal of the credentials c, nil if there are none. The error is a
// refusal, errMany, or that an issuer is away.
func (a *Auth) principal(ctx context.Context, c *shown) (*Principal, error) {
	switch {
	case len(c.internal) > 1, len(c.internal) == 0 && len(c.bearer)+len(c.key) > 1:
		return nil, errMany
	case len(c.internal) == 1:
		if a.internal == nil {
			return nil, errSignature
		}
		p, err := a.internal.principal(c.internal[0])
		if err == nil && c.peer != "" && c.peer != p.Caller {
			return nil, errCaller
		}
		return p, err
	}
	var p *Principal
	var err error
	switch {
	case len(c.bearer) == 1:
		scheme, text, ok := strings.Cut(c.bearer[0], " ")
		if text = strings.TrimLeft(text, " "); !ok || !strings.EqualFold(scheme, "Bearer") {
			return nil, errMalformed
		}
		p, err = a.bearer(ctx, text)
	case len(c.key) == 1:
		p, err = a.apiKey(c.key[0])
	}
	if err == nil && c.peer != "" {
		who := Principal{outsider: true} // a certificate does not say for whom the call is made
		if p != nil {
			who = *p
		}
		who.Caller = c.peer
		p = &who
	}
	return p, err
}

// authorize returns the principal of a call if the policy allows it. It counts and logs refusals.
func (a *Auth) authorize(ctx context.Context, p *Policy, s *shown, c call) (*Principal, error) {
	if p.rule == public {
		return a.nobody, nil
	}
	who, err := a.principal(ctx, s)
	if err == nil {
		err = check(p, who, c)
	}
	if err != nil {
		a.refuse(ctx, p, who, err)
		return nil, err
	}
	a.allowed.Inc()
	return cmp.Or(who, a.nobody), nil
}

func (a *Auth) refuse(ctx context.Context, p *Policy, who *Principal, err error) {
	reason := reasonOf(err)
	a.checks.WithLabelValues(a.service, "refused", reason).Inc()
	attrs := []slog.Attr{slog.String("reason", reason), slog.String("policy", p.String())}
	if who != nil {
		attrs = append(attrs, slog.String("subject", who.Subject), slog.String("caller", who.Caller))
	}
	a.log.LogAttrs(ctx, slog.LevelInfo, "call refused", attrs...)
}
