package transport

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/kaptar/kaptar/internal/h1"
)

// calledKey is the context key of the target that a connection is made for. The address alone does
// not tell whose certificate to expect.
type calledKey struct{}

// tlsFor is the configuration for connections to a service.
func (t *Transport) tlsFor(service string) *tls.Config {
	if t.opts.TLS.ServerName != "" {
		return t.opts.TLS
	}
	config := t.opts.TLS.Clone()
	config.ServerName = service
	return config
}

// dialTLS connects to an instance of the target in the context.
func (t *Transport) dialTLS(dialer *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		raw, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		service, _ := ctx.Value(calledKey{}).(string)
		conn := tls.Client(raw, t.tlsFor(service))
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = raw.Close() // the handshake's error says more
			return nil, err
		}
		return conn, nil
	}
}

// lean makes the single attempts of HTTP calls to instances. What the lean client does not do goes
// through next.
func (t *Transport) lean(dialer *net.Dialer, next http.RoundTripper) http.RoundTripper {
	opts := &h1.Options{
		Dial:             dialer.DialContext,
		TLS:              t.opts.TLS,
		HandshakeTimeout: handshakeTimeout,
		IdlePerHost:      idlePerTarget,
		IdleTimeout:      idleTimeout,
		Next:             next,
	}
	if t.opts.TLS != nil {
		opts.ServerName = func(ctx context.Context) string {
			service, _ := ctx.Value(calledKey{}).(string)
			return service
		}
	}
	return h1.New(opts)
}

// dialGRPC makes the connection to one instance, which takes place with the first call. All policy
// is the engine's, so grpc-go's retries and service configuration are off. It goes on dialling an
// instance that is down about once a second, so that the breaker's probe finds a connection when
// there can be one.
func (t *Transport) dialGRPC(tg *target, address string, external bool) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if t.opts.TLS != nil && !external {
		creds = credentials.NewTLS(t.tlsFor(tg.service))
	}
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", addr)
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
