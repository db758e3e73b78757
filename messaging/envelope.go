package messaging

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"mime"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/propagation"

	"github.com/kaptar/kaptar/internal/strictjson"
	"github.com/kaptar/kaptar/messaging/driver"
)

// specVersion is the version of CloudEvents spoken here.
const specVersion = "1.0"

// encode makes a message of data, with the span of ctx as its origin. The outbox and the drivers
// check it.
func encode[T any](ctx context.Context, topic Topic[T], source, key string, data T) (driver.Message, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return driver.Message{}, fmt.Errorf("messaging: event id: %w", err)
	}
	m := driver.Message{ID: id.String(), Topic: topic.Name, Key: key}
	if raw, ok := any(data).(Raw); ok {
		m.Raw, m.Data, m.Headers = true, raw.Body, driver.HeadersOf(raw.Headers)
	} else {
		if m.Data, err = json.Marshal(data); err != nil {
			return driver.Message{}, fmt.Errorf("messaging: encode event for %s: %w", topic.Name, err)
		}
		m.Headers = driver.Headers{
			{Name: driver.HeaderID, Value: m.ID},
			{Name: driver.HeaderSource, Value: source},
			{Name: driver.HeaderSpecVersion, Value: specVersion},
			{Name: driver.HeaderSubject, Value: key},
			{Name: driver.HeaderTime, Value: time.Now().UTC().Format(time.RFC3339Nano)},
			{Name: driver.HeaderType, Value: topic.Name},
			{Name: driver.HeaderContentType, Value: "application/json"},
		}
	}
	headers := m.Headers // alone, or the whole message would escape to the heap
	propagation.TraceContext{}.Inject(ctx, &headers)
	m.Headers = headers
	return m, nil
}

// storableID makes d's id one that any database keeps, should another program have given it a
// strange one: such an event could be neither handled nor become a dead letter.
func storableID(d *driver.Delivery) {
	if m := (driver.Message{ID: d.ID, Topic: d.Topic, Raw: d.Raw}); m.Validate() != nil {
		d.ID = fmt.Sprintf("sha256-%x", sha256.Sum256([]byte(d.ID)))
	}
}

// decode reads what encode wrote, in whatever language. What it cannot read in one way only is
// refused; its errors are permanent, and short whatever the message has. New keys are ignored, since
// publishers add to their events.
func decode[T any](d *driver.Delivery) (Event[T], error) {
	e := Event[T]{ID: d.ID, Key: d.Key, Attempt: d.Attempt, Source: d.Headers.Get(driver.HeaderSource)}
	if raw, ok := any(&e.Data).(*Raw); ok {
		*raw = Raw{Headers: d.Headers.Map(), Body: d.Data}
		return e, nil
	}
	refuse := func(format string, args ...any) (Event[T], error) {
		return e, Permanent(fmt.Errorf("messaging: %s on %s: "+format, append([]any{d.ID, d.Topic}, args...)...))
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
	if ct := d.Headers.Get(driver.HeaderContentType); ct != "" {
		if media, _, err := mime.ParseMediaType(ct); err != nil || media != "application/json" {
			return refuse("content type %.100q: expected application/json", ct)
		}
	}
	if ts := d.Headers.Get(driver.HeaderTime); ts != "" {
		var err error
		if e.Time, err = time.Parse(time.RFC3339Nano, ts); err != nil {
			return refuse("header %s is %.100q: expected a time as in RFC 3339", driver.HeaderTime, ts)
		}
	}
	err := strictjson.Unmarshal(d.Data, &e.Data, true)
	if v, ok := any(e.Data).(interface{ Validate() error }); ok && err == nil {
		err = v.Validate()
	}
	if err != nil {
		return refuse("data: %w", err)
	}
	return e, nil
}
