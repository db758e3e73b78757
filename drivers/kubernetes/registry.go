package kubernetes

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers"
)

func init() {
	drivers.Register("kubernetes", func(_ context.Context, url string, opts *drivers.Options) (drivers.Backend, error) {
		return Open(url, opts)
	})
}

// nothing is a registry without instances that accepts all and keeps none.
type nothing = discovery.Static

// Registry follows the EndpointSlices of one namespace. Register and Deregister only validate the
// instance, because Kubernetes knows its pods. All methods may be called concurrently.
type Registry struct {
	nothing
	api  api
	pods pods
}

var _ discovery.Registry = (*Registry)(nil)

// Open returns a registry for a URL as described at the package. It makes no request and fails only
// for an unusable URL, with an error that wraps discovery.ErrInvalid. opts may be nil.
func Open(url string, opts *drivers.Options) (*Registry, error) {
	o, err := parse(url)
	if err == nil {
		o, err = o.withDefaults(os.Getenv, accountDir)
	}
	if err != nil {
		return nil, err
	}
	if opts != nil && opts.Log != nil {
		o.Logger = opts.Log
	}
	return &Registry{api: api{opts: o}}, nil
}

// Registry returns r, as package drivers asks for it.
func (r *Registry) Registry() (discovery.Registry, error) { return r, nil }

// Healthy returns nil, or why the watches that wait for the API server do so. It makes no request.
func (r *Registry) Healthy() error { return r.api.health.Err() }

// Close closes idle connections and returns nil. A Watch ends with its context.
func (r *Registry) Close(context.Context) error {
	r.api.close()
	return nil
}

// Watch implements discovery.Resolver; it always returns nil. It calls update once the server has
// answered for the first time. A name that no Service object can have, such as one with a dot, has
// no instances, and the server is not asked.
func (r *Registry) Watch(ctx context.Context, service string, update func([]discovery.Instance)) error {
	if !label.MatchString(service) {
		return r.nothing.Watch(ctx, service, update)
	}
	s := &watched{name: service, pods: &r.pods, log: r.api.opts.Logger, tell: discovery.Changes(update)}
	s.watch(ctx, &r.api)
	return nil
}

// watched is one Watch.
type watched struct {
	name string
	pods *pods
	log  *slog.Logger

	mu     sync.Mutex // endpoints and pods both cause lists, one at a time
	tell   func([]discovery.Instance)
	slices map[string]endpointSlice // nil: not known yet
	ended  bool
	warned bool // about ports
}

// watch passes lists on until ctx ends.
func (s *watched) watch(ctx context.Context, api *api) {
	stop := s.pods.follow(api, s)
	defer func() {
		s.mu.Lock()
		s.ended = true
		s.mu.Unlock()
		stop()
	}()
	f := follower[endpointSlice]{api: api, query: query{
		resource: "endpointslices", path: "/apis/discovery.k8s.io/v1", selector: "kubernetes.io/service-name=" + s.name,
		what: "endpointslices of service " + s.name,
	}}
	f.changed = func(ctx context.Context, all map[string]endpointSlice) {
		s.mu.Lock()
		s.slices = maps.Clone(all)
		s.mu.Unlock()
		s.show(ctx)
	}
	f.note = func(err error) time.Duration {
		api.health.Note(s, err)
		return 0
	}
	f.run(ctx)
	api.health.Note(s, nil)
}

// show passes on the current list.
func (s *watched) show(ctx context.Context) {
	s.pods.wait(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.slices == nil {
		return
	}
	list, unserved := instances(s.name, s.slices, s.pods.version)
	if len(list) == 0 && unserved > 0 && !s.warned {
		s.warned = true
		s.log.WarnContext(ctx, "the service has endpoints but no port named http or grpc", "target", s.name, "endpoints", unserved)
	}
	s.tell(list)
}
