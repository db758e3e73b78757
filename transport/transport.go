package transport

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/telemetry"
)

const (
	dialTimeout      = time.Second
	handshakeTimeout = 2 * time.Second
	idleTimeout      = 90 * time.Second
	keepAlive        = 30 * time.Second
	idlePerTarget    = 256 // per host, above the concurrency of a busy service
)

// Options configure a Transport. With nil or the zero value it calls only external targets, with
// default settings and without telemetry.
type Options struct {
	Caller    string               // name of the calling service, for metrics; default the telemetry's service
	Resolver  discovery.Resolver   // finds services; nil knows none
	Local     *Local               // instances of this process; nil for none
	Telemetry *telemetry.Telemetry // spans, metrics and log; nil for none
	Default   Settings             // of every target
	Targets   map[string]Settings  // by service name, host or host:port; zero fields come from Default

	// Base makes the single attempts of HTTP calls to instances on the network, whose address is the
	// URL's host. It is not used for calls within the process and to external targets. Nil means a
	// fast HTTP/1.1 client, which passes on to net/http what it does not support.
	Base http.RoundTripper
	// TLS, if not nil, makes calls to instances on the network use TLS: HTTP with https, gRPC with
	// credentials. An instance must then show a certificate for its service's name, unless ServerName
	// says otherwise; Certificates are shown to it. When they change, call Renew. With Base, Base must
	// do the handshake. For external targets HTTP uses TLS if the URL is https, and gRPC is plain
	// text. With TLS a bare name that only DNS knows does not count as external.
	TLS *tls.Config
	// Weights apply to every call; nil means none. Without weights instances share by load.
	Weights *Weights
	// Faults are injected into calls; nil means none.
	Faults *Faults
	// Principal returns the principal of a call to a service. It is sent as PrincipalHeader, unless it
	// is "" or the call has an Authorization or X-Api-Key of its own. It is called for services named
	// without a dot or port, and not sent to external targets, such as a bare name that only DNS knows
	// when there is no TLS. A PrincipalHeader that the caller has set is removed. Nil means none.
	Principal func(ctx context.Context, service string) string
	// Sticky returns the key of a call, such as its user, by which it gets a version while weights of
	// versions are set. All calls to a service with one key go to the same version, whoever makes
	// them, and a version whose share grows keeps its keys. Calls with the key "" are distributed one
	// by one. Nil means no keys.
	Sticky func(ctx context.Context) string
	// Zone is where the caller runs. Instances whose Meta has the same "zone" are preferred, as long
	// as those that are not ejected are at least half of an even share, which is the number of
	// instances divided by the number of zones. Empty means no preference.
	Zone string
	// InstanceID is the caller's own ID. It determines the subset of a large service that the caller
	// uses (see Settings.Subset). Default: a random one.
	InstanceID string

	// Client wraps every HTTP call with all its attempts, the first outermost.
	Client []func(http.RoundTripper) http.RoundTripper
	// Unary and Stream are the same for gRPC. Their *grpc.ClientConn is nil: a target has many.
	Unary  []grpc.UnaryClientInterceptor
	Stream []grpc.StreamClientInterceptor
}

// A Transport makes the calls of one service. Make it with New; it may be used concurrently.
type Transport struct {
	opts    *Options
	once    sync.Once            // of start, which makes what follows
	caller  string               // for metrics
	id      string               // of the calling instance
	tel     *telemetry.Telemetry // nil for none
	log     *slog.Logger
	metrics *metrics
	local   *Local
	weights *Weights
	client  http.RoundTripper // Options.Client around engine
	http    http.RoundTripper // to instances of services
	inside  inside            // what http passes on
	rpcs    sync.Map          // *manual.Resolver → address, of connections that are not idle
	httpDNS http.RoundTripper // to external targets: the one that minds proxies and speaks HTTP/2 over TLS

	lookup   func(ctx context.Context, host string) ([]string, error)
	began    time.Time       // origin of the engine's clock: a duration is cheaper to take, keep and compare than a time
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	watchers sync.WaitGroup
	targets  sync.Map   // what a caller wrote → *target
	mu       sync.Mutex // guards what follows
	byName   map[string]*target
	closed   bool
	sweeper  *time.Timer   // nil while there are no targets
	swept    time.Duration // when it was last looked for unused ones
}

var _ http.RoundTripper = (*Transport)(nil)

// New returns a transport. It starts nothing until the first call; until then opts may be changed.
// The caller must Close it. Transports with the same Telemetry share their metrics.
func New(opts *Options) *Transport {
	opts = cmp.Or(opts, new(Options))
	t := &Transport{opts: opts, began: time.Now(), byName: map[string]*target{}, lookup: net.DefaultResolver.LookupHost}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// Options returns the options given to New. They may be changed before the first call.
func (t *Transport) Options() *Options { return t.opts }

func (t *Transport) start() {
	own := t.opts
	t.tel, t.log = own.Telemetry, slog.New(slog.DiscardHandler)
	var registry prometheus.Registerer
	t.caller = own.Caller
	if tel := own.Telemetry; tel != nil {
		t.log, registry = tel.Logger(), tel.Registry()
		t.caller = cmp.Or(own.Caller, tel.Service())
	}
	t.metrics = newMetrics(registry, t.caller, t)
	t.local, t.weights = cmp.Or(own.Local, new(Local)), cmp.Or(own.Weights, new(Weights))
	t.id = cmp.Or(own.InstanceID, rand.Text())
	plain := &http.Transport{
		DialContext:         dialInstance,
		TLSHandshakeTimeout: handshakeTimeout,
		MaxIdleConns:        0, // bounded per host
		MaxIdleConnsPerHost: idlePerTarget,
		IdleConnTimeout:     idleTimeout,
		DisableCompression:  true, // the caller decides: unpacking costs a gateway a round of packing
	}
	outside := plain.Clone()
	outside.Proxy = http.ProxyFromEnvironment
	outside.ForceAttemptHTTP2 = true
	outside.DisableCompression = false
	outside.MaxIdleConns = manyTargets
	if own.TLS != nil {
		plain.DialTLSContext = t.dialTLS
	}
	t.inside.Store(plain)
	t.http, t.httpDNS = cmp.Or(own.Base, t.lean(&t.inside)), outside
	t.client = engine{t}
	for _, around := range slices.Backward(own.Client) {
		t.client = around(t.client)
	}
}

// Close stops watching the registry and closes all connections. HTTP calls in progress go on, gRPC
// calls end with Canceled, and new calls fail with ErrClosed. It always returns nil.
func (t *Transport) Close() error {
	t.once.Do(t.start)
	t.mu.Lock()
	t.closed = true
	targets := t.byName
	t.byName = map[string]*target{}
	t.targets.Clear()
	if t.sweeper != nil {
		t.sweeper.Stop()
	}
	t.mu.Unlock()
	t.cancel()
	t.watchers.Wait()
	t.metrics.breakers.transports.Delete(t)
	for _, tg := range targets {
		for _, in := range tg.instances() {
			in.gone.Store(true)
			in.closeConn()
		}
	}
	t.CloseIdleConnections()
	return nil
}

// CloseIdleConnections closes the HTTP connections that no call uses. http.Client calls it.
func (t *Transport) CloseIdleConnections() {
	t.once.Do(t.start)
	for _, rt := range []http.RoundTripper{t.http, t.httpDNS} {
		if idle, ok := rt.(interface{ CloseIdleConnections() }); ok {
			idle.CloseIdleConnections()
		}
	}
}

// State returns the breaker's state of a target, named as in a call; Closed if it was never called.
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

// target returns the target that a caller names host. The transport must have started.
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
		if len(t.byName) > manyTargets && t.now()-t.swept > forgetPause {
			gone := t.unused()
			t.watchers.Go(func() {
				for _, tg := range gone {
					tg.end()
				}
			})
		}
		tg = t.newTarget(name, service, external)
		t.byName[name] = tg
		if t.sweeper == nil {
			t.sweeper = time.AfterFunc(forgetEvery, t.forget)
		}
	}
	if !tls {
		t.targets.Store(host, tg)
		tg.hosts = append(tg.hosts, host)
	}
	return tg, nil
}

// newTarget makes a target and follows its instances. t.mu must be held.
func (t *Transport) newTarget(name, service, external string) *target {
	set := settingsFor(*t.opts, name)
	tg := &target{
		name: name, service: service, external: external, bare: name == service && !strings.ContainsAny(name, ".:"), made: t.now(),
		set: set, tr: t, local: t.local, log: t.log,
		breaker:   breaker{threshold: set.Breaker.FailureThreshold, recovery: set.Breaker.RecoveryTimeout},
		budget:    budget{ratio: set.Retry.Budget},
		hedges:    newHedges(set.Hedge),
		changed:   make(chan struct{}),
		spanAttrs: spanAttrs(name),
	}
	tg.used.Store(int64(t.now()))
	tg.ctx, tg.cancel = context.WithCancel(t.ctx)
	tg.calls.Store(mathrand.Uint64()) // else the first calls of all callers went to one group
	tg.refill(nil, t.now())
	tg.metrics = t.metrics.target(name, !tg.bare)
	if t.opts.Resolver == nil || service == "" {
		tg.unlisted, tg.made = true, -firstInstance // nobody else can know it
		tg.useDNS()
		return tg
	}
	t.watchers.Go(func() { tg.watch(tg.ctx, t.opts.Resolver) })
	return tg
}
