// Package discovery says which instances of a service there are and where they listen.
//
// A service registers its instances with a Registrar; callers follow them with a Resolver. Which
// registry stands behind is a URL: Memory ("memory:") for a system in one process, Static
// ("static:…") for a fixed list, and what package drivers links for Consul, NATS, Kubernetes or
// DNS. Whether a driver keeps what is written here is checked by package discoverytest.
//
// Health is not part of this package: an instance is listed from Register until Deregister
// (or until its registry gives it up), and the caller finds out whether it answers.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ErrInvalid is wrapped by the errors about instances and URLs that cannot be used.
var ErrInvalid = errors.New("discovery: invalid")

// An Instance is one running copy of a service.
type Instance struct {
	ID      string            // unique among the instances of all services; required
	Service string            // name of the service, for example "order-service"; required
	Version string            // version of the service; "" if it has none
	HTTP    string            // host:port for HTTP; "" = not served
	GRPC    string            // host:port for gRPC; "" = not served
	Tags    []string          // free marks, for example "canary"
	Meta    map[string]string // free values, for example a zone
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

// Replaces reports whether i stands where o stood: o is another instance of i's service at one of
// i's addresses. Only one of them can listen there, so o's process is gone.
func (i Instance) Replaces(o Instance) bool {
	return i.Service == o.Service && i.ID != o.ID && (i.HTTP != "" && i.HTTP == o.HTTP || i.GRPC != "" && i.GRPC == o.GRPC)
}

// Validate returns an error that wraps ErrInvalid when ID or Service is missing. An instance
// without any address is valid: a service may only handle events.
func (i Instance) Validate() error {
	switch {
	case i.Service == "":
		return fmt.Errorf("%w instance %q: it names no service", ErrInvalid, i.ID)
	case i.ID == "":
		return fmt.Errorf("%w instance of %s: it has no id", ErrInvalid, i.Service)
	}
	return nil
}

// A Registrar makes instances known. All methods may be called concurrently.
type Registrar interface {
	// Register lists the instance, or replaces the one with the same Service and ID, and takes
	// those off the list that it replaces (see Instance.Replaces): a process that was killed and
	// started again is listed once. It does not keep in's Tags and Meta. It returns once the
	// registry has it; watchers hear of it soon after.
	Register(ctx context.Context, in Instance) error
	// Deregister takes the instance with in's Service and ID off the list, if it is there.
	Deregister(ctx context.Context, in Instance) error
}

// A Resolver follows services. Watch may be called concurrently, also for the same one.
type Resolver interface {
	// Watch calls update with the whole list, even if it is empty, and again after each change.
	// Changes in quick succession may come as one list, but the last state always comes. Lists are
	// ordered by ID; update may keep and change them. It is not called concurrently, and not after
	// Watch has returned. Watch blocks until ctx ends and then returns nil. Any other return is a
	// failure, after which the caller may watch again.
	Watch(ctx context.Context, service string, update func([]Instance)) error
}

// A Registry is both.
type Registry interface {
	Registrar
	Resolver
}

// Changes returns a function that calls update with deep copies, ordered by ID, of the first list
// that it is given and of each that differs from the one before. It is for Resolvers, and may not
// be called concurrently.
func Changes(update func([]Instance)) func([]Instance) {
	var last []Instance
	told := false
	return func(list []Instance) {
		list = slices.SortedFunc(slices.Values(list), byID)
		if told && slices.EqualFunc(list, last, Instance.Equal) {
			return
		}
		for i, in := range list { // of thousands mostly one has changed
			if old, ok := slices.BinarySearchFunc(last, in, byID); ok && last[old].Equal(in) {
				list[i] = last[old]
			} else {
				list[i] = in.Clone()
			}
		}
		last, told = list, true
		update(sorted(list))
	}
}

func byID(a, b Instance) int { return strings.Compare(a.ID, b.ID) }

// sorted returns deep copies in the order of their IDs, never nil.
func sorted(list []Instance) []Instance {
	out := make([]Instance, 0, len(list))
	for _, in := range list {
		out = append(out, in.Clone())
	}
	slices.SortFunc(out, byID)
	return out
}
