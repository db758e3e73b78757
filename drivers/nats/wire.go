package nats

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/kaptar/kaptar/internal/partition"
	"github.com/kaptar/kaptar/messaging/driver"
)

const (
	headerKey = "Kaptar-Key"

	// headerRoom is the space that the driver's own headers may need beside those of the message.
	headerRoom = 256
)

// A stream's or consumer's name cannot have dots. Topics and groups have no '=', so no two of them
// share a name.
var nameEscaper = strings.NewReplacer(".", "_", "_", "=")

func escapeName(topicOrGroup string) string { return nameEscaper.Replace(topicOrGroup) }

// subject is the subject of a message. All messages of a key have the same one, so a group with
// Ordered can give each partition to one member.
func subject(topic, key string) string { return topic + "." + partition.Name(partition.Of(key)) }

// encode makes the message for the wire. It refuses a size that the server would refuse.
func encode(out *nats.Msg, m *driver.Message, maxPayload int64) error {
	h := make(nats.Header, len(m.Headers)+2)
	values := make([]string, 0, len(m.Headers)+2) // of all headers in one piece
	size := len(m.Data) + headerRoom
	set := func(name, value string) {
		n := len(values)
		values = append(values, value)
		h[name] = values[n : n+1 : n+1]
		size += len(name) + len(value) + 4
	}
	set(nats.MsgIdHdr, escapeValue(m.ID))
	set(headerKey, escapeValue(m.Key))
	for _, one := range m.Headers {
		switch {
		case !m.Raw && !plainHeader(one.Name):
			one.Value = escapeValue(one.Value)
		case m.Raw && strings.ContainsAny(one.Value, "\r\n"):
			return fmt.Errorf("nats: value of header %s of message %q on raw topic %q is %w: expected one line", one.Name, m.ID, m.Topic, driver.ErrInvalid)
		}
		set(one.Name, one.Value)
	}
	if int64(size) > maxPayload {
		return fmt.Errorf("nats: %w: message %q on topic %q needs %d bytes with encoded headers, the server takes %d (max_payload)",
			driver.ErrTooLarge, m.ID, m.Topic, size, maxPayload)
	}
	out.Subject, out.Header, out.Data = m.Topic, h, m.Data
	if !m.Raw {
		out.Subject = subject(m.Topic, m.Key)
	}
	return nil
}

// decode makes the message of a delivery. Its ID is empty if the publisher gave none.
func decode(topic string, raw bool, msg *nats.Msg) driver.Message {
	m := driver.Message{Topic: topic, Headers: make(driver.Headers, 0, len(msg.Header)), Data: msg.Data, Raw: raw}
	for name, values := range msg.Header {
		if len(values) == 0 || strings.HasPrefix(name, "Nats-") || name == headerKey {
			continue
		}
		value := values[0]
		if !raw {
			name = strings.ToLower(name)
		}
		if !raw && !plainHeader(name) {
			value = unescapeValue(value)
		}
		m.Headers = append(m.Headers, driver.Header{Name: name, Value: value})
	}
	slices.SortFunc(m.Headers, func(a, b driver.Header) int { // or the order of the map would choose among two of one name
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Value, b.Value))
	})
	m.Headers.Sort()
	m.ID = cmp.Or(unescapeValue(msg.Header.Get(nats.MsgIdHdr)), m.Headers.Get(driver.HeaderID))
	if key, ok := msg.Header[headerKey]; ok && len(key) > 0 {
		m.Key = unescapeValue(key[0])
	} else {
		m.Key = cmp.Or(m.Headers.Get("ce-partitionkey"), m.Headers.Get(driver.HeaderSubject))
	}
	return m
}

// plainHeader reports whether a header's value must stay as it is for others.
func plainHeader(name string) bool {
	return name == driver.HeaderContentType || name == driver.HeaderTraceParent || name == driver.HeaderTraceState
}

func plainByte(c byte) bool { return c > ' ' && c <= '~' && c != '"' && c != '%' }

// escapeValue percent-encodes as CloudEvents does for HTTP and NATS: everything but visible ASCII,
// and '"' and '%'.
func escapeValue(s string) string {
	n := 0
	for i := range len(s) {
		if !plainByte(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	return escapeBytes(s, '%', 2*n, plainByte)
}

// escapeBytes replaces bytes that are not plain by mark and two hexadecimal digits. more is the
// number of bytes that this adds.
func escapeBytes(s string, mark byte, more int, plain func(byte) bool) string {
	const digits = "0123456789ABCDEF"
	out := make([]byte, 0, len(s)+more)
	for i := range len(s) {
		if c := s[i]; plain(c) {
			out = append(out, c)
		} else {
			out = append(out, mark, digits[c>>4], digits[c&15])
		}
	}
	return string(out)
}

// unescapeValue undoes escapeValue. Other text stays: some programs do not encode.
func unescapeValue(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				c = byte(n)
				i += 2
			}
		}
		out = append(out, c)
	}
	return string(out)
}
