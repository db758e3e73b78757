package auth

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/internal/identity"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/transport"
)

// refused is the text that a caller gets for every invalid credential.
const refused = "the credential that was shown is not accepted: it may have expired"

func reasonOf(err error) string {
	if r, ok := errors.AsType[refusal](err); ok {
		return string(r)
	}
	if d, ok := errors.AsType[denied](err); ok {
		return answers[d].reason
	}
	return "issuer_away"
}

// problem is the answer for an error of authorize.
func problem(w http.ResponseWriter, r *http.Request, err error) {
	p := server.Problem{Status: http.StatusServiceUnavailable, Dependency: server.DependencyOf(err), Detail: status.Convert(err).Message()}
	if d, ok := errors.AsType[denied](err); ok {
		p.Status = answers[d].status
	}
	if _, bad := errors.AsType[refusal](err); bad {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		p.Status, p.Detail = http.StatusUnauthorized, refused
	} else if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	server.WriteProblem(w, r, p)
}

// Require returns a handler that calls h if p allows the caller. Otherwise it answers with a
// problem: 401, 403, 400 for several credentials, or 503 when an issuer's keys cannot be fetched.
// Use it inside of a mux, where the path values are known.
func (a *Auth) Require(p Policy, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.serve(&p, h, w, r) })
}

func (a *Auth) serve(p *Policy, h http.Handler, w http.ResponseWriter, r *http.Request) {
	shown := shown{r.Header[transport.PrincipalHeader], r.Header["Authorization"], r.Header["X-Api-Key"], ""}
	shown.peer, _ = identity.ServiceOf(r.TLS)
	who, err := a.authorize(r.Context(), p, &shown, call{request: r})
	if err != nil {
		problem(w, r, err)
		return
	}
	if ctx := enter(r.Context(), who); ctx != r.Context() {
		r = r.WithContext(ctx)
	}
	h.ServeHTTP(w, r)
}

// Unary returns an interceptor that refuses unary RPCs that their policy does not allow, and those
// without a policy. The policies must not be changed afterwards.
func (a *Auth) Unary(policies Policies) grpc.UnaryServerInterceptor { return a.unary(policies.table()) }

func (a *Auth) unary(policies table) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, err := a.rpc(ctx, policies, info.FullMethod, req)
		if err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
}

// Stream does the same for streams. Those of gRPC's health and reflection are not checked.
func (a *Auth) Stream(policies Policies) grpc.StreamServerInterceptor {
	return a.stream(policies.table())
}

func (a *Auth) stream(policies table) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, err := a.rpc(ss.Context(), policies, info.FullMethod, nil)
		if err != nil {
			return err
		}
		return handler(srv, &stream{ss, ctx})
	}
}

type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }

func (a *Auth) rpc(ctx context.Context, policies table, method string, message any) (context.Context, error) {
	if strings.HasPrefix(method, "/grpc.health.") || strings.HasPrefix(method, "/grpc.reflection.") {
		return ctx, nil // they tell whether and what the server serves
	}
	p := policies[method]
	if p == nil {
		p = cmp.Or(policies[method[:strings.LastIndexByte(method, '/')+1]+"*"], new(Policy))
	}
	var c shown
	if p.rule != public {
		c = shownBy(ctx)
	}
	who, err := a.authorize(ctx, p, &c, call{message: message})
	if err != nil {
		if _, bad := errors.AsType[refusal](err); bad {
			err = status.Error(codes.Unauthenticated, refused)
		}
		return ctx, err
	}
	return enter(ctx, who), nil
}

func shownBy(ctx context.Context) (s shown) {
	if s.internal = metadata.ValueFromIncomingContext(ctx, "kaptar-principal"); s.internal == nil {
		s.bearer = metadata.ValueFromIncomingContext(ctx, "authorization")
		s.key = metadata.ValueFromIncomingContext(ctx, "x-api-key")
	}
	if from, ok := peer.FromContext(ctx); ok {
		if info, ok := from.AuthInfo.(credentials.TLSInfo); ok {
			s.peer, _ = identity.ServiceOf(&info.State)
		}
	}
	return s
}

// A table has policies where no call copies them.
type table map[string]*Policy

func (p Policies) table() table {
	t := make(table, len(p))
	for name, policy := range p {
		t[name] = &policy
	}
	return t
}
