package transport

import (
	"slices"
)

// An EventShare says which events of its subscriptions the instances of one version of a service
// handle, by the weights of its versions. Package messaging follows it. Nil handles all.
type EventShare struct {
	service, version string
	unknown, none    bool
	missing          string
	shares           []share // none: the version handles all events
}

// Known is false until the weights have been read once and, where versions share events, the registry
// has said which of them have instances.
func (e *EventShare) Known() bool { return e == nil || !e.unknown }

// None reports whether all events are left to other versions.
func (e *EventShare) None() bool { return e != nil && e.none }

// Missing says which versions the events wait for, if none of them has an instance: nobody handles them
// then. It is "" if somebody does, or if that is not known.
func (e *EventShare) Missing() string {
	if e == nil {
		return ""
	}
	return e.missing
}

// Partly reports whether some events are the version's and others are not.
func (e *EventShare) Partly() bool { return e != nil && !e.none && len(e.shares) > 1 }

// Has reports whether an event with this key is the version's. All instances say the same of a key, if
// they know the same weights and versions, and a version whose share grows keeps the keys that it has.
func (e *EventShare) Has(key string) bool {
	switch {
	case e.None():
		return false
	case !e.Partly():
		return true
	}
	return rendezvous(e.shares, hash(hash(0, e.service), key)) == e.version
}

// EventShare returns what events the instances of a version of service handle. With the weight
// service/events those of that version alone do. Else those of versions with a weight do, each its
// share, as far as such versions are listed; without any such weight all do. A registry that knows no
// versions lists none. A call costs little while there are no weights.
func (t *Transport) EventShare(service, version string) *EventShare {
	t.once.Do(t.start)
	e := &EventShare{service: service, version: storeName(version)}
	table := t.weights.table.Load()
	if table == nil {
		e.unknown = true
		return e
	}
	s := (*table)[service]
	switch {
	case s == nil:
		return e
	case s.events != "":
		if e.none = storeName(s.events) != e.version; e.none {
			listed, _ := t.versionsOf(service)
			if len(listed) > 0 && !slices.Contains(listed, storeName(s.events)) {
				e.missing = s.events
			}
		}
		return e
	case len(s.versions) > 0:
		listed, known := t.versionsOf(service)
		e.unknown = !known
		e.byWeight(s.versions, listed)
	}
	return e
}

// byWeight shares events out among the versions that are there: those listed, and one's own.
func (e *EventShare) byWeight(weights map[string]uint64, listed []string) {
	own, weighed := weights[e.version]
	for _, version := range slices.Compact(slices.Sorted(slices.Values(append(listed, e.version)))) {
		if weight := weights[version]; weight > 0 {
			e.shares = append(e.shares, share{version, float64(weight), hash(0, version)})
		}
	}
	switch {
	case own > 0:
	case len(e.shares) > 0:
		e.none = true
	case weighed:
		if e.none = true; len(listed) > 0 {
			e.missing = "any with a weight"
		}
	}
}

// versionsOf returns the versions of the instances of service that the registry lists, as the keys of a
// store have them. At the first call that is not known yet.
func (t *Transport) versionsOf(service string) (versions []string, known bool) {
	tg, err := t.target(service, false)
	if err != nil {
		return nil, false
	}
	tg.used.Store(int64(t.now()))
	for _, in := range tg.instances() {
		if in.version != "" {
			versions = append(versions, storeName(in.version))
		}
	}
	return versions, len(tg.instances()) > 0
}
