package driver

import (
	"context"
	"fmt"
	"strings"

	"github.com/kaptar/kaptar/internal/drivers"
	"github.com/kaptar/kaptar/internal/redact"
)

// registry is the one global: what the imported driver packages registered in their init functions.
var registry drivers.Set[Broker]

// known says which package to import for the schemes that kaptar has drivers for.
var known = map[string]string{
	"nats":  "github.com/kaptar/kaptar/drivers/nats",
	"kafka": "github.com/kaptar/kaptar/drivers/kafka",
	"amqp":  "github.com/kaptar/kaptar/drivers/rabbitmq",
}

// Register makes a driver known under a URL scheme. It is for init functions: it panics when the scheme is empty or
// taken or open is nil, since that is a mistake in the program's imports.
func Register(scheme string, open func(ctx context.Context, url string) (Broker, error)) {
	registry.Register(scheme, open)
}

// Schemes returns the registered schemes, sorted.
func Schemes() []string { return registry.Schemes() }

// Open connects to the broker at a URL such as "nats://localhost:4222". The URL's scheme picks the driver. The error for an
// unknown scheme lists the linked ones and says which package to import. Passwords in the URL are not in errors.
func Open(ctx context.Context, rawURL string) (Broker, error) {
	scheme, _, ok := strings.Cut(rawURL, ":")
	if !ok || scheme == "" {
		return nil, fmt.Errorf("driver: broker url %q has no scheme: want for example nats://localhost:4222", redact.URL(rawURL))
	}
	if open := registry.Get(scheme); open != nil {
		return open(ctx, rawURL)
	}
	linked := "none"
	if s := Schemes(); len(s) > 0 {
		linked = strings.Join(s, ", ")
	}
	if pkg, ok := known[scheme]; ok {
		return nil, fmt.Errorf("driver: broker url %q: no driver for scheme %q is linked (linked: %s): add import _ %q",
			redact.URL(rawURL), scheme, linked, pkg)
	}
	return nil, fmt.Errorf("driver: broker url %q: unknown scheme %q: linked: %s; import the package of a driver that registers it",
		redact.URL(rawURL), scheme, linked)
}
