// Package consul finds and registers instances at Consul. A program links it with
//
//	import _ "github.com/kaptar/kaptar/drivers/consul"
//
// and names the agent in a URL, in the end by DISCOVERY_URL:
//
//	consul://[token@]host[:8500][?parameter=value&…]
//
//	check=http|ttl|none  how Consul finds out that an instance works; default http, see below
//	interval=2s          between two HTTP or gRPC checks
//	ttl=10s              how long a ttl check stays green without a word of the instance
//	forget=10m           Consul removes an instance that has been red for so long; 0 = never, at least 1m
//	passing=true         resolve to instances with green checks only; false = to all
//	dc=NAME              resolve in another datacenter
//	tls=true, ca=FILE    HTTPS, and the certificates to trust
//	root=kaptar/         used by package drivers/consul/store
//
// An instance is a service of the agent, with the instance's ID, and its HTTP address (the gRPC one if there is
// none) as address and port. Meta holds version, http, grpc and the instance's own.
//
// With check=http Consul asks http://<HTTP>/readyz, or the gRPC health service of an instance that
// serves gRPC only. It asks from the agent, which must reach the address. An instance with neither, and
// any with check=ttl, is green for as long as its process says so. A new instance is green until the first check.
//
// Services that others have registered resolve too: address and port (the node's address if there is none)
// are HTTP, unless the service has a tag "grpc" or meta grpc=true, then they are gRPC; meta
// grpc=PORT or grpc=HOST:PORT says where gRPC is beside it. An ID that two agents use gets "@node" at its end.
package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers"
	api "github.com/kaptar/kaptar/drivers/consul/internal/client"
	consulstore "github.com/kaptar/kaptar/drivers/consul/store"
	"github.com/kaptar/kaptar/kv"
)

func init() {
	drivers.Register("consul", func(_ context.Context, url string, opts *drivers.Options) (drivers.Backend, error) {
		registry, err := Open(url)
		if err != nil {
			return nil, err
		}
		registry.SetLogger(opts.Log)
		store, err := consulstore.Open(url)
		return &backend{registry, store}, err
	})
}

// A backend is a registry and a store.
type backend struct {
	registry *Registry
	store    *consulstore.Store
}

func (b *backend) Registry() (discovery.Registry, error) { return b.registry, nil }
func (b *backend) Store() (kv.Store, error)              { return b.store, nil }
func (b *backend) Close(context.Context) error {
	return errors.Join(b.registry.Close(), b.store.Close())
}

var errClosed = errors.New("drivers/consul: the registry is closed")

// Registry is a discovery.Registry at a Consul agent. Make it with Open.
type Registry struct {
	client *api.Client

	mu     sync.Mutex
	closed bool
	slots  map[string]*slot // by Consul's id of the service
}

var _ discovery.Registry = (*Registry)(nil)

// Open returns a registry at the agent that the URL names, see the package comment. It does not call
// the agent. Its error wraps discovery.ErrInvalid and never shows the token. The caller must call Close.
func Open(url string) (*Registry, error) {
	settings, err := api.Parse(url)
	if err != nil {
		return nil, fmt.Errorf("%w url: %w", discovery.ErrInvalid, err)
	}
	client, err := api.New(settings)
	if err != nil {
		return nil, fmt.Errorf("%w url: %w", discovery.ErrInvalid, err)
	}
	return &Registry{client: client, slots: map[string]*slot{}}, nil
}

// SetLogger says where the registry tells, once each, that it waits for Consul and that Consul is back,
// and that it has registered an instance again. Default: nowhere.
func (r *Registry) SetLogger(log *slog.Logger) { r.client.SetLogger(log) }

// Close stops keeping the instances. It does not deregister them, and it does not end watches.
// Register and Deregister fail afterwards. It always returns nil.
func (r *Registry) Close() error {
	r.mu.Lock()
	r.closed = true
	slots := make([]*slot, 0, len(r.slots))
	for _, s := range r.slots {
		slots = append(slots, s)
	}
	r.mu.Unlock()
	for _, s := range slots {
		s.stop()
	}
	r.client.Close()
	return nil
}
