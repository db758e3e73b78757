package kafkadriver

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"strings"

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
)

// encode makes the record of a message. It shares no memory with m, since a cancelled Publish may return before the client
// has written it. limit is what the topic takes.
func encode(m *driver.Message, topic string, limit int) (*kgo.Record, error) {
	r := &kgo.Record{Topic: topic, Key: []byte(m.Key), Value: append([]byte{}, m.Data...)} // not nil, which means "no key" and "deleted"
	r.Headers = make([]kgo.RecordHeader, 0, len(m.Headers)+1)
	size := batchRoom + len(r.Key) + len(r.Value)
	add := func(name, value string) {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
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

func wireName(name string) string {
	if rest, ok := strings.CutPrefix(name, "ce-"); ok {
		return "ce_" + rest
	}
	if strings.HasPrefix(name, "ce_") {
		return headerRaw + name
	}
	return name
}

// decode makes the message of a record, which may come from any program.
func decode(topic string, r *kgo.Record) driver.Message {
	m := driver.Message{Topic: topic, Key: text(r.Key), Headers: make(map[string]string, len(r.Headers)), Data: r.Value}
	for _, h := range r.Headers {
		if h.Key == headerID {
			m.ID = text(h.Value)
			continue
		}
		if raw, ok := strings.CutPrefix(h.Key, headerRaw); ok {
			m.Headers[raw] = text(h.Value)
			continue
		}
		name := strings.ToLower(h.Key)
		if rest, ok := strings.CutPrefix(name, "ce_"); ok {
			name = "ce-" + rest
		}
		m.Headers[name] = text(h.Value)
	}
	if m.ID == "" {
		m.ID = m.Headers[driver.HeaderID]
	}
	if m.ID == "" { // the same at every delivery
		m.ID = fmt.Sprintf("%s-%d-%d", r.Topic, r.Partition, r.Offset)
	}
	return m
}

// text is what a foreign program sent, made UTF-8 where it is not.
func text(b []byte) string { return string(bytes.ToValidUTF8(b, []byte("\uFFFD"))) }

// otherName is what a topic is called whose own name Kafka refuses.
func otherName(topic string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(topic)) // cannot fail
	return fmt.Sprintf("%s-%08x", topic, h.Sum32())
}

// groupName is unique: neither groups nor topics have a slash.
func groupName(sub driver.Subscription) string { return sub.Group + "/" + sub.Topic }
