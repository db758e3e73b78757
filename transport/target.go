package transport

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/grpc/codes"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/steady"
)

const (
	firstInstance = time.Second // how long a call waits for the first instance, or an external target for the registry
	watchAgain    = time.Second // pause after a failed Watch; doubles to watchMost
	watchMost     = 30 * time.Second
)

// target is a service, or an external host, with all that is known of it. Times are durations since
// the transport was made.
type target struct {
	name      string // of the service, or host:port
	service   string // what the registry is asked for; "" for an IP address
	external  string // address to use when no registry knows it; "" for a service
	set       Settings
	tr        *Transport
	local     *Local
	log       *slog.Logger
	spanNames map[string]string // by method
	spanAttrs []attribute.KeyValue
	methods   sync.Map // of gRPC → whether the descriptor says that it may be repeated

	faults  atomic.Pointer[faultRules] // nil for none
	breaker breaker
	probing atomic.Bool // its instances are asked for their health
	budget  budget
	hedges  hedges // nil for none
	metrics *targetMetrics

	ctx    context.Context // of the watch and the probes; ends when the target is forgotten
	cancel context.CancelFunc
	used   atomic.Int64 // when the last call began
	asking atomic.Int64 // probes under way
	hosts  []string     // under which the transport keeps it; guarded by the transport's mu

	calls    atomic.Uint64 // numbers them for the weights
	pool     atomic.Pointer[pool]
	stale    atomic.Bool // the pool must be made anew, because of an ejection
	mu       sync.Mutex
	list     atomic.Pointer[[]*instance] // replaced as a whole
	changed  chan struct{}               // closed, and replaced, with each list
	found    bool                        // the list comes from the registry
	watchErr error                       // why the last Watch ended
}

// address splits what a caller calls a target. A host without dot and port is a service.
func address(host string, tls bool) (name, service, external string) {
	host = strings.ToLower(host)
	if !strings.ContainsAny(host, ".:") {
		return host, host, ""
	}
	bare, port, err := net.SplitHostPort(host)
	if err != nil || port == "" {
		bare, port = strings.Trim(host, "[]"), "80" // "[]" of an IPv6 address without port
		if tls {
			port = "443"
		}
	}
	external = net.JoinHostPort(bare, port)
	if _, err := netip.ParseAddr(bare); err == nil {
		return external, "", external
	}
	return external, host, external
}

// instances returns the present list; it must not be changed.
func (t *target) instances() []*instance {
	if list := t.list.Load(); list != nil {
		return *list
	}
	return nil
}

// await returns once there is an instance.
func (t *target) await(ctx context.Context, limit time.Duration) error {
	timer := time.NewTimer(min(limit, firstInstance))
	defer timer.Stop()
	for {
		t.mu.Lock()
		list, changed, cause := t.instances(), t.changed, t.watchErr
		t.mu.Unlock()
		if len(list) > 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return t.ended(ctx)
		case <-timer.C:
			if cause != nil {
				return t.fail(codes.Unavailable, "the registry failed with "+cause.Error(), ErrNoInstances)
			}
			return t.fail(codes.Unavailable, "no registry knows this service", ErrNoInstances)
		}
	}
}

// watch follows the registry until ctx ends.
func (t *target) watch(ctx context.Context, resolver discovery.Resolver) {
	if t.external != "" {
		// A registry that does not answer must not keep an external call waiting.
		defer time.AfterFunc(firstInstance, t.useDNS).Stop()
	}
	outage := steady.Outage{What: "registry", Log: t.log, Attrs: []slog.Attr{slog.String("target", t.name)}}
	pause := steady.Backoff{First: watchAgain, Max: watchMost}
	for {
		began := time.Now()
		err := resolver.Watch(ctx, t.service, func(list []discovery.Instance) {
			outage.Back(ctx)
			t.update(list)
		})
		if ctx.Err() != nil {
			return
		}
		t.mu.Lock()
		t.watchErr = err
		t.mu.Unlock()
		t.useDNS()
		if err != nil {
			outage.Lost(ctx, err) // the last instances stay in use
		}
		if time.Since(began) > watchMost {
			pause.Reset()
		}
		if !steady.Sleep(ctx, pause.Next()) {
			return
		}
	}
}

// update takes a list from the registry. Instances that stay keep what is remembered of them. The
// list is ordered by ID.
func (t *target) update(list []discovery.Instance) {
	if len(list) == 0 { // more often a fault of the registry than the truth; then the breaker soon says so
		t.useDNS()
		return
	}
	byID := func(a, b discovery.Instance) int { return strings.Compare(a.ID, b.ID) }
	if !slices.IsSortedFunc(list, byID) {
		slices.SortFunc(list, byID)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.tr.now()
	old, next := t.instances(), make([]*instance, len(list))
	var gone []*instance
	fresh := false
	for i := range list {
		told := &list[i]
		for len(old) > 0 && old[0].ID < told.ID {
			gone, old = append(gone, old[0]), old[1:]
		}
		if len(old) > 0 && old[0].same(told) {
			next[i], old = old[0], old[1:]
		} else {
			next[i], fresh = t.remember(told, now), true
			if !t.found {
				next[i].born = now - warmUp // it is not new, but the list is
			}
		}
		next[i].version, next[i].zone = told.Version, told.Meta["zone"]
	}
	gone = append(gone, old...)
	t.found, t.watchErr = true, nil
	t.replace(next, now)
	if fresh { // what made the breaker open may be over: a service that was started again is not kept waiting
		t.breaker.probeNow()
	}
	for _, in := range gone {
		in.leave()
	}
}

// useDNS makes an external target that the registry does not know usable.
func (t *target) useDNS() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.external == "" || t.found || len(t.instances()) > 0 {
		return
	}
	now := t.tr.now()
	in := t.remember(&discovery.Instance{ID: t.external, HTTP: t.external, GRPC: t.external}, now)
	in.born = now - warmUp
	t.replace([]*instance{in}, now)
}

// remember makes a new instance.
func (t *target) remember(as *discovery.Instance, now time.Duration) *instance {
	in := &instance{ID: as.ID, HTTP: as.HTTP, GRPC: as.GRPC, born: now, rank: rank(t.tr.id, as.ID), stale: &t.stale}
	in.heard.Store(int64(now))
	return in
}

// replace publishes a list. t.mu must be held.
func (t *target) replace(list []*instance, now time.Duration) {
	t.refill(list, now) // before calls see that there are instances
	t.list.Store(&list)
	close(t.changed)
	t.changed = make(chan struct{})
}

// isExternal reports whether calls go to the host as written, through DNS.
func (t *target) isExternal(in *instance) bool { return t.external != "" && in.ID == t.external }

// settingsFor finds what was set for a target under its name, or its host without the port.
func settingsFor(opts Options, name string) Settings {
	s, ok := opts.Targets[name]
	if host, _, err := net.SplitHostPort(name); !ok && err == nil {
		s = opts.Targets[host]
	}
	return s.over(opts.Default)
}
