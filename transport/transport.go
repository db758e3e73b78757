package transport

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/telemetry"
)

const (
	dialTimeout   = time.Second
	idleTimeout   = 90 * time.Second
	keepAlive     = 30 * time.Second
	idlePerTarget = 256 // per host, above the concurrency of a busy service
)

// Options configure a Transport. The zero value calls external targets only, with
// default settings and without telemetry.
type Options struct {
	Caller    string               // name of the calling service, for metrics; default the telemetry's service
	Resolver  discovery.Resolver   // finds services; nil knows none
	Local     *Local               // instances of this process; nil for none
	Telemetry *telemetry.Telemetry // spans, metrics and log; nil for none
	Default   Settings             // of every target
	Targets   map[string]Settings  // by service name, host or host:port; zero fields come from Default
}

// A Transport makes the calls of one service. Make it with New. All methods may be
// called concurrently.
type Transport struct {
	opts     Options
	tracer   trace.Tracer
	spanKind []trace.SpanStartOption
	log      *slog.Logger
	metrics  *metrics
	began    time.Time // origin of the engine's clock: a duration is cheaper to take, keep and compare than a time

	http     http.RoundTripper // to instances of services
	httpDNS  http.RoundTripper // to external targets: the one that minds proxies and speaks HTTP/2 over TLS
	dialGRPC func(address string) (*grpc.ClientConn, error)

	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	watchers sync.WaitGroup
	targets  sync.Map   // what a caller wrote → *target
	mu       sync.Mutex // guards what follows
	byName   map[string]*target
	closed   bool
}

var _ http.RoundTripper = (*Transport)(nil)

// New returns a transport. It starts nothing until the first call to a target; Close ends it.
// Transports with the same Telemetry share their metrics.
func New(opts Options) *Transport {
	t := &Transport{
		opts:     opts,
		tracer:   noop.NewTracerProvider().Tracer(""),
		log:      slog.New(slog.DiscardHandler),
		began:    time.Now(),
		spanKind: clientKind(),
		dialGRPC: dialGRPC,
		byName:   map[string]*target{},
	}
	if tel := opts.Telemetry; tel != nil {
		t.tracer, t.log = tel.Tracer(), tel.Logger()
		if t.opts.Caller == "" {
			t.opts.Caller = tel.Service()
		}
		t.metrics = newMetrics(tel.Registry(), t.opts.Caller, t)
	} else {
		t.metrics = newMetrics(nil, opts.Caller, t)
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}
	inside := &http.Transport{
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: 2 * time.Second,
		MaxIdleConns:        0, // bounded per host
		MaxIdleConnsPerHost: idlePerTarget,
		IdleConnTimeout:     idleTimeout,
		// The caller decides: a transport that unpacks behind its back costs a gateway a round of packing.
		DisableCompression: true,
	}
	outside := inside.Clone()
	outside.Proxy = http.ProxyFromEnvironment
	outside.ForceAttemptHTTP2 = true
	outside.DisableCompression = false
	t.http, t.httpDNS = inside, outside
	return t
}

// Close ends the watching of registries and closes all connections. HTTP calls under way go on, gRPC calls
// end with Canceled, new calls fail with ErrClosed. It returns nil; a second call does nothing.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.closed = true
	targets := t.byName
	t.byName = map[string]*target{}
	t.targets.Clear()
	t.mu.Unlock()
	t.cancel()
	t.watchers.Wait()
	t.metrics.forget(t)
	for _, tg := range targets {
		for _, in := range tg.instances() {
			in.gone.Store(true)
			in.closeConn()
		}
	}
	for _, rt := range []http.RoundTripper{t.http, t.httpDNS} {
		if idle, ok := rt.(interface{ CloseIdleConnections() }); ok {
			idle.CloseIdleConnections()
		}
	}
	return nil
}

// CloseIdleConnections closes the HTTP connections that no call uses. http.Client calls it.
func (t *Transport) CloseIdleConnections() {
	for _, rt := range []http.RoundTripper{t.http, t.httpDNS} {
		if idle, ok := rt.(interface{ CloseIdleConnections() }); ok {
			idle.CloseIdleConnections()
		}
	}
}

// State reports the breaker of a target, named as in a call. A target that was never called is Closed.
func (t *Transport) State(target string) BreakerState {
	name, _, _ := address(target, false)
	t.mu.Lock()
	tg := t.byName[name]
	t.mu.Unlock()
	if tg == nil {
		return Closed
	}
	return tg.breaker.state(t.now())
}

func (t *Transport) now() time.Duration { return time.Since(t.began) }

// target returns the target that a caller names host, made at its first call.
func (t *Transport) target(host string, tls bool) (*target, error) {
	if !tls { // the common case is one look-up
		if tg, ok := t.targets.Load(host); ok {
			return tg.(*target), nil
		}
	}
	name, service, external := address(host, tls)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, ErrClosed
	}
	tg := t.byName[name]
	if tg == nil {
		tg = t.newTarget(name, service, external)
		t.byName[name] = tg
	}
	if !tls {
		t.targets.Store(host, tg)
	}
	return tg, nil
}

// newTarget makes a target and follows its instances. t.mu must be held.
func (t *Transport) newTarget(name, service, external string) *target {
	set := settingsFor(t.opts, name)
	tg := &target{
		name: name, service: service, external: external,
		set: set, local: t.opts.Local, log: t.log,
		breaker:   breaker{threshold: set.Breaker.FailureThreshold, recovery: set.Breaker.RecoveryTimeout},
		budget:    budget{ratio: set.Retry.Budget},
		changed:   make(chan struct{}),
		spanNames: spanNames(name),
	}
	tg.budget.advance(t.now())
	tg.metrics = t.metrics.target(name)
	if t.opts.Resolver == nil || service == "" {
		tg.useDNS()
		return tg
	}
	t.watchers.Go(func() { tg.watch(t.ctx, t.opts.Resolver) })
	return tg
}
