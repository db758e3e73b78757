package kaptartest

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/transport"
)

// as is the principal of the test's own calls.
type as struct {
	secret string // auth.internal_keys of the services
	who    *auth.Principal
	auth   *auth.Auth
}

func (a *as) become(who *auth.Principal, secret string) (err error) {
	o := auth.Options{Credentials: auth.Credentials{}}
	for key := range strings.SplitSeq(secret, ",") {
		o.InternalKeys = append(o.InternalKeys, config.Secret(key))
	}
	if who != nil {
		o.Name = who.Caller
	}
	a.secret, a.who = secret, who
	a.auth, err = auth.New(&o)
	return err
}

func (a *as) token(ctx context.Context, service string) string {
	if auth.From(ctx) == nil {
		ctx = auth.With(ctx, a.who)
	}
	if auth.From(ctx) == nil {
		return ""
	}
	return a.auth.Token(ctx, service)
}

// credentials are the headers with which a request brings its own credentials.
var credentials = []string{"authorization", "x-api-key", strings.ToLower(transport.PrincipalHeader)}

// A network is the transport of the test's HTTP calls. It embeds http.Transport so that the method
// CloseIdleConnections of http.Client reaches it: a connection to services that have stopped must
// not be reused.
type network struct {
	*http.Transport
	as *as
}

// RoundTrip implements http.RoundTripper.
func (n network) RoundTrip(r *http.Request) (*http.Response, error) {
	own := slices.ContainsFunc(credentials, func(name string) bool { return r.Header.Get(name) != "" })
	if token := n.as.token(r.Context(), r.URL.Host); token != "" && !own {
		r = r.Clone(r.Context())
		r.Header.Set(transport.PrincipalHeader, token)
	}
	return n.Transport.RoundTrip(r)
}

func (a *as) outgoing(ctx context.Context, service string) context.Context {
	md, _ := metadata.FromOutgoingContext(ctx)
	own := slices.ContainsFunc(credentials, func(name string) bool { return len(md.Get(name)) > 0 })
	if token := a.token(ctx, service); token != "" && !own {
		ctx = metadata.AppendToOutgoingContext(ctx, transport.PrincipalHeader, token)
	}
	return ctx
}

func (a *as) unary(service string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return next(a.outgoing(ctx, service), method, req, reply, cc, opts...)
	}
}

func (a *as) stream(service string) grpc.StreamClientInterceptor {
	return func(
		ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		return next(a.outgoing(ctx, service), desc, cc, method, opts...)
	}
}
