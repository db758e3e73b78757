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
//   - Order is kept per topic, key and consumer group on a topic that is Ordered; elsewhere while one
//     process consumes and nothing fails. See Order. There is none across keys.
//   - A handler that fails is tried again in place. Then the event is set aside: it becomes a row of
//     kaptar_dead_letters in the consumer's own database, in the same transaction that marks it as
//     handled, and only then is it acknowledged. It is "retrying", tried again by itself, then "dead",
//     waiting for an operator; or "parked", waiting for an earlier one of its key. What can be neither
//     handled nor set aside is not acknowledged. See [Subscribe].
//   - An event is known by its source and its ID, as in CloudEvents, for as long as the setting
//     inbox.retention says (168h). One of an ordered topic is known by its source, key and number, for
//     ever.
//   - On the wire an event is a CloudEvent 1.0 in binary mode with JSON data and a W3C traceparent,
//     so that clients in any language can read and write it. Events in structured mode
//     (application/cloudevents+json) are read too; their key is partitionkey, else subject. Plain
//     messages of programs that know nothing of CloudEvents come and go as [Raw].
//
// # Order
//
// A consuming service handles one event of a key at a time, in the order of the broker. On a topic
// that is not Ordered an event is handled after later ones of its key when it failed at all tries in
// place, when its consumer ended or lost the broker before it was handled, and when several instances
// consume at once. Handlers for which that matters keep the number or time of the last change that
// they applied beside their data, or the topic is Ordered:
//
//   - The publisher gives each event of a key a number, 1, 2, 3, in the transaction that publishes it:
//     one more statement, and transactions with the same key wait for each other until they commit. A
//     key has at most 255 bytes.
//   - The consumer handles the numbers of a key one after the other, with any number of instances: the
//     broker gives a key to one member of the group at a time (partitions, see the driver), and the
//     inbox takes a number only after the one before it.
//   - One that fails and is set aside holds back those of its key: they are set aside behind it as
//     parked, and tried in order once it is handled, or an operator has dropped it. Other keys go on.
//   - Of numbers that are missing the later ones wait here: after 30 s they are logged and counted
//     (messaging_gap_keys), after 5 min the first of them is dead with a reason that names what is
//     missing, and the others are parked behind it. When the missing ones come after all they are
//     handled first, and the rest follows by itself; an operator's replay goes on without them. No
//     more than 64 events of a subscription wait so; one more is set aside at once. An event that the
//     broker refuses, a dead letter of the publisher, is missing everywhere until it is replayed.
//   - The first number of a key that a group sees is where its order begins: 1; or another one at once
//     in a group FromNow, and after 30 s in one FromBeginning, whose broker may have forgotten the
//     rest. A number from before that is a dead letter when it comes, as it may have been handled by
//     another group or not at all. So is a number that was another event before: then the publisher's
//     database was restored from a backup, as far as the last number shows it.
//
// An event without a number (header ce-sequence), such as one of PublishNow, of another program or of
// a topic of [Raw], is handled on an ordered topic as on any other. Publish to a topic for which
// Ordered is new begins at number 1 of each key, and what the broker still has without numbers is
// handled beside them: consumers and broker should have caught up before.
//
// Keys share up to 256 unfinished events of a subscription. A key whose handler is slow can fill that
// and leave no room for others; one whose handler fails cannot, since it is set aside.
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
	Attempt int       // which try this is, 1 for the first; it begins anew when the process ends, or with an operator's replay
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
