package messaging

import (
	"fmt"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/schema"
)

// An Older is an earlier version of a topic, and how its events are read as those of a later one with
// data of type T. Upcast makes it.
type Older[T any] struct {
	topic        string
	ordered, raw bool
	decode       func(d *driver.Delivery) (Event[T], error)
	schema       func() *schema.Schema
}

// Upcast returns what Topic.Older needs so that a topic's subscriptions also handle what is still
// published to an earlier version, or waits there. up makes the data of a new event of that of an old
// one; it must depend on nothing else, since an event may be handled again. When it fails the event
// becomes a dead letter at once, as one that cannot be decoded. Versions before from, its own Older,
// are read through from.
//
// To handlers the event is like any other, and keeps its source, ID, key and time. Each version is a
// topic of its own for the broker, dead letters and the order of keys: an event that is set aside
// stands there as it was published, under its own topic, and a replay goes through up again. The
// order of a key is kept within each version, and there is none between two of them: what must not
// overtake the last old event needs a number or time in its data that the handler compares. A
// publisher uses one version at a time: what it publishes to two is two events, with an ID each. An
// event that another program puts on both under one ID is handled once if no version is ordered.
func Upcast[Old, New any](from Topic[Old], up func(Old) (New, error)) []Older[New] {
	var all []Older[New]
	for _, version := range from.versions() {
		all = append(all, Older[New]{version.topic, version.ordered, version.raw, func(d *driver.Delivery) (Event[New], error) {
			old, err := version.decode(d)
			e := Event[New]{ID: old.ID, Source: old.Source, Key: old.Key, Time: old.Time, Attempt: old.Attempt}
			if err != nil {
				return e, err
			}
			if e.Data, err = up(old.Data); err == nil {
				err = validate(e.Data)
			}
			if err != nil {
				return e, Permanent(fmt.Errorf("messaging: %s on %s: read as a later version: %w", d.ID, d.Topic, err))
			}
			return e, nil
		}, version.schema})
	}
	return all
}

// versions are the topic itself and those that its subscriptions read as it.
func (t Topic[T]) versions() []Older[T] {
	return append([]Older[T]{{t.Name, t.Ordered, t.raw(), decode[T], t.Schema}}, t.Older...)
}

// validate asks data itself, if it has a method for that.
func validate(data any) error {
	v, ok := data.(interface{ Validate() error })
	if !ok {
		return nil
	}
	if err := v.Validate(); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	return nil
}
