package messaging

import (
	"fmt"

	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/schema"
)

// An Older is an earlier version of a topic whose data is converted into a T. [Upcast] makes it.
type Older[T any] struct {
	topic        string
	ordered, raw bool
	decode       func(d *driver.Delivery) (Event[T], error)
	schema       func() *schema.Schema
}

// Upcast returns the value of Topic.Older for a topic that replaces from. Its subscriptions then
// also handle events that are still published to from or wait there. up converts the old data into
// the new; its result must depend on nothing but old, since an event may be handled again. If up
// fails, the event becomes a dead letter at once, like one that cannot be decoded. Versions before
// from, in its own Older, are converted through from.
//
// Handlers see such an event like any other, with its source, ID, key and time. For the broker,
// dead letters and the order of keys each version is a topic of its own: an event that is set aside
// is stored as it was published, under its own topic, and a replay converts it again. Order is kept
// within each version but not between two. Where a new event must not overtake an old one, the
// handler compares a number or time in the data. A publisher publishes an event to one version
// only: what it publishes to two are two events, with two IDs. An event that another program puts
// on both under one ID is handled once, provided that no version is ordered.
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

// versions returns the topic itself and those that its subscriptions read as it.
func (t Topic[T]) versions() []Older[T] {
	return append([]Older[T]{{t.Name, t.Ordered, t.raw(), decode[T], t.Schema}}, t.Older...)
}

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
