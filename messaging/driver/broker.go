package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrClosed is in the chain of errors of a broker after its Close.
var ErrClosed = errors.New("broker closed")

// A Broker is a connection to one message broker. All methods may be called concurrently.
type Broker interface {
	// Declare makes sure that sub.Topic exists and, if sub.Group is not empty, that the group does:
	// whatever is published after Declare returned reaches that group, also when it has no member
	// yet. It is idempotent and never changes a topic's messages or a group's position.
	// Nobody needs to call it: Publish and Subscribe declare what they find missing. It is for the
	// start of a program, where it finds a wrong name, a missing permission or a subscription that
	// the broker does not support. It waits for the broker until ctx ends, and does not retry.
	//
	// A driver whose broker keeps no history returns an error with errors.ErrUnsupported in its
	// chain for a group with FromBeginning, here and in Subscribe.
	Declare(ctx context.Context, sub Subscription) error

	// Publish returns nil once the broker has stored all messages as durably as it is configured
	// to, in the order given for each topic and key. The batch is validated before anything is
	// sent: an error with ErrInvalid or ErrTooLarge in its chain means that nothing was stored.
	// After any other error some messages may be stored; if it is a *PartialError, it says how many
	// of the first ones surely are. To send the rest again with the same IDs is right after every
	// such error: order per key is kept because a driver never lets a later message of a key
	// overtake a failed one.
	//
	// Publish does not retry and does not wait for a lost connection: when the broker is away it
	// fails soon, and the caller decides when to come back. Without a deadline in ctx, the driver
	// sets one of its own. An empty batch is nil without a round trip. Concurrent calls are not
	// ordered among each other.
	Publish(ctx context.Context, msgs []Message) error

	// Subscribe makes this call a member of sub.Group on sub.Topic and blocks until ctx ends, which
	// gives nil, or until it fails for good. A lost connection is not for good: Subscribe waits for
	// it and goes on. The first contact, though, must succeed, so that a wrong address or name
	// shows at the start.
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

// A Sharer is a Broker whose group has its messages in common: one that a member gave back with
// Nack(0) goes to any of its members. With other brokers a message belongs to a partition, and comes
// again to the member that has that; so it is of every broker for a Subscription with Ordered.
type Sharer interface {
	// SharesMessages does nothing.
	SharesMessages()
}

// A LagReporter is a Broker that knows how far behind its groups are.
type LagReporter interface {
	// Lag says what waits for sub.Group in sub.Topic, of each partition that the broker tells apart,
	// in their order. It asks the broker once or a few times, so call it every few
	// seconds at most; it makes and changes nothing. A group that the broker does not know is an
	// error.
	Lag(ctx context.Context, sub Subscription) ([]PartitionLag, error)
}

// A PartitionLag is what waits for a group in one partition of a topic.
type PartitionLag struct {
	Partition string    // as the broker's own tools name it; empty where the group has the topic as a whole
	Waiting   int64     // messages that are not acknowledged, in flight or not
	Oldest    time.Time // when the oldest of them was stored; zero: none waits, or it is not known
}

// A Resetter is a Broker that can move a group to another place in its topic.
type Resetter interface {
	// Reset makes sub.Group go on with the first message stored at the time to or later, the zero
	// time being the oldest that the broker still has; a time in the future is the end of the topic.
	// What the group has acknowledged counts no more. Its members must have left before: while one
	// is there Reset fails and changes nothing, or ends that member's Subscribe with an error, as the
	// driver documents. The error has errors.ErrUnsupported in its chain where the broker keeps no
	// history.
	Reset(ctx context.Context, sub Subscription, to time.Time) error
}

// A Retainer is a Broker that knows how long it keeps messages.
type Retainer interface {
	// Retention returns how long a topic keeps a message at most, acknowledged or not; 0 is for ever.
	// A topic that does not exist is an error.
	Retention(ctx context.Context, topic string) (time.Duration, error)
}

// A HealthReporter is a Broker that knows the state of its connection. Use it for readiness.
type HealthReporter interface {
	// Healthy returns nil while the broker can be reached, else an error that says since when it
	// cannot and why. It does not block and makes no round trip.
	Healthy() error
}

// A Subscription says what to receive.
type Subscription struct {
	Topic string // as Message.Topic
	Group string // usually the service's name; same characters as a topic

	// From says where a group starts that the broker does not know yet. Required: whether a new
	// service wants the past is not to be guessed. Ignored for a group that exists.
	From Start

	// Raw says that the topic belongs to programs without kaptar, and is what the broker itself
	// calls by that name: the Kafka topic, the RabbitMQ queue, the NATS subject. Each driver says
	// what becomes of groups, keys and IDs there, where such a program knows none.
	Raw bool

	// Ordered gives all messages of a key to one member of the group at a time, in order: the topic's
	// partitions are shared out evenly among the members, and move when one joins, leaves or dies.
	// Messages that were with a member which left or died come before later ones of their key,
	// except where the driver says that its broker cannot do that. All members of a group say the
	// same: one that says otherwise gets an error from Subscribe while the others are there, and may
	// try again. The group keeps its position when Ordered changes. A key is not held back while a
	// message of it waits after Nack, so a group with Ordered hands back what it has of a key from
	// its end. Not for topics with Raw where the driver says so.
	Ordered bool

	// MaxInFlight limits the unacknowledged deliveries of this member; 0 means 64.
	MaxInFlight int
}

// DefaultMaxInFlight is what a Subscription with MaxInFlight 0 gets.
const DefaultMaxInFlight = 64

// Start is where a new group begins. Its zero value is invalid.
type Start int

const (
	// FromNow gives only messages stored after the group was made.
	FromNow Start = iota + 1
	// FromBeginning gives everything that the broker still has.
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

// Validate checks the fields. Its error has ErrInvalid in its chain and says what was expected.
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

// ValidateDeclare is Validate for [Broker.Declare]: without a group only the topic counts.
func (s Subscription) ValidateDeclare() error {
	if s.Group != "" {
		return s.Validate()
	}
	if err := checkTopic(s.Topic, s.Raw); err != nil {
		return fmt.Errorf("driver: %w", err)
	}
	return nil
}

// A PartialError is Publish's error when a batch was cut short.
type PartialError struct {
	Sent int   // the first Sent messages of the batch are stored; of the others it is not known
	Err  error // why the rest is not
}

func (e *PartialError) Error() string {
	return fmt.Sprintf("driver: only the first %d messages are surely stored: %v", e.Sent, e.Err)
}

// Unwrap returns Err.
func (e *PartialError) Unwrap() error { return e.Err }
