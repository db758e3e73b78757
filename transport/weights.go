package transport

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kaptar/kaptar/kv"
)

// Weights distribute the calls to a service over its versions and instances. They may change at any
// time, which is how package rollout releases a version. The zero value, and nil, has none. Many
// transports may share one.
type Weights struct {
	mu     sync.Mutex
	values map[string]string
	table  atomic.Pointer[map[string]*shares] // by service; replaced as a whole
}

const maxWeight = 1_000_000

// shares are the weights of one service.
type shares struct {
	versions, instances map[string]uint64
	events              string // the version that alone handles events; "" for none
}

// Set replaces all weights. A key is one of
//
//	order-service/version/v2            the share of all instances of a version
//	order-service/instance/order-7f9c   the share of an instance among those of its version
//	order-service/events                the version that alone handles events (see EventShare)
//
// and the value is a version for events, and otherwise a whole number up to a million: how many
// calls go there relative to the others; 0 means none. Shares are exact to a few calls, however
// fast instances are. Versions are chosen first. If a version with a weight above 0 is listed,
// versions without a weight get no calls; otherwise versions make no difference. An instance
// without a weight has 100. In keys, characters other than letters, digits, "-", "_" and "." are
// replaced by "_". The share of a version whose instances are all ejected or gone goes to the
// others.
//
// The error names each invalid key and value. A key with an invalid value keeps its last one.
func (w *Weights) Set(weights map[string]string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	values, table := make(map[string]string, len(weights)), map[string]*shares{}
	for key, text := range weights {
		service, rest, _ := strings.Cut(key, "/")
		kind, name, _ := strings.Cut(rest, "/")
		if service == "" || (name == "" || kind != "version" && kind != "instance") && rest != "events" {
			errs = append(errs, fmt.Errorf("transport: weight %s: expected SERVICE/version/VERSION, SERVICE/instance/ID or SERVICE/events", key))
			continue
		}
		n, err := strconv.ParseUint(text, 10, 63)
		if rest != "events" && (err != nil || n > maxWeight) {
			errs = append(errs, fmt.Errorf("transport: weight %s: %q: expected a whole number from 0 to %d", key, text, maxWeight))
			old, ok := w.values[key]
			if !ok {
				continue
			}
			text = old
			n, _ = strconv.ParseUint(old, 10, 63) // it was one
		}
		values[key] = text
		s := table[service]
		if s == nil {
			s = &shares{versions: map[string]uint64{}, instances: map[string]uint64{}}
			table[service] = s
		}
		switch kind {
		case "version":
			s.versions[name] = n
		case "instance":
			s.instances[name] = n
		default:
			s.events = text
		}
	}
	if w.table.Load() == nil || !maps.Equal(values, w.values) {
		w.values = values
		w.table.Store(&table)
	}
	return errors.Join(errs...)
}

const usualWeight = 100 // of an instance without

func (s *shares) of(in *instance) uint64 {
	if n, ok := s.instances[kv.Segment(in.ID)]; ok {
		return n
	}
	return usualWeight
}

// split makes parts of instances that have one weight.
func (s *shares) split(p part) (parts []part) {
	if len(s.instances) == 0 {
		return []part{p}
	}
	byWeight, total := map[uint64][]*instance{}, 0.
	for _, in := range p.members {
		n := s.of(in)
		byWeight[n] = append(byWeight[n], in)
		total += float64(n)
	}
	for n, members := range byWeight {
		parts = append(parts, part{members: members, share: p.share * float64(n) * float64(len(members)) / total})
	}
	return parts
}
