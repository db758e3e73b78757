package discovery

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strings"
)

// Static is a Registry with a fixed list. Register and Deregister only validate the instance, so
// that a service starts in the same way with every registry. The zero value is empty. It must not
// be copied.
type Static struct{ list Memory }

var _ Registry = (*Static)(nil)

// NewStatic returns a registry with copies of the given instances, by name of service. An instance
// without a Service gets that name. One without an ID gets "service@address", with its HTTP address
// or else its gRPC address.
func NewStatic(services map[string][]Instance) *Static {
	s := new(Static)
	for name, list := range services {
		for _, in := range list {
			in.Service = cmp.Or(in.Service, name)
			in.ID = cmp.Or(in.ID, in.Service+"@"+cmp.Or(in.HTTP, in.GRPC))
			_ = s.list.change(in, func(all map[string]Instance) { all[in.ID] = in.Clone() }) // fails without a name
		}
	}
	return s
}

// Register validates in and does nothing else.
func (s *Static) Register(_ context.Context, in Instance) error { return in.Validate() }

// Deregister validates in and does nothing else.
func (s *Static) Deregister(_ context.Context, in Instance) error { return in.Validate() }

// Watch implements Resolver: it calls update once, and returns nil when ctx ends.
func (s *Static) Watch(ctx context.Context, service string, update func([]Instance)) error {
	return s.list.Watch(ctx, service, update)
}

// ParseStatic parses a table of service=HTTP|GRPC, with an entry for each instance, separated by
// commas or line ends. Either address may be missing:
//
//	user-service=10.0.0.1:8081|10.0.0.1:50051,order-service=10.0.0.2:8082
//
// Lines of a YAML table ("user-service: 10.0.0.1:8081|10.0.0.1:50051") are accepted too. The error
// wraps ErrInvalid. The setting discovery_url has such a table after "static:".
func ParseStatic(table string) (*Static, error) {
	services := map[string][]Instance{}
	fields := strings.FieldsFunc(table, func(r rune) bool { return r == ',' || r == '\n' })
	for _, field := range fields {
		field = strings.TrimSpace(field)
		if field == "" {
			continue
		}
		name, addresses, ok := strings.Cut(field, "=")
		if !ok {
			name, addresses, ok = strings.Cut(field, ": ") // a line of a YAML table
		}
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			return nil, fmt.Errorf("%w static entry %q: expected service=host:port|host:port (HTTP|gRPC)", ErrInvalid, shown(field))
		}
		http, grpc, _ := strings.Cut(addresses, "|")
		in := Instance{Service: name, HTTP: strings.TrimSpace(http), GRPC: strings.TrimSpace(grpc)}
		if in.HTTP == "" && in.GRPC == "" {
			return nil, fmt.Errorf("%w static entry %q: it has no address", ErrInvalid, shown(field))
		}
		for _, address := range []string{in.HTTP, in.GRPC} {
			if address == "" {
				continue
			}
			if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
				return nil, fmt.Errorf("%w static entry %q: %q is not host:port", ErrInvalid, shown(field), shown(address))
			}
		}
		services[name] = append(services[name], in)
	}
	return NewStatic(services), nil
}

// shown returns an entry for an error, hidden if it is not a plain address: it may have a password.
func shown(entry string) string {
	i := strings.IndexAny(entry, "/@?#%")
	if i < 0 {
		return entry
	}
	return entry[:strings.LastIndexAny(entry[:i], "= ")+1] + "xxxxx"
}
