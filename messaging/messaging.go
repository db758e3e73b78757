// Package messaging carries events between services.
//
// A [Topic] names a stream of events of one Go type. A service publishes through a [Publisher]
// inside its own database transaction. The event goes into its outbox, and from there to the
// broker, if and only if the transaction commits. A service consumes with [Subscribe]. The handler
// runs in a transaction of the consumer's database, together with the mark that the event was
// handled.
//
//	orders, err := messaging.NewPublisher(app, OrderPlaced)
//	…
//	err = orders.Publish(ctx, tx, order.ID, order) // tx also stores the order
//
// The broker is a URL: the setting broker_url, or topics.<name>.url for one topic. Its driver is
// linked by importing its package, such as drivers/nats.
//
// # Semantics
//
//   - Delivery is at least once. Effects in the consumer's own database happen once. Effects
//     elsewhere (mail, cards) can happen again after a crash; pass Event.ID on as an idempotency
//     key.
//   - A handler that fails is tried again in place. If that does not help, the event is set aside:
//     it becomes a row of kaptar_dead_letters in the consumer's own database, in the transaction
//     that marks it as handled. Only then is it acknowledged. Such a row is "retrying" while it is
//     retried automatically, "dead" when it waits for an operator, or "parked" when it waits for an
//     earlier event of its key. An event that can be neither handled nor set aside is not
//     acknowledged. See [Subscribe].
//   - Duplicates are recognised by source and ID, as in CloudEvents, for as long as the setting
//     inbox.retention says (168h). On an ordered topic they are recognised by source, key and
//     number, for ever.
//   - On the wire an event is a CloudEvent 1.0 in binary mode with JSON data and a W3C traceparent,
//     so clients in any language can read and write it. Events in structured mode
//     (application/cloudevents+json) are read too; their key is partitionkey, else subject. Plain
//     messages of programs that do not use CloudEvents are sent and received as [Raw].
//
// # Order
//
// A consuming service handles the events of a key one at a time, in the order of the broker. There
// is no order across keys. On a topic that is not Ordered an event may still be handled after later
// ones of its key: when all its tries in place have failed, when its consumer stopped or lost the
// broker before handling it, and when several instances consume at once. If that matters, either
// the handler stores the number or time of the last change beside its data and compares, or the
// topic is Ordered:
//
//   - The publisher numbers the events of each key 1, 2, 3 in the transaction that publishes them.
//     That is one more statement, and transactions with the same key wait for each other's commit.
//     A key has at most 255 bytes.
//   - Consumers handle the numbers of a key in sequence, whatever the number of instances. The
//     broker gives each key to one member of the group at a time (partitions, see the driver), and
//     the inbox accepts a number only after the one before it.
//   - When an event is set aside, later events of its key are set aside behind it as parked. They
//     are tried in order once it is handled or an operator has dropped it. Other keys go on.
//   - When numbers are missing, later ones wait in the consumer. After 30 s they are logged and
//     counted in messaging_gap_keys. After 5 min the first of them becomes dead, with a reason that
//     names what is missing, and the others are parked behind it. If the missing events come later,
//     they are handled first and the rest follows automatically. An operator's replay goes on
//     without them. At most 64 events of a subscription wait like this; one more is set aside at
//     once. An event that the broker refuses is a dead letter of the publisher and missing for all
//     consumers until it is replayed.
//   - The first number of a key that a group sees is where its order begins. Number 1 is accepted
//     at once. A higher one is accepted at once in a group FromNow, and after 30 s in one
//     FromBeginning, because the broker may no longer have the events before it. A lower number
//     that comes later becomes a dead letter, since nobody knows whether another group has handled
//     it. So does a known number that now belongs to another event, which happens when the
//     publisher's database was restored from a backup. Only the last number of a key is compared.
//
// An event without a number (header ce-sequence) is handled on an ordered topic as on any other.
// Events of PublishNow, of other programs and of topics of [Raw] have none. When Ordered is added
// to a topic, its publisher begins at number 1 of each key, and the events without numbers that are
// still in the broker are handled beside the new ones. Let the outbox and all consumers catch up
// first.
//
// A subscription has at most 256 events of all keys in progress. Events behind a slow handler can
// fill that and hold up other keys. A failing handler cannot, since its event is set aside.
package messaging

import (
	"errors"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// A Topic names a stream of events whose data is a T. Declare one as a package variable beside T,
// in a package that its publisher and its consumers share. Put a version into the name, such as
// "order.placed.v1", and use a new name for a change that old consumers cannot read.
//
// If T is a pointer to a generated protobuf message, events are sent as application/protobuf and
// read from that and from application/json, as the content type of each event says. Any other T is
// JSON.
//
// If T has a method Validate() error, subscriptions call it. An event that it refuses becomes a
// dead letter without reaching a handler.
type Topic[T any] struct {
	Name string // words of letters, digits, '-' and '_' joined by '.'

	// Ordered numbers the events of each key in the publisher's transaction, and consumers handle
	// them in that order; see Order in the package comment. It has no effect on a topic of Raw, nor
	// on events without a number, such as those of PublishNow.
	Ordered bool

	// DataSchema is the absolute URI of the schema of the data. It is sent with each event as the
	// attribute dataschema, for people and other programs; kaptar does not read it. "" sends none.
	DataSchema string

	// Older are earlier versions of the topic, made by [Upcast]. Subscriptions handle their events
	// too.
	Older []Older[T]
}

func (t Topic[T]) raw() bool {
	_, raw := any(*new(T)).(Raw)
	return raw
}

// Raw is the data of a message for or from a program that does not use CloudEvents. A Topic[Raw]
// stands for what the broker itself calls by the topic's name:
//
//   - Kafka: the topic, created if it is missing. An event without an ID is identified by its
//     partition, offset and timestamp.
//   - RabbitMQ: the queue; publishing goes through the default exchange. Programs declare queues in
//     different ways, so kaptar declares none: a subscription and the outbox wait until the queue
//     exists. All groups share it. An event is identified by the property message-id. Without one,
//     a redelivery is handled again.
//   - NATS: the subject, in a stream that is created for it.
//
// On Kafka and RabbitMQ the topic may have any name of printable ASCII without spaces that they
// accept. Event.Source and Event.Time are empty. RabbitMQ does not transport keys, so there all
// events have the same one and are handled one after the other unless SubscribeOptions.Unordered is
// set.
type Raw struct {
	Headers map[string]string // names as on the wire; invalid UTF-8 in values is replaced
	Body    []byte
}

// An Event is one occurrence on a topic.
type Event[T any] struct {
	ID      string    // the same at every delivery; unique together with Source
	Source  string    // the service that published it
	Key     string    // events of one key are kept in order
	Time    time.Time // when it was published
	Attempt int       // number of this try, from 1; starts again with a new process or an operator's replay
	Data    T
}

// Start is where a new consumer group begins.
type Start = driver.Start

// A group that the broker knows already continues where it stopped.
const (
	FromNow       Start = driver.FromNow
	FromBeginning Start = driver.FromBeginning
)

// permanentError marks an error for which another try is useless.
type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent marks an error of a handler for which another try is useless: the event becomes a dead
// letter at once. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

func isPermanent(err error) bool {
	_, permanent := errors.AsType[*permanentError](err)
	return permanent
}
