package messaging

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/trace"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/messaging/schema"
	"github.com/kaptar/kaptar/sqldb"
	"github.com/kaptar/kaptar/telemetry"
)

// A Publisher publishes to one topic within the transactions of one service. Its methods may be
// called concurrently.
type Publisher[T any] struct {
	DirectPublisher[T]

	relay *outbox.Relay
}

// NewPublisher returns a publisher to topic. Call it during Setup. It connects to the topic's
// broker and declares the topic, so a wrong URL or name is reported here. A broker that cannot be
// reached is no error: the topic is declared, and events go out, once it is there. The service needs a
// database (App.DB), where the outbox is created.
func NewPublisher[T any](app *kaptar.App, topic Topic[T]) (*Publisher[T], error) {
	direct, err := NewDirectPublisher(app, topic)
	if err != nil {
		return nil, err
	}
	s, err := direct.bus.store()
	if err != nil {
		return nil, err
	}
	return &Publisher[T]{*direct, s.relay}, nil
}

// Publish puts the event into the outbox as part of tx, a transaction of the service's own
// database. After the commit it is sent at once if ctx is the context that sqldb.InTx passed along
// with tx, else within about a second.
//
// Events of one key are sent in the order in which they were written, provided that the
// transactions that write them are serialised. They are when each first updates the row that the
// key names, and always on an Ordered topic.
//
// An event larger than driver.MaxSize is an error. One that exceeds a lower limit of the broker
// becomes a dead letter in the publisher's database.
func (p *Publisher[T]) Publish(ctx context.Context, tx *sql.Tx, key string, data T) error {
	ctx, span := p.span(ctx, "create")
	defer span.End()
	m, err := encode(ctx, p.topic, p.bus.app.Name(), key, data)
	if err != nil {
		return err
	}
	add := outbox.Add
	if p.topic.Ordered && !m.Raw {
		add = outbox.AddOrdered
	}
	if err := add(ctx, tx, m); err != nil {
		return fmt.Errorf("messaging: publish to %s: %w", p.topic.Name, err)
	}
	sqldb.AfterCommit(ctx, func() {
		p.bus.metrics.published.WithLabelValues(p.topic.Name).Inc()
		p.relay.Wake()
	})
	return nil
}

// A DirectPublisher publishes to one topic without an outbox, and so without a database. PublishNow
// may be called concurrently.
type DirectPublisher[T any] struct {
	topic  Topic[T]
	bus    *bus
	broker driver.Broker
}

// NewDirectPublisher is like NewPublisher, for a service or a topic that needs only PublishNow.
func NewDirectPublisher[T any](app *kaptar.App, topic Topic[T]) (*DirectPublisher[T], error) {
	b, err := busOf(app)
	if err != nil {
		return nil, err
	}
	br, err := b.declare(declaration{sub: driver.Subscription{Topic: topic.Name, Raw: topic.raw()}})
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.publishes[topic.Name] = checkOf(decode[T])
	b.mu.Unlock()
	use := schema.Use{Topic: topic.Name, Publishes: true, Ordered: topic.Ordered, Raw: topic.raw()}
	return &DirectPublisher[T]{topic, b, br}, note(app, use, topic.Schema)
}

// errOffline is the error of a service that a command has opened (see kaptar.App.Offline).
var errOffline = errors.New("messaging: publish: a command has opened this service, and commands connect to no broker")

// PublishNow sends the event to the broker without the outbox and returns when the broker has
// acknowledged it. It is not part of any transaction: a crash can lose the event, and an event can
// be published whose cause is rolled back. Use it only for events that may be lost.
func (p *DirectPublisher[T]) PublishNow(ctx context.Context, key string, data T) error {
	ctx, span := p.span(ctx, "send")
	defer span.End()
	m, err := encode(ctx, p.topic, p.bus.app.Name(), key, data)
	if err != nil {
		return err
	}
	if p.broker == nil {
		return errOffline
	}
	if err := p.broker.Publish(ctx, []driver.Message{m}); err != nil {
		return fmt.Errorf("messaging: publish to %s: %w", p.topic.Name, err)
	}
	p.bus.metrics.published.WithLabelValues(p.topic.Name).Inc()
	return nil
}

func (p *DirectPublisher[T]) span(ctx context.Context, operation string) (context.Context, trace.Span) {
	return p.bus.app.Tracer().Start(ctx, operation+" "+p.topic.Name, trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(telemetry.MessagingOperation.String(operation), telemetry.MessagingTopic.String(p.topic.Name)))
}
