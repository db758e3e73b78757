package auth

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/kaptar/kaptar/internal/deadline"
	"github.com/kaptar/kaptar/internal/principal"
)

// A Principal is who a call is made for. It is shared by calls: nobody may change it.
type Principal struct {
	// Subject is a user or a machine: the sub of a token behind the prefix of its issuer, or
	// "key:NAME" for an API key. It is "" for a service that acts for itself.
	Subject string
	Roles   []string
	// Scopes are what it may do. "*", which API keys alone can have, stands for all.
	Scopes []string
	// Caller is the service that has made this call; "" when it came from outside.
	Caller string
	// Expires is when the credential ends that it has shown; the zero time is never.
	Expires time.Time

	// outsider is nobody, for whom Caller has made the call: it is no call of the caller's own, as far
	// as is known.
	outsider bool
}

// Has reports whether p has the scope; nil has none.
func (p *Principal) Has(scope string) bool {
	return p != nil && slices.ContainsFunc(p.Scopes, func(s string) bool { return s == scope || s == allScopes })
}

// Name says who p is in one word, for records: Subject, or else Caller.
func (p *Principal) Name() string {
	if p == nil {
		return ""
	}
	return cmp.Or(p.Subject, p.Caller)
}

// allScopes stands for every scope.
const allScopes = "*"

// same reports whether p says what q does.
func (p *Principal) same(q *Principal) bool {
	return p.Subject == q.Subject && p.Caller == q.Caller && p.outsider == q.outsider && p.Expires.Equal(q.Expires) &&
		slices.Equal(p.Roles, q.Roles) && slices.Equal(p.Scopes, q.Scopes)
}

// From returns who the call of ctx is made for; nil is nobody. What a service does on behalf of
// nobody has that service as Caller, and no Subject.
func From(ctx context.Context) *Principal {
	p, _ := ctx.Value(principal.Key{}).(*Principal)
	if p != nil && p.outsider && p.Caller == "" {
		return nil
	}
	return p
}

// With returns a context whose calls are made for p. With nil a service calls for itself, as it does
// where no call from elsewhere has led to what it does, such as in the handler of an event.
func With(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principal.Key{}, p)
}

// enter is With for a call that begins. One that package server serves needs no context of its own.
func enter(ctx context.Context, p *Principal) context.Context {
	if l := deadline.Of(ctx); l != nil && ctx.Value(principal.Key{}) == nil {
		l.Give(principal.Key{}, p)
		return ctx
	}
	return With(ctx, p)
}
