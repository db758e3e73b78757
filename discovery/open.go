package discovery

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kaptar/kaptar/internal/drivers"
)

// registered has the schemes that other packages have added.
var registered drivers.Set[Registry]

// RegisterDriver makes Open call open for URLs of this scheme. It is meant for the init of a
// driver's package and panics when the scheme is empty, built in or taken, or open is nil.
func RegisterDriver(scheme string, open func(ctx context.Context, url string) (Registry, error)) {
	if scheme == "memory" || scheme == "static" {
		panic("discovery: the scheme " + scheme + " is built in")
	}
	registered.Register(scheme, open)
}

// Open returns the registry that a URL names:
//
//	"" or "memory:"   a new Memory
//	"static:TABLE"    a Static; TABLE is a list of service=HTTP|GRPC, separated by commas or
//	                  line ends, one entry for each instance; either address may be missing:
//	                  static:user-service=10.0.0.1:8081|10.0.0.1:50051,order-service=10.0.0.2:8082
//	                  Lines of a YAML table ("user-service: 10.0.0.1:8081|10.0.0.1:50051") are read as well.
//
// Any other scheme needs a driver that the program imports. ctx bounds the opening only.
// A Registry that also has a Close method must be closed by the caller. The error wraps
// ErrInvalid when the URL itself is wrong.
func Open(ctx context.Context, url string) (Registry, error) {
	if url == "" {
		return NewMemory(), nil
	}
	scheme, rest, ok := strings.Cut(url, ":")
	if !ok {
		return nil, fmt.Errorf("%w url %q: expected scheme:…, one of %s", ErrInvalid, url, schemes())
	}
	switch scheme {
	case "memory":
		if rest != "" {
			return nil, fmt.Errorf("%w url %q: nothing may follow memory:", ErrInvalid, url)
		}
		return NewMemory(), nil
	case "static":
		return parseStatic(rest)
	}
	open := registered.Get(scheme)
	if open == nil {
		// The URL may hold a password, so the text names the scheme only.
		return nil, fmt.Errorf("%w scheme %q: this program has %s (is the driver's import missing?)", ErrInvalid, scheme, schemes())
	}
	registry, err := open(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("discovery: open %s: %w", scheme, err)
	}
	return registry, nil
}

// schemes lists what Open knows, for error texts.
func schemes() string {
	names := append(registered.Schemes(), "memory", "static")
	slices.Sort(names)
	return strings.Join(names, ", ")
}
