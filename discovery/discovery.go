// Package discovery finds the instances of a service and their addresses.
//
// A service registers its instances with a Registrar; callers follow them with a Resolver. The
// setting discovery_url chooses the registry: Memory ("memory:") for a system in one process,
// Static ("static:…") for a fixed list, or a driver for Consul, NATS, Kubernetes or DNS (see
// package drivers). Package discoverytest checks that a driver keeps the promises made here.
//
// This package does not check health: an instance is listed from Register until Deregister, or
// until the registry drops it. Package transport finds out whether it answers.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ErrInvalid is wrapped by errors about instances and tables that cannot be used.
var ErrInvalid = errors.New("discovery: invalid")

// An Instance is one running copy of a service.
type Instance struct {
	ID      string            // unique among the instances of all services; required
	Service string            // name of the service, for example "order-service"; required
	Version string            // version of the service; "" if unknown
	HTTP    string            // host:port for HTTP; "" if not served
	GRPC    string            // host:port for gRPC; "" if not served
	Tags    []string          // labels, for example "canary"
	Meta    map[string]string // further values, for example a zone
}

// Clone returns a deep copy.
func (i Instance) Clone() Instance {
	i.Tags = slices.Clone(i.Tags)
	i.Meta = maps.Clone(i.Meta)
	return i
}

// Equal reports whether i and o are the same in all fields.
func (i Instance) Equal(o Instance) bool {
	return i.ID == o.ID && i.Service == o.Service && i.Version == o.Version && i.HTTP == o.HTTP && i.GRPC == o.GRPC &&
		slices.Equal(i.Tags, o.Tags) && maps.Equal(i.Meta, o.Meta)
}

// Replaces reports whether i has replaced o: o is another instance of the same service with the
// same address for HTTP or gRPC. Only one of them can listen there, so o's process is gone.
func (i Instance) Replaces(o Instance) bool {
	return i.Service == o.Service && i.ID != o.ID && (i.HTTP != "" && i.HTTP == o.HTTP || i.GRPC != "" && i.GRPC == o.GRPC)
}

// Validate returns an error that wraps ErrInvalid when ID or Service is missing. An instance
// without an address is valid: a service may do nothing but handle events.
func (i Instance) Validate() error {
	switch {
	case i.Service == "":
		return fmt.Errorf("%w instance %q: it names no service", ErrInvalid, i.ID)
	case i.ID == "":
		return fmt.Errorf("%w instance of %s: it has no id", ErrInvalid, i.Service)
	}
	return nil
}

// A Registrar registers instances. Its methods may be called concurrently.
type Registrar interface {
	// Register adds the instance to the list, or updates the one with the same Service and ID. It
	// removes instances that this one replaces (see Instance.Replaces), so that a process that was
	// killed and started again is listed once. It does not hold on to in.Tags and in.Meta after it
	// returns. It returns when the registry has stored the instance; watchers see it soon after.
	Register(ctx context.Context, in Instance) error
	// Deregister removes the instance with the Service and ID of in, if it is listed.
	Deregister(ctx context.Context, in Instance) error
}

// A Resolver follows the instances of services. Watch may be called concurrently.
type Resolver interface {
	// Watch calls update with the whole list, even if it is empty, and again after each change.
	// Several changes may arrive as one list, but the latest state always arrives. Lists are
	// ordered by ID; update may keep and change them. Calls of update do not overlap, and there are
	// none after Watch has returned. Watch blocks until ctx ends and then returns nil. If it
	// returns earlier, with or without an error, it has failed, and the caller may call it again.
	Watch(ctx context.Context, service string, update func([]Instance)) error
}

// A Registry is a Registrar and a Resolver.
type Registry interface {
	Registrar
	Resolver
}

// Changes returns a function that passes lists on to update, as Resolver.Watch must: as deep copies
// ordered by ID, and only if they differ from the list before. It helps to implement a Resolver.
// The function must not be called concurrently.
func Changes(update func([]Instance)) func([]Instance) {
	var last []Instance
	told := false
	return func(list []Instance) {
		list = slices.SortedFunc(slices.Values(list), byID)
		if told && slices.EqualFunc(list, last, Instance.Equal) {
			return
		}
		for i, in := range list { // usually one of many has changed: copy only that
			if old, ok := slices.BinarySearchFunc(last, in, byID); ok && last[old].Equal(in) {
				list[i] = last[old]
			} else {
				list[i] = in.Clone()
			}
		}
		last, told = list, true
		copies := make([]Instance, len(list))
		for i, in := range list {
			copies[i] = in.Clone()
		}
		update(copies)
	}
}

func byID(a, b Instance) int { return strings.Compare(a.ID, b.ID) }
