package messaging

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"mime"
	"time"

	"github.com/google/uuid"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/telemetry"
)

// specVersion is the version of CloudEvents spoken here.
const specVersion = "1.0"

// encode makes a message of data, with the span of ctx as its origin.
func encode[T any](ctx context.Context, topic Topic[T], source, key string, data T) (driver.Message, error) {
	body, err := json.Marshal(data)
	if err != nil {
		return driver.Message{}, fmt.Errorf("messaging: encode event for %s: %w", topic.Name, err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return driver.Message{}, fmt.Errorf("messaging: event id: %w", err)
	}
	m := driver.Message{ID: id.String(), Topic: topic.Name, Key: key, Data: body, Headers: driver.Headers{
		{Name: driver.HeaderID, Value: id.String()},
		{Name: driver.HeaderSource, Value: source},
		{Name: driver.HeaderSpecVersion, Value: specVersion},
		{Name: driver.HeaderSubject, Value: key},
		{Name: driver.HeaderTime, Value: time.Now().UTC().Format(time.RFC3339Nano)},
		{Name: driver.HeaderType, Value: topic.Name},
		{Name: driver.HeaderContentType, Value: "application/json"},
	}}
	telemetry.Inject(ctx, func(name, value string) {
		m.Headers = append(m.Headers, driver.Header{Name: name, Value: value})
	})
	m.Headers.Sort()
	if err := m.Validate(); err != nil {
		return driver.Message{}, fmt.Errorf("messaging: publish to %s: %w", topic.Name, err)
	}
	return m, nil
}

// databaseID makes d's id one that any database keeps, should another program have
// given it a strange one: such an event could neither be handled nor buried.
func databaseID(d *driver.Delivery) {
	if m := (driver.Message{ID: d.ID, Topic: d.Topic}); m.Validate() != nil {
		d.ID = fmt.Sprintf("sha256-%x", sha256.Sum256([]byte(d.ID)))
	}
}

// decode reads what encode wrote, in whatever language. Its errors are permanent.
func decode[T any](d *driver.Delivery) (Event[T], error) {
	e := Event[T]{ID: d.ID, Key: d.Key, Attempt: d.Attempt, Source: d.Headers.Get(driver.HeaderSource)}
	if v := d.Headers.Get(driver.HeaderSpecVersion); v != specVersion {
		return e, Permanent(fmt.Errorf("messaging: %s on %s is no CloudEvent %s: header %s is %q", d.ID, d.Topic, specVersion, driver.HeaderSpecVersion, v))
	}
	if ct := d.Headers.Get(driver.HeaderContentType); ct != "" {
		if media, _, err := mime.ParseMediaType(ct); err != nil || media != "application/json" {
			return e, Permanent(fmt.Errorf("messaging: %s on %s has content type %q: expected application/json", d.ID, d.Topic, ct))
		}
	}
	if ts := d.Headers.Get(driver.HeaderTime); ts != "" {
		at, err := time.Parse(time.RFC3339Nano, ts)
		if err != nil {
			return e, Permanent(fmt.Errorf("messaging: %s on %s: header %s: %w", d.ID, d.Topic, driver.HeaderTime, err))
		}
		e.Time = at
	}
	if err := json.Unmarshal(d.Data, &e.Data); err != nil {
		return e, Permanent(fmt.Errorf("messaging: %s on %s: %w", d.ID, d.Topic, err))
	}
	return e, nil
}
