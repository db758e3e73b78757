package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	attrs "google.golang.org/grpc/attributes"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/kaptar/kaptar/internal/h1"
)

// calledKey is the context key of the service for which a connection is made. The address does not
// tell which name the certificate must have.
type calledKey struct{}

func called(ctx context.Context) string {
	service, _ := ctx.Value(calledKey{}).(string)
	return service
}

// tlsFor returns the TLS configuration for connections to a service.
func (t *Transport) tlsFor(service string) *tls.Config {
	if t.opts.TLS.ServerName != "" {
		return t.opts.TLS
	}
	config := t.opts.TLS.Clone()
	config.ServerName = service
	return config
}

// A dial connects to an address, as net.Dialer's DialContext does.
type dial func(ctx context.Context, network, address string) (net.Conn, error)

func dialInstance(ctx context.Context, network, address string) (net.Conn, error) {
	return dial((&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext).again(ctx, network, address)
}

// again dials once more if the first time ended well after its timeout: then this process stood still, and
// a call that cannot be made again, as its body is sent once, need not fail for it.
func (d dial) again(ctx context.Context, network, address string) (net.Conn, error) {
	began := time.Now()
	conn, err := d(ctx, network, address)
	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() && time.Since(began) > dialTimeout+100*time.Millisecond && ctx.Err() == nil {
		return d(ctx, network, address)
	}
	return conn, err
}

// dialTLS connects to an instance of the target in the context.
func (t *Transport) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := dialInstance(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, t.tlsFor(called(ctx)))
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the handshake's error says more
		return nil, err
	}
	return conn, nil
}

// lean returns the client for single attempts of HTTP calls to instances. It passes on to next what
// it does not support.
func (t *Transport) lean(next http.RoundTripper) http.RoundTripper {
	return h1.New(&h1.Options{
		Dial:             dialInstance,
		TLS:              t.opts.TLS,
		ServerName:       called,
		HandshakeTimeout: handshakeTimeout,
		IdlePerHost:      idlePerTarget,
		IdleTimeout:      idleTimeout,
		Next:             next,
	})
}

// inside holds a client that Renew can replace.
type inside struct{ atomic.Pointer[http.Transport] }

func (i *inside) RoundTrip(r *http.Request) (*http.Response, error) { return i.Load().RoundTrip(r) }

// CloseIdleConnections is looked for by package h1.
func (i *inside) CloseIdleConnections() { i.Load().CloseIdleConnections() }

// Renew makes further calls use new connections to instances, with the present certificates. Old
// connections are closed after their last call. It may be called at any time.
func (t *Transport) Renew() {
	t.once.Do(t.start)
	old := t.inside.Load()
	t.inside.Store(old.Clone()) // one that gets no more calls keeps no connection
	t.CloseIdleConnections()
	old.CloseIdleConnections()
	for r, address := range t.rpcs.Range {
		r.(*manual.Resolver).UpdateState(endpoint(address.(string)))
	}
}

// endpoint returns a grpc-go resolver that resolves to the address of an instance.
func (t *Transport) endpoint(address string) *manual.Resolver {
	r := manual.NewBuilderWithScheme("instance")
	r.InitialState(endpoint(address))
	r.BuildCallback = func(resolver.Target, resolver.ClientConn, resolver.BuildOptions) { t.rpcs.Store(r, address) }
	r.CloseCallback = func() { t.rpcs.Delete(r) }
	return r
}

// endpoint returns address as a state that grpc-go takes for a new address, so that it makes a new
// connection, and closes the old one after its last call.
func endpoint(address string) resolver.State {
	at := resolver.Address{Addr: address, Attributes: attrs.New(calledKey{}, new(int))}
	return resolver.State{Endpoints: []resolver.Endpoint{{Addresses: []resolver.Address{at}}}}
}

// dialGRPC returns a connection to one instance; it connects with the first call. grpc-go's own
// retries and service configuration are off, because this package does that. An instance that is
// down is dialled about once a second, so that the breaker's probe finds a connection as soon as
// there can be one.
func (t *Transport) dialGRPC(tg *target, address string, external bool) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if t.opts.TLS != nil && !external {
		creds = credentials.NewTLS(t.tlsFor(tg.service))
	}
	r := t.endpoint(address)
	return grpc.NewClient(r.Scheme()+":///"+address,
		grpc.WithResolvers(r),
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return dialInstance(ctx, "tcp", addr)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: dialTimeout,
		}),
		grpc.WithIdleTimeout(idleTimeout), // an instance may no longer be in the subset
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepAlive, Timeout: 10 * time.Second}),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
	)
}
