package auth

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A Policy says who may make a call. The zero value allows nobody.
type Policy struct {
	rule  rule
	names []string
	of    []Policy
}

// Policies are policies by the pattern of a route, such as "GET /users/{id}", by the full method of
// an RPC, such as "/user.v1.UserService/GetUser", or by service for all its methods without a
// policy of their own, such as "/user.v1.UserService/*".
type Policies map[string]Policy

// A rule is a kind of Policy.
type rule int

const (
	nobody rule = iota
	public
	optional
	authenticated
	scope
	role
	service
	owner
	subject
	anyOf
	allOf
)

// Public allows everybody. Credentials are ignored: From returns nil.
func Public() Policy { return Policy{rule: public} }

// Optional allows everybody, but a credential that is shown must be valid.
func Optional() Policy { return Policy{rule: optional} }

// Authenticated allows every caller with a valid credential: users, machines and services.
func Authenticated() Policy { return Policy{rule: authenticated} }

// Scope allows principals with the scope.
func Scope(name string) Policy { return Policy{rule: scope, names: []string{name}} }

// Role allows principals with the role.
func Role(name string) Policy { return Policy{rule: role, names: []string{name}} }

// Service allows calls that one of these services makes, on its own behalf or that of anybody.
func Service(names ...string) Policy { return Policy{rule: service, names: names} }

// Owner allows the subject named by the route's {param}, or by the field param of a unary RPC's
// request, which must be a string or an integer. In Check and on streams it allows nobody.
func Owner(param string) Policy { return Policy{rule: owner, names: []string{param}} }

// Subject allows the subject id. It is for Check in a handler that has found the owner in the body
// or in its database. Subject("") allows nobody.
func Subject(id string) Policy { return Policy{rule: subject, names: []string{id}} }

// Any allows a call that at least one of the policies allows.
func Any(policies ...Policy) Policy { return Policy{rule: anyOf, of: policies} }

// All allows a call that all of the policies allow. Without policies it allows nobody.
func All(policies ...Policy) Policy { return Policy{rule: allOf, of: policies} }

// IsZero reports whether p is the zero value.
func (p Policy) IsZero() bool { return p.rule == nobody }

// String describes the policy: "owner of {id} or scope users:read".
func (p Policy) String() string {
	switch list := strings.Join(p.names, ", "); p.rule {
	case public:
		return "public"
	case optional:
		return "optional"
	case authenticated:
		return "authenticated"
	case scope:
		return "scope " + list
	case role:
		return "role " + list
	case service:
		return "service " + list
	case owner:
		return "owner of {" + list + "}"
	case subject:
		return "subject " + list
	case anyOf, allOf:
		word, texts := " or ", make([]string, len(p.of))
		if p.rule == allOf {
			word = " and "
		}
		for i, of := range p.of {
			if texts[i] = of.String(); len(of.of) > 1 && of.rule != p.rule {
				texts[i] = "(" + texts[i] + ")"
			}
		}
		if len(texts) > 0 {
			return strings.Join(texts, word)
		}
	}
	return "nobody"
}

// A call is the input of Owner: a request, or the message of an RPC; neither in Check.
type call struct {
	request *http.Request
	message any
}

func (c call) isOf(subject, param string) bool {
	if c.request != nil {
		return c.request.PathValue(param) == subject
	}
	m, ok := c.message.(proto.Message)
	if !ok {
		return false
	}
	r := m.ProtoReflect()
	field := r.Descriptor().Fields().ByName(protoreflect.Name(param))
	if field == nil || field.IsList() || field.IsMap() {
		return false
	}
	switch r.Get(field).Interface().(type) {
	case string, int32, int64, uint32, uint64:
		return r.Get(field).String() == subject
	}
	return false
}

// allows reports whether p allows who to make the call; nil is nobody.
func allows(p *Policy, who *Principal, c call) bool {
	switch p.rule {
	case public, optional:
		return true
	case anyOf:
		return slices.ContainsFunc(p.of, func(of Policy) bool { return allows(&of, who, c) })
	case allOf:
		return len(p.of) > 0 && !slices.ContainsFunc(p.of, func(of Policy) bool { return !allows(&of, who, c) })
	}
	if who == nil {
		return false
	}
	switch p.rule {
	case authenticated:
		return !who.outsider && (who.Subject != "" || who.Caller != "")
	case scope:
		return who.Has(p.names[0])
	case role:
		return slices.Contains(who.Roles, p.names[0])
	case service:
		return who.Caller != "" && slices.Contains(p.names, who.Caller)
	case owner:
		return who.Subject != "" && c.isOf(who.Subject, p.names[0])
	case subject:
		return who.Subject != "" && who.Subject == p.names[0]
	}
	return false
}

func check(p *Policy, who *Principal, c call) error {
	switch {
	case allows(p, who, c):
		return nil
	case who == nil || who.outsider:
		return ErrUnauthenticated
	}
	return ErrForbidden
}

// parts calls f for p and all policies in it.
func parts(p *Policy, f func(*Policy)) {
	f(p)
	for i := range p.of {
		parts(&p.of[i], f)
	}
}

// Check returns nil if p allows the principal of ctx, ErrUnauthenticated if ctx has none, and
// otherwise ErrForbidden. It is for handlers that know more than the route, as with Subject.
func Check(ctx context.Context, p Policy) error { return check(&p, From(ctx), call{}) }

// The errors of Check. Each has a gRPC status, so that the handler of an RPC can return it.
const (
	ErrUnauthenticated = denied("no credential was shown: expected a bearer token or an API key")
	ErrForbidden       = denied("this is not allowed for the credential that was shown")
)

// errMany is for a call with several credentials, since it is unclear which one was meant.
const errMany = denied("more than one credential was shown: expected one, in Authorization or X-Api-Key")

// denied is an error whose text is shown to the caller.
type denied string

func (d denied) Error() string { return "auth: " + string(d) }

// GRPCStatus is for package status.
func (d denied) GRPCStatus() *status.Status { return status.New(answers[d].code, string(d)) }

// answers are the statuses for the caller, and the reasons for log and metric.
var answers = map[denied]struct {
	code   codes.Code
	status int
	reason string
}{
	ErrUnauthenticated: {codes.Unauthenticated, http.StatusUnauthorized, "none_shown"},
	ErrForbidden:       {codes.PermissionDenied, http.StatusForbidden, "forbidden"},
	errMany:            {codes.InvalidArgument, http.StatusBadRequest, "several_shown"},
}
