package kafkadriver

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/messaging/driver"
)

const (
	headerID = "Kaptar-Id"

	// headerRaw precedes names that would otherwise read as CloudEvents attributes. Message headers are lower-case, so none can
	// be taken for it.
	headerRaw = "Kaptar-Header-"

	// batchRoom and headerRoom are what Kafka's format adds at most to a batch of one record and to each header.
	batchRoom  = 128
	headerRoom = 10

	usualHeader = 40 // bytes of a value
)

// encode makes the record of a message. It shares no memory with m, since a cancelled Publish may return before the client
// has written it. limit is what the topic takes.
func encode(m *driver.Message, topic string, limit int) (*kgo.Record, error) {
	// One piece of memory for the whole record costs less than one for each value. Should it be too small, it grows.
	memory := make([]byte, 0, len(m.Key)+len(m.Data)+len(m.ID)+usualHeader*len(m.Headers))
	bytes := func(s string) []byte {
		memory = append(memory, s...)
		return memory[len(memory)-len(s) : len(memory) : len(memory)] // not nil, which means "no key" and "deleted"
	}
	r := &kgo.Record{Topic: topic, Key: bytes(m.Key)}
	memory = append(memory, m.Data...)
	r.Value = memory[len(memory)-len(m.Data) : len(memory) : len(memory)]
	r.Headers = make([]kgo.RecordHeader, 0, len(m.Headers)+1)
	size := batchRoom + len(r.Key) + len(r.Value)
	add := func(name, value string) {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: bytes(value)})
		size += headerRoom + len(name) + len(value)
	}
	if m.Headers[driver.HeaderID] != m.ID {
		add(headerID, m.ID)
	}
	for name, value := range m.Headers {
		add(wireName(name), value)
	}
	if size > limit {
		return nil, fmt.Errorf("kafkadriver: %w: message %q on topic %q needs %d bytes, the topic takes %d (max.message.bytes)",
			driver.ErrTooLarge, m.ID, m.Topic, size, limit)
	}
	return r, nil
}

// wireName is what a header is called on the wire.
func wireName(name string) string {
	switch name { // nearly always, and then it costs no memory
	case driver.HeaderID:
		return "ce_id"
	case driver.HeaderType:
		return "ce_type"
	case driver.HeaderSource:
		return "ce_source"
	case driver.HeaderTime:
		return "ce_time"
	case driver.HeaderSubject:
		return "ce_subject"
	case driver.HeaderSpecVersion:
		return "ce_specversion"
	}
	if rest, ok := strings.CutPrefix(name, "ce-"); ok {
		return "ce_" + rest
	}
	if strings.HasPrefix(name, "ce_") {
		return headerRaw + name
	}
	return name
}

// headerName undoes wireName; names that are not from this driver become lower-case.
func headerName(wire string) string {
	switch wire { // as in wireName
	case "ce_id":
		return driver.HeaderID
	case "ce_type":
		return driver.HeaderType
	case "ce_source":
		return driver.HeaderSource
	case "ce_time":
		return driver.HeaderTime
	case "ce_subject":
		return driver.HeaderSubject
	case "ce_specversion":
		return driver.HeaderSpecVersion
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

// decode makes the message of a record, which may come from any program.
func decode(topic string, r *kgo.Record) driver.Message {
	room := len(r.Key)
	for _, h := range r.Headers {
		room += len(h.Value)
	}
	var memory strings.Builder // for all texts of the message
	memory.Grow(room)
	text := func(b []byte) string {
		if !utf8.Valid(b) { // a foreign program
			return string(bytes.ToValidUTF8(b, []byte("\uFFFD")))
		}
		from := memory.Len()
		memory.Write(b)
		return memory.String()[from:]
	}
	m := driver.Message{Topic: topic, Key: text(r.Key), Headers: make(map[string]string, len(r.Headers)), Data: r.Value}
	for _, h := range r.Headers {
		if h.Key == headerID {
			m.ID = text(h.Value)
			continue
		}
		m.Headers[headerName(h.Key)] = text(h.Value)
	}
	if m.ID == "" {
		m.ID = m.Headers[driver.HeaderID]
	}
	if m.ID == "" { // the same at every delivery
		m.ID = fmt.Sprintf("%s-%d-%d", r.Topic, r.Partition, r.Offset)
	}
	return m
}

// otherName is what a topic is called whose own name Kafka refuses.
func otherName(topic string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(topic)) // cannot fail
	return fmt.Sprintf("%s-%08x", topic, h.Sum32())
}

// groupName is unique: neither groups nor topics have a slash.
func groupName(sub driver.Subscription) string { return sub.Group + "/" + sub.Topic }
