package messaging

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"slices"
	"strconv"
	"strings"

	"github.com/kaptar/kaptar/internal/strictjson"
	"github.com/kaptar/kaptar/messaging/driver"
)

const (
	mediaJSON       = "application/json"
	mediaProtobuf   = "application/protobuf"
	mediaStructured = "application/cloudevents+json"
	mediaBatch      = "application/cloudevents-batch+json"
)

// arrive converts a delivery of a driver into the form in which the inbox, the order of keys and
// the handlers know events: an event in structured mode becomes what it would be in binary mode.
// What cannot be read stays as it is, and decode reports why.
func arrive(d *driver.Delivery, raw bool) {
	if d.Raw = raw; !raw {
		if m, ok, err := unfold(&d.Message); ok && err == nil {
			d.Message = m
		}
		fromExtensions(d)
	}
	storableID(d)
}

// fromExtensions takes the origin of d from CloudEvents' tracing extension, unless a header of the
// transport has it.
func fromExtensions(d *driver.Delivery) {
	parent := d.Headers.Get("ce-" + driver.HeaderTraceParent)
	if parent == "" || d.Headers.Get(driver.HeaderTraceParent) != "" {
		return
	}
	d.Headers = slices.Clone(d.Headers) // other groups share them
	d.Headers.Set(driver.HeaderTraceParent, parent)
	if state := d.Headers.Get("ce-" + driver.HeaderTraceState); state != "" {
		d.Headers.Set(driver.HeaderTraceState, state)
	}
}

// mediaType returns the media type of a content-type header, in lower case and without parameters;
// "" if there is no header.
func mediaType(contentType string) (string, error) {
	if contentType == "" || contentType == mediaJSON || contentType == mediaProtobuf { // by far the most common cases
		return contentType, nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", fmt.Errorf("content type %.100q: expected a media type, such as %s", contentType, mediaJSON)
	}
	return media, nil
}

// unfold converts m from the structured mode of CloudEvents' JSON format into binary mode.
// structured is false, and out is m, if m is in another mode. Headers ce-… of m repeat attributes
// and are dropped; other headers stay.
func unfold(m *driver.Message) (out driver.Message, structured bool, err error) {
	media, _ := mediaType(m.Headers.Get(driver.HeaderContentType)) // decode reports the error
	if !strings.HasPrefix(media, "application/cloudevents") {
		return *m, false, nil
	}
	switch {
	case media == mediaBatch:
		return *m, true, fmt.Errorf("content type %.100q: a batch of events: expected one event in each message, as %s", media, mediaStructured)
	case media != mediaStructured:
		return *m, true, fmt.Errorf("content type %.100q: expected %s, or the binary mode", media, mediaStructured)
	case m.Size() > driver.MaxSize:
		return *m, true, fmt.Errorf("%d bytes with headers: expected at most %d", m.Size(), driver.MaxSize)
	}
	members := map[string]json.RawMessage{}
	if err := strictjson.Unmarshal(m.Data, &members, true); err != nil {
		return *m, true, fmt.Errorf("event: %w", err)
	}
	e := envelope{headers: make(driver.Headers, 0, len(members)+len(m.Headers))}
	for name, value := range members {
		if err := e.add(name, value); err != nil {
			return *m, true, err
		}
	}
	data, contentType, err := e.content()
	if err != nil {
		return *m, true, err
	}
	out = *m
	out.Data = data
	for _, h := range m.Headers {
		if !strings.HasPrefix(h.Name, "ce-") && h.Name != driver.HeaderContentType {
			e.headers = append(e.headers, h)
		}
	}
	if contentType != "" {
		e.headers = append(e.headers, driver.Header{Name: driver.HeaderContentType, Value: contentType})
	}
	e.headers.Sort()
	out.Headers = e.headers
	if out.ID = e.headers.Get(driver.HeaderID); out.ID == "" {
		return *m, true, errors.New("attribute id is missing")
	}
	for _, name := range []string{driver.HeaderSubject, "ce-partitionkey"} { // the last one found wins
		if key := e.headers.Get(name); key != "" {
			out.Key = key
		}
	}
	for _, name := range []string{driver.HeaderTraceParent, driver.HeaderTraceState} { // those of the event, not of the transport
		if value := e.headers.Get("ce-" + name); value != "" {
			out.Headers.Set(name, value)
		}
	}
	return out, true, nil
}

// An envelope holds the attributes and data of an event in structured mode.
type envelope struct {
	headers      driver.Headers
	contentType  string
	data, base64 json.RawMessage
}

// add stores one member of the event. null means that it is absent.
func (e *envelope) add(name string, value json.RawMessage) error {
	switch {
	case string(value) == "null" && name != "data":
		return nil
	case name == "data":
		e.data = value
		return nil
	case name == "data_base64":
		e.base64 = value
		return nil
	case name == "" || strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }):
		return fmt.Errorf("attribute %.60q: expected a name of lower-case letters and digits", name)
	}
	text, err := attribute(name, value)
	if err != nil {
		return err
	}
	if name == "datacontenttype" {
		e.contentType = text
		return nil
	}
	e.headers = append(e.headers, driver.Header{Name: "ce-" + name, Value: text})
	return nil
}

// attribute returns a member's value as a header has it.
func attribute(name string, value json.RawMessage) (string, error) {
	switch value[0] {
	case '"':
		var text string
		err := json.Unmarshal(value, &text)
		return text, err
	case 't', 'f':
		if defined(name) {
			break
		}
		return string(value), nil
	case '{', '[':
	default:
		if _, err := strconv.ParseInt(string(value), 10, 32); err == nil && !defined(name) {
			return string(value), nil
		}
		return "", fmt.Errorf("attribute %.60s: expected text, or for an extension a whole number of 32 bits or a boolean", name)
	}
	return "", fmt.Errorf("attribute %.60s: expected text", name)
}

// defined reports whether CloudEvents itself defines the attribute. All of those are text.
func defined(name string) bool {
	switch name {
	case "id", "source", "specversion", "type", "datacontenttype", "dataschema", "subject", "time":
		return true
	}
	return false
}

// content returns the data as the body of binary mode, and its content type.
func (e *envelope) content() (data []byte, contentType string, err error) {
	media, err := mediaType(e.contentType)
	switch {
	case err != nil:
		return nil, "", err
	case strings.HasPrefix(media, "application/cloudevents"):
		return nil, "", fmt.Errorf("datacontenttype is %.100q: expected the type of the data, not of another event", e.contentType)
	case e.data != nil && e.base64 != nil:
		return nil, "", errors.New("data and data_base64 are both there: expected one of them")
	case e.base64 != nil:
		var text string
		if json.Unmarshal(e.base64, &text) == nil && e.base64[0] == '"' {
			data, err = base64.StdEncoding.Strict().DecodeString(text)
		}
		if err != nil || e.base64[0] != '"' {
			return nil, "", errors.New("data_base64: expected text in base64")
		}
		return data, e.contentType, nil
	case media == "":
		return e.data, mediaJSON, nil
	case media == mediaJSON || strings.HasSuffix(media, "+json") || strings.HasSuffix(media, "/json"):
		return e.data, e.contentType, nil
	case e.data == nil:
		return nil, e.contentType, nil
	}
	var text string
	if e.data[0] != '"' || json.Unmarshal(e.data, &text) != nil {
		return nil, "", fmt.Errorf("data: expected text, since datacontenttype is %.100q, or data_base64", e.contentType)
	}
	return []byte(text), e.contentType, nil
}
