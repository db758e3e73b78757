package driver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Names of the headers of CloudEvents 1.0 in binary mode and of W3C trace context. Header names are
// lower-case.
const (
	HeaderID          = "ce-id"
	HeaderSource      = "ce-source"
	HeaderType        = "ce-type"
	HeaderTime        = "ce-time"
	HeaderSubject     = "ce-subject"
	HeaderSequence    = "ce-sequence" // on an ordered topic: the number among those of the key, from 1
	HeaderSpecVersion = "ce-specversion"
	HeaderContentType = "content-type"
	HeaderTraceParent = "traceparent"
	HeaderTraceState  = "tracestate"
)

// MaxSize is the limit of [Message.Size] in bytes on every broker: 1 MiB, the default limit of the
// strictest one.
const MaxSize = 1 << 20

// MaxNack is the longest delay that every driver supports; see [Acker].
const MaxNack = 10 * time.Second

// ErrTooLarge says that a message's Size is above MaxSize, or above the broker's own limit. Errors
// wrap it.
var ErrTooLarge = errors.New("message too large")

// ErrInvalid says that a Message or Subscription breaks the rules of its fields. Errors wrap it.
var ErrInvalid = errors.New("invalid")

// A Message is one event in transit. Drivers do not change it, and keep neither it nor its slices
// after Publish returns.
type Message struct {
	// ID identifies the message. A broker that deduplicates stores an ID once per topic within its
	// duplicate window; consumers deduplicate by it for longer. Required; at most 255 bytes,
	// without control characters.
	ID string

	// Topic is where the message goes: words of letters, digits, '-' and '_', joined by '.'; the
	// first character of the name is a letter or a digit. With Raw any printable ASCII but spaces.
	// Required; at most 200 bytes.
	Topic string

	// Key groups messages whose order matters. Any valid UTF-8; messages with an empty key share
	// the empty key.
	Key string

	// Headers holds CloudEvents attributes as "ce-…", "content-type", "traceparent" and any others
	// of the sender, sorted by name. Names are lower-case letters, digits, '-' and '_'; with Raw
	// any printable ASCII except spaces and ':'. Values are valid UTF-8; drivers encode what their
	// protocol cannot hold. The values of content-type, traceparent and tracestate are sent as they
	// are, so they must be printable ASCII that neither starts nor ends with a space.
	Headers Headers

	// Data is the body. nil and empty are the same.
	Data []byte

	// Raw says that the message is for programs without kaptar; see [Subscription].Raw. The header
	// names of CloudEvents have no meaning then.
	Raw bool
}

// Size is the size that MaxSize limits: data, ID, topic, key and headers, with a few bytes for the
// framing of each header.
func (m *Message) Size() int {
	n := m.size()
	for i := range m.Headers {
		n += m.Headers[i].size()
	}
	return n
}

// size is Size without headers.
func (m *Message) size() int { return len(m.Data) + len(m.ID) + len(m.Topic) + len(m.Key) }

func (h *Header) size() int { return len(h.Name) + len(h.Value) + 4 }

// Validate checks the rules of the fields. Its error wraps ErrInvalid or ErrTooLarge and names the
// message, the field and the value. Drivers call it before they send anything.
func (m *Message) Validate() error {
	if err := checkTopic(m.Topic, m.Raw); err != nil {
		return fmt.Errorf("driver: message %q: %w", m.ID, err)
	}
	return m.validateRest()
}

// validateRest checks all but the topic.
func (m *Message) validateRest() error {
	if m.ID == "" || len(m.ID) > 255 || !isPlain(m.ID) && (strings.ContainsFunc(m.ID, isControl) || !utf8.ValidString(m.ID)) {
		return fmt.Errorf("driver: message id %.100q on topic %q is %w: want 1 to 255 bytes of text without control characters",
			m.ID, m.Topic, ErrInvalid)
	}
	if !utf8.ValidString(m.Key) {
		return fmt.Errorf("driver: key %.100q of message %q on topic %q is %w: want UTF-8", m.Key, m.ID, m.Topic, ErrInvalid)
	}
	n := m.size()
	for i := range m.Headers {
		h := &m.Headers[i]
		if err := h.check(m.Raw); err != nil {
			return fmt.Errorf("driver: message %q on topic %q: %w", m.ID, m.Topic, err)
		}
		if i > 0 && m.Headers[i-1].Name >= h.Name {
			return fmt.Errorf("driver: message %q on topic %q: header %.100q after %.100q is %w: want ascending names, each once (Headers.Sort)",
				m.ID, m.Topic, h.Name, m.Headers[i-1].Name, ErrInvalid)
		}
		n += h.size()
	}
	if n > MaxSize {
		return fmt.Errorf("driver: %w: message %q on topic %q has %d bytes with its headers, the limit is %d", ErrTooLarge, m.ID, m.Topic, n, MaxSize)
	}
	return nil
}

// ValidateAll checks every message and returns the first error, so that a driver can refuse a batch
// as a whole.
func ValidateAll(msgs []Message) error {
	for i := range msgs {
		var err error
		if i > 0 && msgs[i].Topic == msgs[i-1].Topic && msgs[i].Raw == msgs[i-1].Raw {
			err = msgs[i].validateRest()
		} else {
			err = msgs[i].Validate()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A Delivery is one message handed to one member of a group.
type Delivery struct {
	Message
	Acker

	// Attempt is the number of this delivery of the message to the group, from 1, as far as the
	// broker knows. Some brokers forget it when they restart, so use it for logs, not for limits.
	Attempt int
}

// An Acker tells the broker what became of a delivery. Exactly one of Ack and Nack ends it. After
// one of them has returned nil, all further calls do nothing and return nil. All methods may be
// called from any goroutine, even after Subscribe has returned, until the broker is closed.
type Acker interface {
	// Ack says that the message is done: the group does not get it again. A broker that crashes may
	// lose an Ack, so an acknowledged message may still be redelivered; consumers deduplicate.
	// After an error the message will be redelivered, so there is no need to call Ack again.
	Ack(ctx context.Context) error

	// Nack asks for redelivery to the group after the given time. 0 is at once; a driver may
	// shorten longer times to MaxNack. A message whose member leaves or dies may come sooner. A
	// waiting message may count as in flight. Nack is for messages that another member should have
	// now, not for failures: to try again later, keep the message in a database, as package
	// messaging does.
	Nack(ctx context.Context, after time.Duration) error

	// Extend restarts the ack wait, after which the broker takes the member for dead and redelivers
	// the message.
	Extend(ctx context.Context) error
}

func (h *Header) check(raw bool) error {
	name, value := h.Name, h.Value
	good := name != ""
	for i := 0; good && i < len(name); i++ {
		c := name[i]
		good = 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || raw && c > ' ' && c <= '~' && c != ':'
	}
	if !good {
		return fmt.Errorf("header name %.100q is %w: want lower-case letters, digits, '-' and '_'", name, ErrInvalid)
	}
	switch name {
	case HeaderContentType, HeaderTraceParent, HeaderTraceState:
		if strings.TrimSpace(value) != value || !isPlain(value) {
			return fmt.Errorf("value %.100q of header %s is %w: want printable ASCII without spaces at the ends", value, name, ErrInvalid)
		}
	default:
		if !utf8.ValidString(value) {
			return fmt.Errorf("value %.100q of header %s is %w: want UTF-8", value, name, ErrInvalid)
		}
	}
	return nil
}

func checkTopic(name string, raw bool) error {
	if !raw {
		return checkName("topic", name)
	}
	if name == "" || len(name) > 200 || !isPlain(name) || strings.Contains(name, " ") {
		return fmt.Errorf("raw topic %.100q is %w: want 1 to 200 printable ASCII characters without spaces", name, ErrInvalid)
	}
	return nil
}

func checkName(kind, name string) error {
	good := name != "" && len(name) <= 200 && !strings.Contains(name, "..") && !strings.HasSuffix(name, ".")
	for i := 0; good && i < len(name); i++ {
		c := name[i]
		word := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		good = word || i > 0 && (c == '-' || c == '_' || c == '.')
	}
	if !good {
		return fmt.Errorf("%s %.100q is %w: want 1 to 200 letters, digits, '-', '_' and single inner '.', starting with a letter or digit",
			kind, name, ErrInvalid)
	}
	return nil
}

// isPlain reports whether s is printable ASCII, as nearly every text is.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
