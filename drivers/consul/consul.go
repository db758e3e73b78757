// Package consul is the backend for Consul: service discovery and live values at one agent.
// Importing it makes the URL scheme "consul" known:
//
//	import _ "github.com/kaptar/kaptar/drivers/consul"
//
//	DISCOVERY_URL=consul://[token@]host[:8500][?parameter=value&…]
//
//	check=http|ttl|none  how Consul finds out that an instance works; default http, see below
//	interval=2s          between two HTTP or gRPC checks
//	ttl=10s              how long a ttl check stays green without a word of the instance
//	forget=10m           Consul removes an instance that has been red for so long; 0 = never, at least 1m
//	passing=true         resolve to instances with green checks only; false = to all
//	dc=NAME              resolve, and keep values, in another datacenter
//	token_file=FILE      has the ACL token, instead of the URL, and is read for each call
//	tls=true             HTTPS
//	ca=FILE              certificates of authorities to trust, in PEM; default: the system's. Implies tls
//	cert=FILE, key=FILE  the client's certificate and its key, in PEM. Imply tls
//	root=kaptar/         what every key of a value begins with at Consul; may be empty
//
// Files of certificates are read for each new connection, so they can be renewed.
//
// The package speaks Consul's HTTP API itself, so there is no vendor's client to reach.
//
// # Instances
//
// An instance is a service of the agent, with the instance's ID, tags, and its HTTP address (the
// gRPC one if there is none) as address and port. Meta holds version, http, grpc and the instance's
// own. One that registers at an address takes over what its service had registered there at the
// agent.
//
// With check=http Consul asks http://<HTTP>/readyz, or the gRPC health service of an instance that
// serves gRPC only. It asks from the agent, which must reach the address. An instance with neither,
// and any with check=ttl, is green for as long as its process says so. A new instance is green
// until the first check.
//
// Services that others have registered resolve too: address and port (the node's address if there
// is none) are HTTP, unless the service has a tag "grpc" or meta grpc=true, then they are gRPC;
// meta grpc=PORT or grpc=HOST:PORT says where gRPC is beside it. An ID that two agents use gets
// "@node" at its end.
//
// # Values
//
// An entry's revision is its ModifyIndex. Consul leaves that alone when a write changes nothing, so
// each write sets the flags of the key, which have no other meaning here, to something new.
package consul

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/kv"
)

func init() {
	drivers.Register("consul", func(_ context.Context, url string, opts *drivers.Options) (drivers.Backend, error) {
		return Open(url, opts)
	})
}

// A Backend is a Consul agent and what it can do. Make it with [Open]; all methods may be called
// concurrently.
type Backend struct {
	client   *client
	registry *registry
	store    *store
}

// Open returns the agent that a URL names, see the package. It does not call the agent, so that it
// fails only for a URL that cannot be used. Errors never show the token. opts may be nil.
func Open(url string, opts *drivers.Options) (*Backend, error) {
	set, err := parse(url)
	if err != nil {
		return nil, fmt.Errorf("consul: url: %w", err)
	}
	client := newClient(set)
	log := slog.New(slog.DiscardHandler)
	if opts != nil && opts.Log != nil {
		log = opts.Log
	}
	return &Backend{client, newRegistry(client, log), &store{client}}, nil
}

// Registry returns the backend's side for discovery.
func (b *Backend) Registry() (discovery.Registry, error) { return b.registry, nil }

// Store returns the backend's side for values.
func (b *Backend) Store() (kv.Store, error) { return b.store, nil }

// Healthy returns nil, or why those who wait for Consul just now do so. It makes no round trip.
func (b *Backend) Healthy() error { return b.client.health.Err() }

// Close implements drivers.Backend. It stops keeping the instances and does not deregister them;
// Register and Deregister fail afterwards. It does not end watches. It always returns nil.
func (b *Backend) Close(context.Context) error {
	b.registry.close()
	b.client.close()
	return nil
}
