package auth

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/kaptar/kaptar/internal/deadline"
	"github.com/kaptar/kaptar/internal/principal"
)

// A Principal is the user, machine or service on whose behalf a call is made. It is shared between
// calls and must not be changed.
type Principal struct {
	// Subject is a user or a machine: the sub of a token with the prefix of its issuer in front, or
	// "key:NAME" for an API key. It is "" for a service that acts on its own behalf.
	Subject string
	Roles   []string
	// Scopes are what it may do. "*" means all; only API keys can have it.
	Scopes []string
	// Caller is the service that made this call; "" if it came from outside.
	Caller string
	// Expires is when its credential expires; the zero time means never.
	Expires time.Time

	// outsider means that Caller makes the call on behalf of nobody, and not on its own behalf.
	outsider bool
}

// Has reports whether p has the scope; nil has none.
func (p *Principal) Has(scope string) bool {
	return p != nil && slices.ContainsFunc(p.Scopes, func(s string) bool { return s == scope || s == allScopes })
}

// Name returns p in one word, for records: the Subject, or else the Caller.
func (p *Principal) Name() string {
	if p == nil {
		return ""
	}
	return cmp.Or(p.Subject, p.Caller)
}

// allScopes stands for every scope.
const allScopes = "*"

func (p *Principal) same(q *Principal) bool {
	return p.Subject == q.Subject && p.Caller == q.Caller && p.outsider == q.outsider && p.Expires.Equal(q.Expires) &&
		slices.Equal(p.Roles, q.Roles) && slices.Equal(p.Scopes, q.Scopes)
}

// From returns the principal of the call with context ctx; nil means nobody. A call that a service
// makes on behalf of nobody has that service as Caller and no Subject.
func From(ctx context.Context) *Principal {
	p, _ := ctx.Value(principal.Key{}).(*Principal)
	if p != nil && p.outsider && p.Caller == "" {
		return nil
	}
	return p
}

// With returns a context whose calls are made on behalf of p. With nil the service calls on its own
// behalf, as it does where no incoming call is the cause, such as in the handler of an event.
func With(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principal.Key{}, p)
}

// enter is With for an incoming call. A call served by package server needs no new context.
func enter(ctx context.Context, p *Principal) context.Context {
	if l := deadline.Of(ctx); l != nil && ctx.Value(principal.Key{}) == nil {
		l.Give(principal.Key{}, p)
		return ctx
	}
	return With(ctx, p)
}
