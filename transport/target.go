package transport

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/steady"
)

const (
	firstInstance = time.Second // how long a call waits for the first instance, or an external target for the registry
	watchAgain    = time.Second // pause after a failed Watch; doubles to watchMost
	watchMost     = 30 * time.Second
)

// target is a service, or an external host, with all that is known of it.
type target struct {
	name      string // of the service, or host:port
	service   string // what the registry is asked for; "" for an IP address
	external  string // address to use when no registry knows it; "" for a service
	set       Settings
	local     *Local
	log       *slog.Logger
	spanNames map[string]string // by method
	methods   sync.Map          // of gRPC → whether the descriptor says that it may be repeated

	faults  atomic.Pointer[faultRules] // nil for none
	breaker breaker
	probing atomic.Bool // its instances are asked for their health
	budget  budget
	metrics targetMetrics

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

// await returns the list once there is an instance.
func (t *target) await(ctx context.Context, limit time.Duration) ([]*instance, error) {
	if list := t.instances(); len(list) > 0 {
		return list, nil
	}
	timer := time.NewTimer(min(limit, firstInstance))
	defer timer.Stop()
	for {
		t.mu.Lock()
		list, changed, cause := t.instances(), t.changed, t.watchErr
		t.mu.Unlock()
		if len(list) > 0 {
			return list, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, t.ended(ctx)
		case <-timer.C:
			if cause != nil {
				return nil, t.fail(codes.Unavailable, "the registry failed with "+cause.Error(), ErrNoInstances)
			}
			return nil, t.fail(codes.Unavailable, "no registry knows this service", ErrNoInstances)
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

// update takes a list from the registry. Instances that stay keep what is remembered of them.
func (t *target) update(list []discovery.Instance) {
	if len(list) == 0 { // more often a fault of the registry than the truth; then the breaker soon says so
		t.useDNS()
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := make(map[string]*instance, len(t.instances()))
	for _, in := range t.instances() {
		old[in.ID] = in
	}
	next := make([]*instance, len(list))
	fresh := false
	for i, in := range list {
		if have := old[in.ID]; have != nil && have.HTTP == in.HTTP && have.GRPC == in.GRPC {
			next[i] = have
			delete(old, in.ID)
		} else {
			next[i], fresh = &instance{Instance: in}, true
		}
	}
	t.found, t.watchErr = true, nil
	t.replace(next)
	if fresh { // what made the breaker open may be over: a service that was started again is not kept waiting
		t.breaker.probeNow()
	}
	for _, in := range old {
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
	t.replace([]*instance{{Instance: discovery.Instance{ID: t.external, HTTP: t.external, GRPC: t.external}}})
}

// replace publishes a list. t.mu must be held.
func (t *target) replace(list []*instance) {
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
