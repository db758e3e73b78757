package kubernetes

import (
	"context"
	"os"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers"
)

func init() {
	drivers.Register("kubernetes", func(_ context.Context, url string, opts *drivers.Options) (drivers.Backend, error) {
		return Open(url, opts)
	})
}

// nothing is a registry that has no instances, and takes all without keeping them.
type nothing = discovery.Static

// Registry follows the EndpointSlices of one namespace. Register and Deregister check the instance
// and change nothing: Kubernetes knows its pods. All methods may be called concurrently.
type Registry struct {
	nothing
	api api
}

var _ discovery.Registry = (*Registry)(nil)

// Open returns a registry for a URL as described at the package. It does not ask the server anything
// yet, so it fails only for a URL that cannot be used, with an error that wraps
// discovery.ErrInvalid. opts may be nil.
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

// Healthy returns nil, or why those who wait for the API server just now do so. It makes no
// request.
func (r *Registry) Healthy() error { return r.api.health.Err() }

// Close closes the connections that nobody uses any more; those of a Watch end with it. It always
// returns nil.
func (r *Registry) Close(context.Context) error {
	r.api.close()
	return nil
}

// Watch implements discovery.Resolver; it always returns nil. The first list is told when the
// server has answered for the first time. A name that no Service object can have, such as one with
// a dot, has no instances, and the server is not asked for it.
func (r *Registry) Watch(ctx context.Context, service string, update func([]discovery.Instance)) error {
	if !label.MatchString(service) {
		return r.nothing.Watch(ctx, service, update)
	}
	(&follower{api: &r.api, log: r.api.opts.Logger, service: service, tell: discovery.Changes(update)}).run(ctx)
	return nil
}
