package driver

import (
	"context"
	"fmt"
	"strings"

	"github.com/kaptar/kaptar/internal/drivers"
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
		return nil, fmt.Errorf("driver: broker url %q has no scheme: want for example nats://localhost:4222", Redact(rawURL))
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
			Redact(rawURL), scheme, linked, pkg)
	}
	return nil, fmt.Errorf("driver: broker url %q: unknown scheme %q: linked: %s; import the package of a driver that registers it",
		Redact(rawURL), scheme, linked)
}

// Redact returns the URL, or a comma-separated list of them, with passwords and lone tokens replaced by xxxxx. A driver uses
// it for every URL in its errors.
func Redact(rawURL string) string {
	// A comma may belong to a password that was not escaped, so only one with a URL behind it parts two.
	parts := strings.Split(rawURL, ",")
	for i := len(parts) - 1; i > 0; i-- {
		if !strings.Contains(parts[i], "://") {
			parts[i-1] += "," + parts[i]
			parts = append(parts[:i], parts[i+1:]...)
		}
	}
	for i, part := range parts {
		parts[i] = redactOne(part)
	}
	return strings.Join(parts, ",")
}

// redactOne does not use url.Parse: it refuses just the passwords that were not escaped.
func redactOne(s string) string {
	head, rest, ok := strings.Cut(s, "://")
	if !ok {
		head, rest = "", s
	} else {
		head += "://"
	}
	at := strings.LastIndex(rest, "@")
	if at < 0 {
		return s
	}
	user, _, hasPassword := strings.Cut(rest[:at], ":")
	if !hasPassword {
		return head + "xxxxx" + rest[at:]
	}
	return head + user + ":xxxxx" + rest[at:]
}
