package transport

import (
	"slices"
)

// An EventShare says which events of its subscriptions the instances of one version of a service
// handle, by the weights of its versions. Package messaging follows it.
type EventShare struct {
	// Unknown holds until the weights have been read once and, where versions share events, the registry
	// has said which of them have instances.
	Unknown bool
	// None says that all events are left to other versions, and Partly that some are.
	None, Partly bool
	// Missing is what the events wait for, if no instance that is listed is of a version that handles
	// them; else "".
	Missing string

	service, version string
	shares           []share
}

// Has reports whether an event with this key is the version's. All instances say the same of a key, if
// they know the same weights and versions, and a version whose share grows keeps the keys that it has.
func (e *EventShare) Has(key string) bool {
	if !e.Partly {
		return !e.None
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
		e.Unknown = true
		return e
	}
	s := (*table)[service]
	switch {
	case s == nil:
		return e
	case s.events != "":
		if e.None = storeName(s.events) != e.version; e.None {
			listed, _ := t.versionsOf(service)
			if len(listed) > 0 && !slices.Contains(listed, storeName(s.events)) {
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

// byWeight shares events out among the versions that are there: those listed, and one's own.
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
