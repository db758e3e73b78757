package kubernetes

import (
	"context"
	"log/slog"
	"os"

	"github.com/kaptar/kaptar/discovery"
)

func init() {
	discovery.RegisterDriver("kubernetes", open)
}

// Registry follows the EndpointSlices of one namespace. Register and Deregister check the instance and change nothing:
// Kubernetes knows its pods. All methods but SetLogger may be called concurrently.
type Registry struct{ api api }

var _ discovery.Registry = (*Registry)(nil)

// New returns a registry. It does not ask the server anything yet, so it fails only for options that cannot be used, with
// an error that wraps discovery.ErrInvalid.
func New(opts Options) (*Registry, error) {
	opts, err := opts.withDefaults(os.Getenv, accountDir)
	if err != nil {
		return nil, err
	}
	return &Registry{api: api{opts: opts}}, nil
}

func open(_ context.Context, url string) (discovery.Registry, error) {
	opts, err := parse(url)
	if err != nil {
		return nil, err
	}
	return New(opts)
}

// SetLogger replaces Options.Logger. It must be called before Watch.
func (r *Registry) SetLogger(l *slog.Logger) { r.api.opts.Logger = l }

// Close closes the connections that nobody uses any more; those of a Watch end with it. It always returns nil.
func (r *Registry) Close() error {
	r.api.close()
	return nil
}

// Register does nothing but check in.
func (r *Registry) Register(_ context.Context, in discovery.Instance) error { return in.Validate() }

// Deregister does nothing but check in.
func (r *Registry) Deregister(_ context.Context, in discovery.Instance) error { return in.Validate() }

// Watch implements discovery.Resolver; it always returns nil. The first list is told when the server has answered for
// the first time. A name that no Service object can have, such as one with a dot, has no instances, and the
// server is not asked for it.
func (r *Registry) Watch(ctx context.Context, service string, update func([]discovery.Instance)) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the end of ctx is no failure of Watch
	}
	if !isLabel(service) {
		update([]discovery.Instance{})
		<-ctx.Done()
		return nil
	}
	f := &follower{api: &r.api, log: r.api.opts.Logger, service: service, update: update}
	f.run(ctx)
	return nil
}
