// Package messaging carries events between services.
//
// A [Topic] names a stream of events of one Go type. A service publishes through a [Publisher]
// inside its own database transaction: the event is in its outbox, and goes to the broker, if and
// only if the transaction commits. A service consumes with [Subscribe]: the handler runs in a
// transaction of the consumer's database together with the mark that the event was handled.
//
// # Semantics
//
//   - Delivery is at least once; effects inside the consumer's own database happen once. Effects
//     elsewhere (mail, cards) can happen again after a crash: pass Event.ID on as an idempotency
//     key.
//   - Order is kept per topic, key and consumer group, while one process consumes, with the
//     exceptions under Order. There is none across keys.
//   - A handler that fails is tried again in place, then by redelivery, and is at last put aside as
//     a dead letter in the consumer's own database, in the same transaction that would have marked
//     it handled. See [Subscribe].
//   - An event is known by its source and its ID, as in CloudEvents.
//   - On the wire an event is a CloudEvent 1.0 in binary mode with JSON data and a W3C traceparent,
//     so that clients in any language can read and write it. Events in structured mode
//     (application/cloudevents+json) are read too; their key is partitionkey, else subject. Plain messages of programs that know
//     nothing of CloudEvents come and go as [Raw].
//
// # Order
//
// A consuming service handles one event of a key at a time, in the order of the broker, and retries
// in place hold back the later events of that key only. An event is handled after later ones of its
// key in these cases:
//
//   - It failed at all tries in place. It then waits for its redelivery, or is a dead letter, while
//     the later ones go on.
//   - It was not handled when the consuming process ended or lost its connection to the broker. A
//     graceful stop finishes the handlers that run and hands back the rest, which comes at the next
//     start, but brokers do not promise in which order; after a kill it comes after the driver's
//     ack-wait time, 30 s by default.
//   - Several instances of the service consume at once: each gets a share of every key. While versions
//     of the service share events by weight, a key belongs to one version.
//
// A handler for which that matters keeps the number or time of the last change that it applied
// beside its data, and drops older ones. Keys share up to 256 unfinished events of a subscription:
// a key that has more than that waiting leaves no room for others.
//
// The broker is a URL, the setting broker_url, or topics.<name>.url for one topic; its driver is
// linked by importing its package, such as drivers/nats.
package messaging

import (
	"errors"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// A Topic names a stream of events whose data is a T. A T that is a pointer to a generated message
// of protobuf is sent as application/protobuf, and read from that and from application/json, as the
// content type of each event says; any other T is JSON. Declare one as a package
// variable beside T, in a package that its publisher and its consumers share. Put a version into
// the name, "order.placed.v1", and take a new name for a change that old consumers cannot read.
//
// Where T has a method Validate() error, subscriptions call it: an event that it refuses is a dead
// letter, and no handler sees it.
type Topic[T any] struct {
	Name string // words of letters, digits, '-' and '_' joined by '.'

	// Ordered gives the events of a key numbers, 1, 2, 3, as part of the publisher's transaction, and
	// consumers handle them in that order; see Order in the package comment. It has no effect on a
	// topic of Raw, nor on events without a number, such as those of PublishNow.
	Ordered bool

	// DataSchema is the absolute URI of the schema of the data, which goes out with each event as the
	// attribute dataschema; "" is none. It is for people and other programs: nothing here reads it.
	// Where schemas are committed files, it is the address of the topic's own.
	DataSchema string

	// Older are earlier versions, whose events subscriptions handle too: Upcast makes them.
	Older []Older[T]
}

// raw reports whether the topic is one of programs without kaptar.
func (t Topic[T]) raw() bool {
	_, raw := any(*new(T)).(Raw)
	return raw
}

// Raw is the data of a message that another program reads or has written, without CloudEvents: a
// Topic[Raw] is what the broker itself calls by the topic's name.
//
//   - Kafka: the topic; made when it is missing. An event without an ID of its own is known by its
//     partition, offset and timestamp.
//   - RabbitMQ: the queue, and to publish the default exchange. Queues that programs declare differ,
//     so it is left to them: a subscription and the outbox wait until the queue is there. All groups
//     share it. An event is known by the property message-id; without, it is handled again when it
//     comes again.
//   - NATS: the subject, in a stream that is made for it.
//
// On Kafka and RabbitMQ the topic may have any name of printable ASCII without spaces that they
// take. Event.Source and Event.Time are empty. Nothing is promised of keys that the broker does not
// know (RabbitMQ): then all events have one, and are handled one after the other unless
// SubscribeOptions.Unordered says otherwise.
type Raw struct {
	Headers map[string]string // names as on the wire; values that are not UTF-8 are mended
	Body    []byte
}

// An Event is one occurrence on a topic.
type Event[T any] struct {
	ID      string    // the same at every delivery; with Source it names the event
	Source  string    // the service that published it
	Key     string    // what its order is kept by
	Time    time.Time // when it was published
	Attempt int       // which delivery this is, 1 for the first
	Data    T
}

// Start is where a consumer group begins that the broker does not know yet.
type Start = driver.Start

// Where a new consumer group starts. A group that exists goes on where it stopped.
const (
	FromNow       Start = driver.FromNow
	FromBeginning Start = driver.FromBeginning
)

// permanentError marks an error that trying again cannot mend.
type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent marks err, returned by a handler, as one that trying again cannot
// mend: the event becomes a dead letter at once. Permanent(nil) is nil.
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
