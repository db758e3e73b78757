package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/kv"
	"github.com/kaptar/kaptar/messaging/driver"
)

func init() {
	drivers.Register("nats", open)
	drivers.Register("tls", open)
}

func open(ctx context.Context, url string, opts *drivers.Options) (drivers.Backend, error) {
	return Open(ctx, url, &Options{Client: opts.Client})
}

// Options are what a URL cannot say. The zero value is ready to use.
type Options struct {
	// Client is the name of the connection at the server; default "kaptar".
	Client string
	// Connect are further options for the connection, for example nats.InProcessServer or
	// nats.Nkey. They are applied before the package's own.
	Connect []nats.Option
}

// A Backend is one connection to a NATS server or cluster, with everything that uses it. Make it
// with [Open]; all methods may be called concurrently.
type Backend struct {
	conn     *connection
	broker   *broker
	registry *registry
	store    *store
}

// Open connects to the servers of a URL as described at the package. opts may be nil. If no server
// answers within 5 s or by ctx's deadline, that is no error: the connection is retried for ever.
// Refused credentials and invalid certificates are errors.
func Open(ctx context.Context, url string, opts *Options) (*Backend, error) {
	set, err := parse(url)
	if err != nil {
		return nil, err
	}
	if opts == nil {
		opts = new(Options)
	}
	conn := newConnection(set.servers)
	b := &Backend{conn: conn, broker: newBroker(conn, set), registry: newRegistry(conn, set), store: newStore(conn, set)}
	conn.denied = b.broker.denied
	conn.reconnected = func() {
		b.broker.reconnected()
		b.registry.refreshAll()
	}
	options := slices.Concat([]nats.Option{nats.Name(cmp.Or(opts.Client, "kaptar"))}, set.options(), opts.Connect)
	if err := conn.connect(ctx, set.servers, options...); err != nil {
		return nil, err
	}
	return b, nil
}

// Broker returns the backend's side for events. It fails if the server answers and has no
// JetStream.
func (b *Backend) Broker() (driver.Broker, error) {
	if b.conn.healthy() != nil {
		return b.broker, nil // Declare finds out
	}
	ctx, cancel := b.conn.bound(context.Background())
	defer cancel()
	if _, err := b.conn.js.AccountInfo(ctx); errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return nil, fmt.Errorf("nats: %s answers, but its JetStream does not (start it with --jetstream): %w", b.conn.url, err)
	}
	return b.broker, nil
}

// Registry returns the backend's side for discovery.
func (b *Backend) Registry() (discovery.Registry, error) { return b.registry, nil }

// Store returns the backend's side for values.
func (b *Backend) Store() (kv.Store, error) { return b.store, nil }

// Healthy returns nil while the server can be reached and answers the watches of instances and
// values, else why it does not. It does not block and makes no round trip.
func (b *Backend) Healthy() error {
	return cmp.Or(b.conn.healthy(), b.registry.bucket.health.Err(), b.store.bucket.health.Err())
}

// As sets *target to the client library's connection if target is a **nats.Conn or a
// *jetstream.JetStream. The backend owns it: do not close it.
func (b *Backend) As(target any) bool {
	switch t := target.(type) {
	case **nats.Conn:
		*t = b.conn.Conn
	case *jetstream.JetStream:
		*t = b.conn.js
	default:
		return false
	}
	return true
}

// Close implements drivers.Backend. Subscriptions end, acknowledgements are flushed, instances that
// are still registered are deregistered, and waiting calls return errors. If ctx ends first, the
// connection is cut. A second call does nothing.
func (b *Backend) Close(ctx context.Context) error {
	err := b.broker.Close(ctx)
	if failure := b.registry.close(ctx); err == nil {
		err = failure
	}
	b.conn.close(ctx)
	return err
}
