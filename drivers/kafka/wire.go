package kafka

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/messaging/driver"
)

const (
	headerID = "Kaptar-Id"

	// headerRaw precedes names that would otherwise be read as CloudEvents attributes. Message
	// headers are lower-case, so none begins with it.
	headerRaw = "Kaptar-Header-"

	// batchRoom and headerRoom bound what Kafka adds to a batch of one record and to each header.
	batchRoom  = 128
	headerRoom = 10
)

// An encoder makes records of messages. The records share no memory with the messages, since a
// cancelled Publish may return before the client has written them. They share memory among each
// other: one allocation for a batch costs far less than many small ones.
type encoder struct {
	bytes   []byte
	headers []kgo.RecordHeader
}

func newEncoder(msgs []driver.Message) *encoder {
	bytes, headers := 0, 0
	for i := range msgs {
		m := &msgs[i]
		bytes += len(m.Key) + len(m.Data) + len(m.ID)
		for j := range m.Headers {
			bytes += len(m.Headers[j].Value)
		}
		headers += len(m.Headers) + 1
	}
	return &encoder{make([]byte, 0, bytes), make([]kgo.RecordHeader, 0, headers)}
}

// copy returns a copy of text. It is never nil, which would mean "no key" and "deleted".
func (e *encoder) copy(text string) []byte {
	from := len(e.bytes)
	e.bytes = append(e.bytes, text...)
	return e.bytes[from:len(e.bytes):len(e.bytes)]
}

// encode makes the record of a message. limit is the largest batch of the topic.
func (e *encoder) encode(r *kgo.Record, m *driver.Message, topic string, limit int) error {
	r.Topic = topic
	if m.Key != "" || !m.Raw { // a raw message without a key may go to any partition
		r.Key = e.copy(m.Key)
	}
	from := len(e.bytes)
	e.bytes = append(e.bytes, m.Data...)
	r.Value = e.bytes[from:len(e.bytes):len(e.bytes)]
	size := batchRoom + len(r.Key) + len(r.Value)
	first := len(e.headers)
	if m.Headers.Get(driver.HeaderID) != m.ID {
		e.headers = append(e.headers, kgo.RecordHeader{Key: headerID, Value: e.copy(m.ID)})
	}
	for i := range m.Headers {
		h := &m.Headers[i]
		name := h.Name
		if !m.Raw {
			name = wireName(name)
		}
		e.headers = append(e.headers, kgo.RecordHeader{Key: name, Value: e.copy(h.Value)})
	}
	r.Headers = e.headers[first:len(e.headers):len(e.headers)]
	for i := range r.Headers {
		size += headerRoom + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	if size > limit {
		return fmt.Errorf("kafka: %w: message %q on topic %q needs %d bytes, the topic takes %d (max.message.bytes)",
			driver.ErrTooLarge, m.ID, m.Topic, size, limit)
	}
	return nil
}

// usual are the headers of nearly all messages, so that they need no allocation.
var usual = []struct{ name, wire string }{
	{driver.HeaderID, "ce_id"},
	{driver.HeaderSource, "ce_source"},
	{driver.HeaderSpecVersion, "ce_specversion"},
	{driver.HeaderSubject, "ce_subject"},
	{driver.HeaderTime, "ce_time"},
	{driver.HeaderType, "ce_type"},
	{driver.HeaderContentType, driver.HeaderContentType},
	{driver.HeaderTraceParent, driver.HeaderTraceParent},
	{driver.HeaderTraceState, driver.HeaderTraceState},
}

// wireName is the name of a header on the wire.
func wireName(name string) string {
	for i := range usual {
		if usual[i].name == name {
			return usual[i].wire
		}
	}
	if rest, ok := strings.CutPrefix(name, "ce-"); ok {
		return "ce_" + rest
	}
	if strings.HasPrefix(name, "ce_") {
		return headerRaw + name
	}
	return name
}

// headerName undoes wireName. Names of other programs become lower-case.
func headerName(wire string) string {
	for i := range usual {
		if usual[i].wire == wire {
			return usual[i].name
		}
	}
	if raw, ok := strings.CutPrefix(wire, headerRaw); ok {
		return raw
	}
	name := strings.ToLower(wire)
	if rest, ok := strings.CutPrefix(name, "ce_"); ok {
		name = "ce-" + rest
	}
	return name
}

// A decoder makes messages of records, which may come from any program. Messages decoded one after
// the other share small pieces of memory, so that a kept text does not keep a whole fetch.
type decoder struct {
	raw     bool // headers keep their names
	texts   strings.Builder
	headers driver.Headers
	before  [16]seenHeader // by index; names, and most values such as source and type, repeat from message to message
}

// A seenHeader is one of the record before.
type seenHeader struct{ wire, name, value string }

const (
	textsTogether   = 2 << 10 // bytes
	headersTogether = 64
)

func (d *decoder) decode(topic string, r *kgo.Record) driver.Message {
	m := driver.Message{Topic: topic, Key: d.text(r.Key), Data: slices.Clip(r.Value), Raw: d.raw}
	if cap(d.headers)-len(d.headers) < len(r.Headers) {
		d.headers = make(driver.Headers, 0, max(len(r.Headers), headersTogether))
	}
	first := len(d.headers)
	for i := range r.Headers {
		h := &r.Headers[i]
		if h.Key == headerID {
			m.ID = d.text(h.Value)
			continue
		}
		seen := &d.before[i%len(d.before)]
		if seen.wire != h.Key {
			if seen.wire, seen.name = h.Key, h.Key; !d.raw {
				seen.name = headerName(h.Key)
			}
		}
		if seen.value != string(h.Value) {
			seen.value = d.text(h.Value)
		}
		d.headers = append(d.headers, driver.Header{Name: seen.name, Value: seen.value})
	}
	m.Headers = slices.Clip(d.headers[first:])
	m.Headers.Sort()
	if m.ID == "" {
		m.ID = m.Headers.Get(driver.HeaderID)
	}
	if m.ID == "" { // the same at every delivery, but not in a topic that was made again
		m.ID = fmt.Sprintf("%s-%d-%d-%d", r.Topic, r.Partition, r.Offset, r.Timestamp.UnixMilli())
	}
	return m
}

// text returns a copy of b.
func (d *decoder) text(b []byte) string {
	if !utf8.Valid(b) { // a foreign program
		return string(bytes.ToValidUTF8(b, []byte("\uFFFD")))
	}
	if d.texts.Cap()-d.texts.Len() < len(b) {
		d.texts.Reset()
		d.texts.Grow(max(len(b), textsTogether))
	}
	from := d.texts.Len()
	d.texts.Write(b)
	return d.texts.String()[from:]
}

// clone copies a record that has to wait, so that it shares no memory with its fetch.
func clone(r *kgo.Record) *kgo.Record {
	c := *r
	c.Key, c.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	c.Headers = slices.Clone(r.Headers)
	for i := range c.Headers {
		c.Headers[i].Value = bytes.Clone(c.Headers[i].Value)
	}
	return &c
}

// size is what a waiting record counts against maxHeldBytes.
func size(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// otherName is the name of a topic whose own name Kafka refuses.
func otherName(topic string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(topic)) // cannot fail
	return fmt.Sprintf("%s-%08x", topic, h.Sum32())
}

// groupName is unique: neither groups nor topics have a slash.
func groupName(sub driver.Subscription) string { return sub.Group + "/" + sub.Topic }
