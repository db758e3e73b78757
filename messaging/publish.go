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

// A Publisher publishes to one topic on behalf of one service, in its transactions. Its methods may
// be called concurrently.
type Publisher[T any] struct {
	DirectPublisher[T]

	relay *outbox.Relay
}

// NewPublisher returns a publisher to topic, during Setup. It connects to the topic's broker and
// declares the topic, so a wrong URL or name shows here. The service needs a database (App.DB),
// where the outbox is made.
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

// Publish puts the event into the outbox as part of tx, a transaction on the service's own
// database. It is sent if tx commits, soon after: at once when ctx is the one that sqldb.InTx
// passed with tx, else within about a second. Events of one key are sent in the order in which
// their transactions wrote them, provided that these were one after the other, as they are when
// each first updates the row that key names. An event larger than driver.MaxSize is refused here;
// one that only the broker refuses, by a lower limit of its own, becomes a dead letter in the
// publisher's database.
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

// A DirectPublisher publishes to one topic without an outbox, and so without a database. Its method
// may be called concurrently.
type DirectPublisher[T any] struct {
	topic  Topic[T]
	bus    *bus
	broker driver.Broker
}

// NewDirectPublisher is NewPublisher for a service, or a topic, that needs only PublishNow.
func NewDirectPublisher[T any](app *kaptar.App, topic Topic[T]) (*DirectPublisher[T], error) {
	b, err := busOf(app)
	if err != nil {
		return nil, err
	}
	br, err := b.declare(driver.Subscription{Topic: topic.Name, Raw: topic.raw()})
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.publishes[topic.Name] = checkOf(decode[T])
	b.mu.Unlock()
	use := schema.Use{Topic: topic.Name, Publishes: true, Ordered: topic.Ordered, Raw: topic.raw()}
	return &DirectPublisher[T]{topic, b, br}, note(app, use, topic.Schema)
}

// errOffline tells that a command has opened the service (see kaptar.App.Offline).
var errOffline = errors.New("messaging: publish: a command has opened this service, and it has no broker then")

// PublishNow sends the event to the broker without the outbox and returns when the broker has it.
// It is not part of any transaction: a crash before or after can lose the event or publish one
// whose cause was rolled back. Use it for what may be lost.
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
