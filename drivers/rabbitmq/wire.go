package rabbitmq

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/messaging/driver"
)

// Names of header fields. Those of a driver.Message are lower-case, so none collides.
const (
	headerKey = "Kaptar-Key" // the key, when the routing key cannot hold it

	attributePrefix = "cloudEvents_" // what the AMQP binding prefers; "cloudEvents:" is understood too
	headerPrefix    = "ce-"

	headerCorrelationID = "correlation-id" // of raw messages: properties that programs use to answer
	headerReplyTo       = "reply-to"

	shortMax = 255 // bytes of a routing key, property or header name
)

// frameRoom is what a header frame needs beside the header fields and properties.
const frameRoom = 256

// encode makes the message for the wire. It refuses what would make the server close the
// connection. frameSize 0 means no limit.
func encode(m *driver.Message, frameSize int) (outgoing, error) {
	out := outgoing{exchange: m.Topic, key: m.Key}
	out.msg = amqp.Publishing{MessageId: m.ID, DeliveryMode: amqp.Persistent, Body: m.Data}
	headers := make(amqp.Table, len(m.Headers))
	if m.Raw {
		out.exchange, out.key = "", m.Topic
	} else if len(m.Key) > shortMax {
		sum := sha256.Sum256([]byte(m.Key))
		out.key = hex.EncodeToString(sum[:])
		headers[headerKey] = m.Key
	}
	size := frameRoom + len(m.ID) + len(m.Key)
	for _, one := range m.Headers {
		name, value := one.Name, one.Value
		wire := name
		switch {
		case name == driver.HeaderContentType && value != "" && len(value) <= shortMax:
			out.msg.ContentType = value
			continue
		case m.Raw && name == headerCorrelationID && len(value) <= shortMax:
			out.msg.CorrelationId = value
			continue
		case m.Raw && name == headerReplyTo && len(value) <= shortMax:
			out.msg.ReplyTo = value
			continue
		case m.Raw:
		case strings.HasPrefix(name, headerPrefix) && len(name) > len(headerPrefix):
			wire = attributePrefix + name[len(headerPrefix):]
		}
		if reserved(name) || len(wire) > shortMax {
			return out, fmt.Errorf("rabbitmq: header name %.100q of message %q on topic %q is %w: expected at most %d bytes, "+
				"and none of RabbitMQ's own (x-death, x-delivery-count)",
				name, m.ID, m.Topic, driver.ErrInvalid, shortMax+len(headerPrefix)-len(attributePrefix))
		}
		headers[wire] = value
		size += len(wire) + len(value) + 6
	}
	if len(headers) > 0 {
		out.msg.Headers = headers
	}
	if frameSize > 0 && size > frameSize {
		return out, fmt.Errorf("rabbitmq: %w: message %q on topic %q has about %d bytes of headers, the server takes %d (frame_max)",
			driver.ErrTooLarge, m.ID, m.Topic, size, frameSize)
	}
	return out, nil
}

// decode makes the message of a delivery.
func decode(topic string, raw bool, d *amqp.Delivery) driver.Message {
	m := driver.Message{ID: d.MessageId, Topic: topic, Headers: make(driver.Headers, 0, len(d.Headers)+1), Data: d.Body, Raw: raw}
	if !raw { // there the routing key is the queue's name
		m.Key = d.RoutingKey
	}
	for name, field := range d.Headers {
		value, ok := text(field)
		if !ok || reserved(name) {
			continue
		}
		switch {
		case name == headerKey:
			m.Key = value
			continue
		case raw:
			m.Headers = append(m.Headers, driver.Header{Name: name, Value: value})
			continue
		case strings.HasPrefix(name, attributePrefix) || strings.HasPrefix(name, "cloudEvents:"):
			name = headerPrefix + name[len(attributePrefix):]
		}
		m.Headers = append(m.Headers, driver.Header{Name: strings.ToLower(name), Value: value})
	}
	slices.SortFunc(m.Headers, func(a, b driver.Header) int { // or the order of the map would choose among two of one name
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Value, b.Value))
	})
	if d.ContentType != "" {
		m.Headers = append(m.Headers, driver.Header{Name: driver.HeaderContentType, Value: d.ContentType})
	}
	if raw && d.CorrelationId != "" {
		m.Headers = append(m.Headers, driver.Header{Name: headerCorrelationID, Value: d.CorrelationId})
	}
	if raw && d.ReplyTo != "" {
		m.Headers = append(m.Headers, driver.Header{Name: headerReplyTo, Value: d.ReplyTo})
	}
	m.Headers.Sort()
	if m.ID == "" {
		m.ID = m.Headers.Get(driver.HeaderID)
	}
	if m.ID == "" {
		m.ID = rand.Text()
	}
	return m
}

// attempt returns how often the message was delivered to the group, including this time.
func attempt(d *amqp.Delivery) int {
	if count, ok := number(d.Headers["x-delivery-count"]); ok && count > 0 && count < math.MaxInt32 {
		return 1 + int(count)
	}
	if d.Redelivered { // by a queue that keeps no count
		return 2
	}
	return 1
}

// reserved reports whether RabbitMQ writes or interprets a header field.
func reserved(name string) bool {
	switch name {
	case "x-death", "x-delivery-count", "x-acquired-count", "CC", "BCC":
		return true
	}
	return strings.HasPrefix(name, "x-first-death-") || strings.HasPrefix(name, "x-last-death-")
}

// text returns a header field as text, as CloudEvents writes it; false for tables, lists and nil.
func text(field any) (string, bool) {
	switch v := field.(type) {
	case string:
		return v, true
	case []byte:
		return string(v), true
	case bool:
		return strconv.FormatBool(v), true
	case time.Time:
		return v.UTC().Format(time.RFC3339), true
	case float32, float64:
		return fmt.Sprint(v), true
	}
	if n, ok := number(field); ok {
		return strconv.FormatInt(n, 10), true
	}
	return "", false
}

func number(field any) (int64, bool) {
	switch v := reflect.ValueOf(field); {
	case v.CanInt():
		return v.Int(), true
	case v.CanUint():
		return int64(v.Uint()), true //nolint:gosec // AMQP has at most 32 bits without sign
	}
	return 0, false
}
