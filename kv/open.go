package kv

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kaptar/kaptar/internal/drivers"
)

// registered has the schemes that other packages have added.
var registered drivers.Set[Store]

// RegisterDriver makes Open call open for URLs of this scheme. It is meant for the init of a
// driver's package and panics when the scheme is empty, built in or taken, or open is nil.
func RegisterDriver(scheme string, open func(ctx context.Context, url string) (Store, error)) {
	if scheme == "memory" {
		panic("kv: the scheme " + scheme + " is built in")
	}
	registered.Register(scheme, open)
}

// Open returns the store that a URL names. "" and "memory:" give a new Memory; any other scheme
// needs a driver that the program imports. The URL is the one of the service registry: what
// follows the scheme means the same as in discovery.Open. ctx bounds the opening only, and that
// a server is away is no error of Open. A Store that also has a Close method must be closed by the
// caller. The error wraps ErrInvalid when the URL itself is wrong, and ErrNoDriver too when no
// driver of the program knows its scheme, as with registries that hold no values.
func Open(ctx context.Context, url string) (Store, error) {
	if url == "" {
		return NewMemory(), nil
	}
	scheme, rest, ok := strings.Cut(url, ":")
	switch {
	case !ok:
		// What was meant is unknown, and may be a secret.
		return nil, fmt.Errorf("%w url: expected scheme:rest, with one of %s", ErrInvalid, schemes())
	case scheme == "memory" && rest != "":
		return nil, fmt.Errorf("%w url %q: expected memory: and nothing after it", ErrInvalid, url)
	case scheme == "memory":
		return NewMemory(), nil
	}
	open := registered.Get(scheme)
	if open == nil {
		// The URL may hold a password, so the text names the scheme only.
		return nil, fmt.Errorf("%w: %w scheme %q: this program has %s (is the driver's import missing?)", ErrNoDriver, ErrInvalid, scheme, schemes())
	}
	store, err := open(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("kv: open %s: %w", scheme, err)
	}
	return store, nil
}

// schemes lists what Open knows, for error texts.
func schemes() string {
	names := append(registered.Schemes(), "memory")
	slices.Sort(names)
	return strings.Join(names, ", ")
}
