package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrClosed is the error of a broker's methods after its Close. Errors wrap it.
var ErrClosed = errors.New("broker closed")

// A Broker is a connection to one message broker. All methods may be called concurrently.
type Broker interface {
	// Declare makes sure that sub.Topic exists and, if sub.Group is not empty, that the group does.
	// Whatever is published after Declare has returned reaches that group, even if it has no member
	// yet. Declare is idempotent and never changes a topic's messages or a group's position.
	// Publish and Subscribe declare what is missing, so calling it is optional: at the start of a
	// program it reveals a wrong name, a missing permission, or a subscription that the broker does
	// not support. It waits for the broker until ctx ends, and does not retry.
	//
	// A driver whose broker keeps no history returns an error that wraps errors.ErrUnsupported for
	// a group with FromBeginning, here and in Subscribe.
	Declare(ctx context.Context, sub Subscription) error

	// Publish returns nil once the broker has stored all messages as durably as it is configured
	// to, in the order given for each topic and key. The batch is validated before anything is
	// sent: if the error wraps ErrInvalid or ErrTooLarge, nothing was stored. After any other error
	// some messages may be stored; a *PartialError says how many of the first ones certainly are.
	// The caller may always send the rest again with the same IDs. That keeps the order of each
	// key, because a driver never lets a later message of a key overtake one that failed.
	//
	// Publish does not retry and does not wait for a lost connection: while the broker is away it
	// fails soon, and the caller decides when to try again. If ctx has no deadline, the driver sets
	// one. An empty batch is nil without a round trip. Concurrent calls are not ordered with
	// respect to each other.
	Publish(ctx context.Context, msgs []Message) error

	// Subscribe makes this call a member of sub.Group on sub.Topic and blocks until ctx ends, which
	// gives nil, or until it fails for good. A lost connection is not for good: Subscribe waits for
	// it and goes on. The first contact, though, must succeed: declare before.
	//
	// deliver is called from one goroutine, in broker order. While it runs nothing else is
	// delivered to this member, so it must hand the message on and return; but it may block for
	// back pressure. At most sub.MaxInFlight deliveries of this member are unacknowledged at any
	// time. A message that is neither acknowledged nor given back in the driver's ack-wait time
	// (each driver documents it; 30 s by default) comes again, to any member of the group, and no
	// longer counts.
	//
	// When ctx ends nothing more is delivered once Subscribe returned. Messages delivered before
	// can still be acknowledged; those that were only fetched go back to the group at once.
	Subscribe(ctx context.Context, sub Subscription, deliver func(Delivery)) error

	// Close ends all Subscribe calls, which return nil, sends the acknowledgements still buffered
	// and frees the connection. It returns when that is done or when ctx ends; then it cuts. A
	// second call does nothing and returns nil. Other methods return ErrClosed afterwards.
	Close(ctx context.Context) error
}

// A Sharer is a Broker whose groups share their messages: one that a member gave back with Nack(0)
// goes to any member. With other brokers, and with every broker for a Subscription with Ordered, a
// message belongs to a partition and is redelivered to the member that has the partition.
type Sharer interface {
	// SharesMessages marks the broker and does nothing.
	SharesMessages()
}

// A LagReporter is a Broker that knows how far behind its groups are.
type LagReporter interface {
	// Lag returns what waits for sub.Group in sub.Topic, for each partition that the broker
	// distinguishes, in their order. It asks the broker once or a few times, so call it every few
	// seconds at most. It creates and changes nothing. A group that the broker does not know is an
	// error.
	Lag(ctx context.Context, sub Subscription) ([]PartitionLag, error)
}

// A PartitionLag is what waits for a group in one partition of a topic.
type PartitionLag struct {
	Partition string    // as the broker's own tools name it; empty if the group has no partitions
	Waiting   int64     // messages that are not acknowledged, delivered or not
	Oldest    time.Time // when the oldest of them was stored; zero if none waits or it is not known
}

// A Resetter is a Broker that can move a group to another place in its topic.
type Resetter interface {
	// Reset makes sub.Group continue with the first message stored at the time to or later. The
	// zero time is the oldest message that the broker still has; a time in the future is the end of
	// the topic. Earlier acknowledgements no longer count. The group's members must have left
	// before: if one is still there, Reset fails and changes nothing, or ends that member's
	// Subscribe with an error, as the driver documents. If the broker keeps no history, the error
	// wraps errors.ErrUnsupported.
	Reset(ctx context.Context, sub Subscription, to time.Time) error
}

// A Retainer is a Broker that knows how long it keeps messages.
type Retainer interface {
	// Retention returns the longest time for which a topic keeps a message, acknowledged or not; 0
	// is for ever. A topic that does not exist is an error.
	Retention(ctx context.Context, topic string) (time.Duration, error)
}

// A HealthReporter is a Broker that knows the state of its connection. Use it for readiness.
type HealthReporter interface {
	// Healthy returns nil while the broker can be reached, and otherwise an error that says why it
	// cannot and since when. It does not block and makes no round trip.
	Healthy() error
}

// A Subscription says what to receive.
type Subscription struct {
	Topic string // as Message.Topic
	Group string // usually the service's name; same characters as a topic

	// From says where a group begins that the broker does not know yet. Required, because neither
	// choice is a safe default. Ignored for a group that exists.
	From Start

	// Raw says that the topic belongs to programs without kaptar and is what the broker itself
	// calls by that name: the Kafka topic, the RabbitMQ queue, the NATS subject. Each driver
	// documents what groups, keys and IDs mean there.
	Raw bool

	// Ordered gives all messages of a key to one member of the group at a time, in order. The
	// topic's partitions are shared evenly among the members, and move when one joins, leaves or
	// dies. Messages that a member had when it left or died come before later ones of their key,
	// unless the driver documents that its broker cannot do that. All members of a group must
	// agree: one that does not gets an error from Subscribe while the others are there, and may try
	// again. The group keeps its position when Ordered changes. A message that waits after Nack
	// does not hold back its key, so a group with Ordered gives back its messages of a key from the
	// last to the first. Drivers may exclude topics with Raw.
	Ordered bool

	// MaxInFlight limits the unacknowledged deliveries of this member; 0 means 64.
	MaxInFlight int
}

// DefaultMaxInFlight is the limit for a Subscription with MaxInFlight 0.
const DefaultMaxInFlight = 64

// Start is where a new group begins. Its zero value is invalid.
type Start int

const (
	// FromNow begins with the first message that is stored after the group was created.
	FromNow Start = iota + 1
	// FromBeginning begins with the oldest message that the broker still has.
	FromBeginning
)

func (s Start) String() string {
	switch s {
	case FromNow:
		return "from now"
	case FromBeginning:
		return "from the beginning"
	}
	return fmt.Sprintf("Start(%d)", int(s))
}

// Validate checks the fields. Its error wraps ErrInvalid and says what was expected.
func (s Subscription) Validate() error {
	err := cmp.Or(checkTopic(s.Topic, s.Raw), checkName("group", s.Group))
	switch {
	case err != nil:
	case s.From != FromNow && s.From != FromBeginning:
		err = fmt.Errorf("start %d is %w: want FromNow or FromBeginning", int(s.From), ErrInvalid)
	case s.MaxInFlight < 0:
		err = fmt.Errorf("max in flight %d is %w: want 1 or more, or 0 for %d", s.MaxInFlight, ErrInvalid, DefaultMaxInFlight)
	}
	if err != nil {
		return fmt.Errorf("driver: subscription of group %q to %q: %w", s.Group, s.Topic, err)
	}
	return nil
}

// ValidateDeclare is Validate for [Broker.Declare]: without a group only the topic is checked.
func (s Subscription) ValidateDeclare() error {
	if s.Group != "" {
		return s.Validate()
	}
	if err := checkTopic(s.Topic, s.Raw); err != nil {
		return fmt.Errorf("driver: %w", err)
	}
	return nil
}

// A PartialError is the error of Publish when only a part of a batch was stored.
type PartialError struct {
	Sent int   // the first Sent messages are stored; the others may be
	Err  error // why the rest is not
}

func (e *PartialError) Error() string {
	return fmt.Sprintf("driver: only the first %d messages are surely stored: %v", e.Sent, e.Err)
}

// Unwrap returns Err.
func (e *PartialError) Unwrap() error { return e.Err }
