package transport

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/kaptar/kaptar/kv"
)

// pool is what the calls to a target choose from. It is made anew when the list, an ejection, a
// weight or the instances of this process change, so that a call costs the same however many
// instances there are. A pool is not changed.
type pool struct {
	groups   [protocols]groups
	versions [protocols]map[string]groups // nil while there is one version only
	shares   [protocols][]share           // of versions that have weights and instances; none while fewer than two do
	until    time.Duration                // when the next ejection ends

	// What it was made with.
	weights *map[string]*shares
	local   *map[string]localEntry
}

// choices returns the pool that is right now. Callers that come while another one makes it use the
// last.
func (t *target) choices(now time.Duration) *pool {
	p := t.pool.Load()
	if now < p.until && !t.stale.Load() && p.weights == t.tr.weights.table.Load() && p.local == t.local.entries.Load() {
		return p
	}
	if t.mu.TryLock() {
		t.refill(t.instances(), now)
		t.mu.Unlock()
	}
	return t.pool.Load()
}

// refill makes the pool of a list. t.mu must be held.
func (t *target) refill(list []*instance, now time.Duration) {
	t.stale.Store(false)
	p := &pool{until: math.MaxInt64, weights: t.tr.weights.table.Load(), local: t.local.entries.Load()}
	s := selection{now: now, zone: t.tr.opts.Zone, subset: t.set.Subset}
	if p.weights != nil {
		s.shares = (*p.weights)[t.service]
	}
	local, several := t.local.table(), false
	for _, in := range list {
		if in.isEjected(now) {
			p.until = min(p.until, time.Duration(in.ejected.Load()))
		}
		several = several || in.version != list[0].version
	}
	for proto := range protocols {
		serving := keep(list, func(in *instance) bool { return in.serves(proto, local) })
		p.groups[proto], p.shares[proto] = s.of(serving)
		if several {
			p.versions[proto] = map[string]groups{}
			for version, members := range byVersion(serving) {
				p.versions[proto][version] = s.within([]part{{members: members, share: 1}})
			}
		}
	}
	t.pool.Store(p)
}

// part is instances and their share of the calls, compared with other parts.
type part struct {
	members []*instance
	share   float64
	version string // when it is one that has a weight
}

// selection makes groups of the instances that serve a protocol.
type selection struct {
	now    time.Duration
	zone   string  // of the caller; "" prefers none
	subset int     // at most so many, if there are no weights; 0 or less: all
	shares *shares // nil: no weights
}

// of applies all there is.
func (s selection) of(all []*instance) (groups, []share) {
	if s.shares == nil || len(s.shares.versions) == 0 {
		return s.within([]part{{members: all, share: 1}}), nil
	}
	parts := s.up(s.versions(all))
	var shares []share
	for _, p := range parts {
		if len(parts) > 1 {
			shares = append(shares, share{p.version, p.share, hash(0, p.version)})
		}
	}
	return s.out(parts), shares
}

// versions splits instances by the weights of their versions. Those of a version without a weight
// get calls only when there is none with one.
func (s selection) versions(all []*instance) (parts []part) {
	var rest []*instance
	known := false
	for version, members := range byVersion(all) {
		weight, ok := s.shares.versions[kv.Segment(version)]
		known = known || ok && weight > 0
		switch {
		case !ok:
			rest = append(rest, members...)
		case weight > 0:
			parts = append(parts, part{members, float64(weight), version})
		}
	}
	if !known {
		return []part{{members: rest, share: 1}}
	}
	return parts
}

// within applies health, zone and then either the weights of instances or the subset.
func (s selection) within(parts []part) groups { return s.out(s.up(parts)) }

// up applies health and zone. The share of a part that has no healthy instance goes to the others.
func (s selection) up(parts []part) []part {
	var up, down []part
	for _, p := range parts {
		if s.shares != nil {
			p.members = keep(p.members, func(in *instance) bool { return s.shares.of(in) > 0 })
		}
		if members := s.healthy(p.members); len(members) > 0 {
			up = append(up, part{members, p.share, p.version})
		} else if len(p.members) > 0 {
			down = append(down, p)
		}
	}
	if len(up) == 0 {
		return down
	}
	return up
}

// out applies the weights of instances, or the subset.
func (s selection) out(up []part) groups {
	var out []part
	for _, p := range up {
		if s.shares == nil {
			out = append(out, part{members: s.limit(p.members), share: p.share})
		} else {
			out = append(out, s.shares.split(p)...)
		}
	}
	return line(out)
}

// healthy returns the instances that are not ejected, and of these the caller's zone if it has
// enough: half of an even share of all that are listed.
func (s selection) healthy(listed []*instance) []*instance {
	up := keep(listed, func(in *instance) bool { return !in.isEjected(s.now) })
	if s.zone == "" {
		return up
	}
	zones := map[string]struct{}{}
	for _, in := range listed {
		zones[in.zone] = struct{}{}
	}
	near := keep(up, func(in *instance) bool { return in.zone == s.zone })
	if len(near) > 0 && 2*len(near)*len(zones) >= len(listed) {
		return near
	}
	return up
}

// limit returns the caller's subset of instances: those that rank first with it. Every caller ranks
// them in another order, so together they use all alike; and when one leaves, only its successor is
// new.
func (s selection) limit(members []*instance) []*instance {
	if s.subset <= 0 || len(members) <= s.subset {
		return members
	}
	byRank := func(a, b *instance) int { return cmp.Compare(a.rank, b.rank) }
	first := make([]*instance, 0, s.subset+1)
	for _, in := range members {
		if len(first) == s.subset && in.rank >= first[len(first)-1].rank {
			continue
		}
		i, _ := slices.BinarySearchFunc(first, in, byRank)
		first = slices.Insert(first, i, in)
		first = first[:min(len(first), s.subset)]
	}
	return first
}

// line lays the shares of parts one after another.
func line(parts []part) groups {
	total, sum := 0., 0.
	for _, p := range parts {
		total += p.share
	}
	out := make(groups, 0, len(parts))
	for _, p := range parts {
		sum += p.share
		end := uint64(math.MaxUint64)
		if f := sum / total; f < 1 {
			end = uint64(f * (1 << 64))
		}
		out = append(out, group{p.members, end})
	}
	return out
}

// keep returns the instances that are ok: list itself when all are.
func keep(list []*instance, ok func(*instance) bool) []*instance {
	not := func(in *instance) bool { return !ok(in) }
	if !slices.ContainsFunc(list, not) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), not)
}

func byVersion(list []*instance) map[string][]*instance {
	out := map[string][]*instance{}
	for _, in := range list {
		out[in.version] = append(out[in.version], in)
	}
	return out
}
