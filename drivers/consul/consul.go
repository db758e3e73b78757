// Package consul is the backend for Consul: service discovery and live values through one agent.
// Importing it registers the URL scheme "consul":
//
//	import _ "github.com/kaptar/kaptar/drivers/consul"
//
//	DISCOVERY_URL=consul://[token@]host[:8500][?parameter=value&…]
//
//	check=http|ttl|none  how Consul checks an instance; default http, see below
//	interval=2s          between two HTTP or gRPC checks, at least 1s; default 2s
//	ttl=10s              how long a ttl check stays passing without a report, at least 1s; default 10s
//	forget=10m           Consul removes an instance after so long in the state critical; 0 = never, else at
//	                     least 1m; default 10m
//	passing=true         resolve to instances with passing checks only; false = to all; default true
//	dc=NAME              resolve, and keep values, in another datacenter; default: the agent's own
//	token_file=FILE      has the ACL token, instead of the URL, and is read for each call
//	tls=true             HTTPS; default false
//	ca=FILE              certificates of authorities to trust, in PEM; default: the system's. Implies tls
//	cert=FILE, key=FILE  the client's certificate and its key, in PEM. Imply tls
//	root=kaptar/         prefix of the keys of values in Consul; may be empty; default kaptar/
//
// Files of certificates are read for each new connection, so they can be renewed.
//
// The package calls Consul's HTTP API itself, so there is no vendor's client and no method As.
//
// # Instances
//
// An instance is a service of the agent, with the instance's ID and tags. Its address and port are
// those of HTTP, or those of gRPC if it has no HTTP. Meta holds version, http, grpc and the
// instance's own entries. An instance that registers at an address replaces the one that its
// service had registered there at the same agent.
//
// With check=http Consul calls http://<HTTP>/readyz, or the gRPC health service of an instance that
// serves gRPC only. The agent makes the call and must reach the address. An instance with neither
// address, and any with check=ttl, is passing for as long as its process reports. A new instance is
// passing until the first check. It leaves the list when that, or later two checks in a row, fail or
// have no answer within a second.
//
// Services registered by others resolve too. Address and port (the node's address if there is none)
// are HTTP. With the tag "grpc" or meta grpc=true they are gRPC instead, and meta grpc=PORT or
// grpc=HOST:PORT gives a gRPC address beside HTTP. An ID that two agents use ends in "@node".
//
// # Values
//
// An entry's revision is its ModifyIndex. Consul does not change it when a write changes nothing,
// so each write sets the flags of the key, which have no other meaning here, to a new number.
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

// A Backend is a Consul agent. Make it with [Open]; all methods may be called concurrently.
type Backend struct {
	client   *client
	registry *registry
	store    *store
}

// Open returns the backend for a URL as described at the package. It does not call the agent, so it
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

// Healthy returns nil, or why watches and registrations wait for Consul. It makes no round trip.
func (b *Backend) Healthy() error { return b.client.health.Err() }

// Close implements drivers.Backend. It no longer keeps the instances registered and does not
// deregister them. Register and Deregister fail afterwards; watches end with their context only. It
// always returns nil.
func (b *Backend) Close(context.Context) error {
	b.registry.close()
	b.client.close()
	return nil
}
