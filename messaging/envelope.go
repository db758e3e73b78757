package messaging

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/kaptar/kaptar/internal/strictjson"
	"github.com/kaptar/kaptar/messaging/driver"
)

const (
	specVersion      = "1.0" // of CloudEvents
	headerDataSchema = "ce-dataschema"
	mostHeaders      = 10 // those of CloudEvents, traceparent and tracestate
)

// encode returns the message of an event, with the span of ctx as its origin. The outbox and the
// drivers check its size and names.
func encode[T any](ctx context.Context, topic Topic[T], source, key string, data T) (driver.Message, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return driver.Message{}, fmt.Errorf("messaging: event id: %w", err)
	}
	m := driver.Message{ID: id.String(), Topic: topic.Name, Key: key}
	if raw, ok := any(data).(Raw); ok {
		m.Raw, m.Data, m.Headers = true, raw.Body, driver.HeadersOf(raw.Headers)
	} else {
		media := mediaJSON
		if message, ok := any(data).(proto.Message); ok {
			media = mediaProtobuf
			m.Data, err = proto.Marshal(message)
		} else {
			m.Data, err = json.Marshal(data)
		}
		if err != nil {
			return driver.Message{}, fmt.Errorf("messaging: encode event for %s: %w", topic.Name, err)
		}
		m.Headers = make(driver.Headers, 0, mostHeaders)
		if topic.DataSchema != "" {
			m.Headers = append(m.Headers, driver.Header{Name: headerDataSchema, Value: topic.DataSchema})
		}
		m.Headers = append(m.Headers,
			driver.Header{Name: driver.HeaderID, Value: m.ID},
			driver.Header{Name: driver.HeaderSource, Value: source},
			driver.Header{Name: driver.HeaderSpecVersion, Value: specVersion},
			driver.Header{Name: driver.HeaderSubject, Value: key},
			driver.Header{Name: driver.HeaderTime, Value: time.Now().UTC().Format(time.RFC3339Nano)},
			driver.Header{Name: driver.HeaderType, Value: topic.Name},
			driver.Header{Name: driver.HeaderContentType, Value: media},
		)
	}
	headers := m.Headers // separate, or the whole message would escape to the heap
	propagation.TraceContext{}.Inject(ctx, &headers)
	m.Headers = headers
	return m, nil
}

// storableID replaces an ID that some database could not store, which only other programs send.
// Such an event could be neither handled nor set aside.
func storableID(d *driver.Delivery) {
	if m := (driver.Message{ID: d.ID, Topic: d.Topic, Raw: d.Raw}); m.Validate() != nil {
		d.ID = fmt.Sprintf("sha256-%x", sha256.Sum256([]byte(d.ID)))
	}
}

// decode reads an event that encode, or a program in another language, has written. It refuses what
// could be read in more than one way. Its errors are permanent, and short whatever the message
// contains. Unknown fields are ignored, since publishers add fields to their events.
func decode[T any](d *driver.Delivery) (Event[T], error) {
	e := Event[T]{ID: d.ID, Key: d.Key, Attempt: d.Attempt, Source: d.Headers.Get(driver.HeaderSource)}
	if raw, ok := any(&e.Data).(*Raw); ok {
		*raw = Raw{Headers: d.Headers.Map(), Body: d.Data}
		return e, nil
	}
	refuse := func(format string, args ...any) (Event[T], error) {
		return e, Permanent(fmt.Errorf("messaging: %s on %s: "+format, append([]any{d.ID, d.Topic}, args...)...))
	}
	if m, structured, err := unfold(&d.Message); err != nil {
		return refuse("%w", err)
	} else if structured { // an operator has edited an event that could not be read on arrival
		d = &driver.Delivery{Message: m, Attempt: d.Attempt}
		e.ID, e.Key, e.Source = d.ID, d.Key, d.Headers.Get(driver.HeaderSource)
	}
	if v := d.Headers.Get(driver.HeaderSpecVersion); v != specVersion {
		return refuse("header %s is %.100q: expected a CloudEvent %s; plain messages need a Topic[messaging.Raw]",
			driver.HeaderSpecVersion, v, specVersion)
	}
	if v := d.Headers.Get(driver.HeaderType); v != d.Topic {
		return refuse("header %s is %.100q: expected the name of the topic", driver.HeaderType, v)
	}
	if e.Source == "" {
		return refuse("header %s is missing", driver.HeaderSource)
	}
	if n := d.Size(); n > driver.MaxSize {
		return refuse("%d bytes with headers: expected at most %d", n, driver.MaxSize)
	}
	if ts := d.Headers.Get(driver.HeaderTime); ts != "" {
		var err error
		if e.Time, err = time.Parse(time.RFC3339Nano, ts); err != nil {
			return refuse("header %s is %.100q: expected a time as in RFC 3339", driver.HeaderTime, ts)
		}
	}
	err := decodeData(d, &e.Data)
	if err == nil {
		err = validate(e.Data)
	}
	if err != nil {
		return refuse("%w", err)
	}
	return e, nil
}

// decodeData decodes the data of d into data in the format that the content type names. A T that is
// a protobuf message accepts both formats; any other T is JSON. Fields that T does not have are
// ignored; a protobuf message keeps them.
func decodeData[T any](d *driver.Delivery, data *T) error {
	contentType := d.Headers.Get(driver.HeaderContentType)
	media, err := mediaType(contentType)
	if err != nil {
		return err
	}
	message, ok := any(*data).(proto.Message)
	switch {
	case !ok && (media == mediaJSON || media == ""):
		err = strictjson.Unmarshal(d.Data, data, true)
	case !ok:
		return fmt.Errorf("content type %.100q: expected %s", contentType, mediaJSON)
	default:
		message = message.ProtoReflect().New().Interface() // of a nil *T too
		*data = message.(T)                                //nolint:forcetypeassert // it is of the type of *data
		switch media {
		case mediaProtobuf:
			err = proto.Unmarshal(d.Data, message)
		case mediaJSON:
			if err = strictjson.Check(d.Data, nil, true); err == nil {
				err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(d.Data, message)
			}
		default:
			return fmt.Errorf("content type %.100q: expected %s or %s", contentType, mediaProtobuf, mediaJSON)
		}
		if err != nil && !isStrict(err) { // protobuf's errors repeat values, which may be secret
			err = fmt.Errorf("expected a %s in %s", message.ProtoReflect().Descriptor().FullName(), media)
		}
	}
	if err != nil {
		return fmt.Errorf("data: %w", err)
	}
	return nil
}

func isStrict(err error) bool {
	_, strict := errors.AsType[*strictjson.Error](err)
	return strict
}
