package transport

import (
	"slices"

	"github.com/kaptar/kaptar/kv"
)

// An EventShare tells which events the instances of one version of a service handle while a release
// gives versions their shares. It is for package messaging.
type EventShare struct {
	// Unknown is true until the weights have been read and, if versions share events, until the
	// registry has reported which of them have instances.
	Unknown bool
	// None means that other versions handle all events, and Partly that they handle some.
	None, Partly bool
	// Missing is the version for which events wait, if no listed instance has a version that
	// handles them. Otherwise it is "".
	Missing string

	service, version string
	shares           []share
}

// Has reports whether this version handles an event with the given key. All instances that know the
// same weights and versions agree on it. A version whose share grows keeps its keys.
func (e *EventShare) Has(key string) bool {
	if !e.Partly {
		return !e.None
	}
	return rendezvous(e.shares, hash(hash(0, e.service), key)) == e.version
}

// EventShare returns which events the instances of a version of service handle. If the weight
// service/events names a version, that version handles all of them. Otherwise the listed versions
// that have a weight handle them, each its share. Without such weights every version handles all
// events. A registry without versions lists none. The call is cheap while there are no weights.
func (t *Transport) EventShare(service, version string) *EventShare {
	t.once.Do(t.start)
	e := &EventShare{service: service, version: kv.Segment(version)}
	table := t.weights.table.Load()
	if table == nil {
		e.Unknown = true
		return e
	}
	s := (*table)[service]
	switch {
	case s == nil:
		return e
	case s.events != "":
		if e.None = kv.Segment(s.events) != e.version; e.None {
			listed, _ := t.versionsOf(service)
			if len(listed) > 0 && !slices.Contains(listed, kv.Segment(s.events)) {
				e.Missing = s.events
			}
		}
		return e
	case len(s.versions) > 0:
		listed, known := t.versionsOf(service)
		e.Unknown = !known
		e.byWeight(s.versions, listed)
	}
	return e
}

// byWeight divides events among the versions that exist: those listed, and this one.
func (e *EventShare) byWeight(weights map[string]uint64, listed []string) {
	own, weighed := weights[e.version]
	for _, version := range slices.Compact(slices.Sorted(slices.Values(append(listed, e.version)))) {
		if weight := weights[version]; weight > 0 {
			e.shares = append(e.shares, share{version, float64(weight), hash(0, version)})
		}
	}
	e.None = own == 0 && (weighed || len(e.shares) > 0)
	e.Partly = own > 0 && len(e.shares) > 1
	if e.None && len(e.shares) == 0 && len(listed) > 0 {
		e.Missing = "any with a weight"
	}
}

// versionsOf returns the versions of the listed instances of service, as the keys of a store spell
// them. At the first call they are not known yet.
func (t *Transport) versionsOf(service string) (versions []string, known bool) {
	tg, err := t.target(service, false)
	if err != nil {
		return nil, false
	}
	tg.used.Store(int64(t.now()))
	for _, in := range tg.instances() {
		if in.version != "" {
			versions = append(versions, kv.Segment(in.version))
		}
	}
	return versions, len(tg.instances()) > 0
}
