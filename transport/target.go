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

// target is the state of a service or an external host. Times are durations since the transport was
// made.
type target struct {
	name      string // of the service, or host:port
	service   string // what the registry is asked for; "" for an IP address
	external  string // address to use when no registry knows it
	bare      bool   // the name has neither dot nor port: a service, if any registry knows it
	made      time.Duration
	set       Settings
	tr        *Transport
	local     *Local
	log       *slog.Logger
	spanAttrs []attribute.KeyValue
	methods   sync.Map // of gRPC → whether the descriptor says that it may be repeated

	breaker breaker
	probing atomic.Bool // its instances are asked for their health
	budget  budget
	hedges  hedges // nil for none
	metrics *targetMetrics

	ctx    context.Context // of the watch and the probes; ends when the target is forgotten
	cancel context.CancelFunc
	used   atomic.Int64 // when the last call began
	hosts  []string     // under which the transport keeps it; guarded by the transport's mu

	calls    atomic.Uint64 // numbers them for the weights
	pool     atomic.Pointer[pool]
	stale    atomic.Bool // the pool must be made anew, because of an ejection
	mu       sync.Mutex
	list     atomic.Pointer[[]*instance] // replaced as a whole
	changed  chan struct{}               // closed, and replaced, with each list
	found    bool                        // the list comes from the registry
	unlisted bool                        // the registry, if there is one, has answered with an empty list
	watchErr error                       // why the last Watch ended
	dnsErr   error                       // why DNS was of no use either
}

// address splits the name that a caller uses for a target. service is what the registry is asked
// for, and external the address if no registry knows it.
func address(host string, tls bool) (name, service, external string) {
	host = strings.ToLower(host)
	bare, port, err := net.SplitHostPort(host)
	if err != nil || port == "" {
		bare, port = strings.Trim(host, "[]"), "80" // "[]" of an IPv6 address without port
		if tls {
			port = "443"
		}
	}
	external = net.JoinHostPort(bare, port)
	if !strings.ContainsAny(host, ".:") {
		return host, host, external
	}
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

// await waits for an instance. A bare name that the registry does not list is looked up in DNS, but
// not in the first second of the target: services start in any order, and what DNS knows need not
// be the service.
func (t *target) await(ctx context.Context, limit time.Duration) error {
	began := t.tr.now()
	left := func() time.Duration { return began + min(limit, firstInstance) - t.tr.now() }
	if t.bare {
		early := t.made + firstInstance - began
		if known, err := t.appears(ctx, min(early, left())); known || err != nil {
			return err
		}
		if t.tr.now() >= t.made+firstInstance && t.lookUp(ctx, began+limit-t.tr.now()) {
			return nil
		}
	}
	if known, err := t.appears(ctx, left()); known || err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	why := "the registry has not answered yet"
	switch {
	case t.watchErr != nil:
		why = "the registry failed with " + t.watchErr.Error()
	case t.dnsErr != nil:
		why = "no registry knows this service, and DNS does not either: " + t.dnsErr.Error()
	case t.unlisted:
		why = "no registry knows this service"
	}
	return t.fail(codes.Unavailable, why, ErrNoInstances)
}

func (t *target) appears(ctx context.Context, limit time.Duration) (known bool, err error) {
	const parts = 8 // of the wait; a process that stands still loses one
	tick := time.NewTicker(max((limit+parts-1)/parts, 1))
	defer tick.Stop()
	for left := parts; ; {
		t.mu.Lock()
		list, changed := t.instances(), t.changed
		t.mu.Unlock()
		if len(list) > 0 {
			return true, nil
		}
		if left == 0 || limit <= 0 {
			return false, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false, t.ended(ctx)
		case <-tick.C:
			left--
		}
	}
}

// lookUp makes the target external if the registry does not list its name but DNS knows it.
func (t *target) lookUp(ctx context.Context, limit time.Duration) (known bool) {
	t.mu.Lock()
	unlisted := t.unlisted
	t.mu.Unlock()
	if !unlisted { // it may list it
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, min(limit, firstInstance))
	defer cancel()
	_, err := t.tr.lookup(ctx, t.service)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dnsErr = err; err == nil {
		t.useExternal()
	}
	return err == nil
}

func (t *target) watch(ctx context.Context, resolver discovery.Resolver) {
	if !t.bare {
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

// update takes a list from the registry. Instances that stay keep their state.
func (t *target) update(list []discovery.Instance) {
	if len(list) == 0 { // usually a fault of the registry; if it is true the breaker soon opens
		t.mu.Lock()
		t.unlisted, t.watchErr = true, nil
		t.mu.Unlock()
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
		next[i].zone = told.Meta["zone"]
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

// useDNS makes the target external if its name has a dot or port and the registry does not know it.
func (t *target) useDNS() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.bare {
		t.useExternal()
	}
}

// useExternal makes the target external until the registry lists it. t.mu must be held.
func (t *target) useExternal() {
	if t.found || len(t.instances()) > 0 {
		return
	}
	now := t.tr.now()
	in := t.remember(&discovery.Instance{ID: t.external, HTTP: t.external, GRPC: t.external}, now)
	in.born = now - warmUp
	t.replace([]*instance{in}, now)
}

func (t *target) remember(as *discovery.Instance, now time.Duration) *instance {
	in := &instance{ID: as.ID, HTTP: as.HTTP, GRPC: as.GRPC, version: as.Version, born: now, rank: rank(t.tr.id, as.ID), stale: &t.stale}
	in.heard.Store(int64(now))
	in.metrics = t.metrics.of(in.version)
	return in
}

// replace publishes a list. t.mu must be held.
func (t *target) replace(list []*instance, now time.Duration) {
	t.refill(list, now) // before calls see that there are instances
	t.list.Store(&list)
	close(t.changed)
	t.changed = make(chan struct{})
}

// isExternal reports whether calls go to the host as written, through DNS. With TLS a bare name is
// always a service, so that an answer of DNS cannot turn a call into plain text.
func (t *target) isExternal(in *instance) bool {
	return in.ID == t.external && (!t.bare || t.tr.opts.TLS == nil)
}

// settingsFor finds what was set for a target under its name, or its host without the port.
func settingsFor(opts Options, name string) Settings {
	s, ok := opts.Targets[name]
	if host, _, err := net.SplitHostPort(name); !ok && err == nil {
		s = opts.Targets[host]
	}
	return s.over(opts.Default)
}
