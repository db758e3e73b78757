package memory

import (
	"cmp"
	"slices"
	"time"

	"github.com/kaptar/kaptar/internal/partition"
	"github.com/kaptar/kaptar/messaging/driver"
)

// A topic is a log of messages and the positions of its groups in it. Broker.mu guards it.
type topic struct {
	log    []stored
	parts  [partition.Count][]int // indexes in log of the messages of each partition
	groups map[string]*group
	window time.Duration        // how long an ID is remembered
	ids    map[string]time.Time // when an ID was stored
	recent []string             // the same IDs, oldest first
}

// A stored message carries its time of arrival.
type stored struct {
	driver.Message
	at        time.Time
	partition int
}

func (t *topic) add(m driver.Message, now time.Time) {
	for len(t.recent) > 0 && now.Sub(t.ids[t.recent[0]]) >= t.window {
		delete(t.ids, t.recent[0])
		t.recent = t.recent[1:]
	}
	if _, dup := t.ids[m.ID]; dup {
		return
	}
	t.ids[m.ID] = now
	t.recent = append(t.recent, m.ID)
	p := partition.Of(m.Key)
	t.parts[p] = append(t.parts[p], len(t.log))
	t.log = append(t.log, stored{m, now, p})
	for _, g := range t.groups {
		g.wakeAll()
	}
}

func (t *topic) group(sub driver.Subscription, ackWait time.Duration) *group {
	g := t.groups[sub.Group]
	if g == nil {
		g = &group{topic: t, ackWait: ackWait}
		if sub.From == driver.FromNow {
			g.move(func(*stored) bool { return false })
		}
		t.groups[sub.Group] = g
	}
	return g
}

// A group is the position of a consumer group, with the messages that are in flight or due again.
// Broker.mu guards it.
type group struct {
	topic   *topic
	ackWait time.Duration
	next    [partition.Count]int // index in the topic's partition of the first message never delivered
	open    []*entry             // delivered and not acknowledged, by index
	members []*member            // in the order in which they came

	ordered bool                     // as its members subscribed
	owners  [partition.Count]*member // with ordered
	heirs   [partition.Count]*member // who should own each partition
}

// An entry is a message that is delivered and not acknowledged.
type entry struct {
	index     int
	partition int
	attempt   int
	holder    *member   // nil: nobody has it
	due       time.Time // when it may be delivered again; with a holder, its time is over then
}

// move sets the position of each partition to the first message for which keep is true, or to its
// end. Everything in flight is forgotten.
func (g *group) move(keep func(*stored) bool) {
	g.open = nil
	for p, list := range g.topic.parts {
		g.next[p] = len(list)
		if i := slices.IndexFunc(list, func(index int) bool { return keep(&g.topic.log[index]) }); i >= 0 {
			g.next[p] = i
		}
	}
}

// take hands m the next message that may be delivered now. If there is none it returns nil and when
// to ask again; the zero time means: when woken.
func (g *group) take(m *member, now time.Time) (next *entry, again time.Time) {
	g.handOver(now)
	held := 0
	for _, e := range g.open {
		if !e.due.After(now) {
			// A partition that is to move stays with its owner until nothing of it is in flight. An
			// earlier message goes to that owner too, since its later ones may wait for it.
			if next == nil && (!g.ordered || g.owners[e.partition] == m) {
				next = e
			}
			continue
		}
		if e.holder == m {
			held++
		}
		if again.IsZero() || e.due.Before(again) {
			again = e.due
		}
	}
	if held >= m.limit {
		return nil, again // one of m's own deliveries may end first
	}
	if next == nil {
		if next = g.first(m); next == nil {
			return nil, again
		}
	}
	next.attempt++
	next.holder, next.due = m, now.Add(g.ackWait)
	return next, time.Time{}
}

// first makes an entry of the oldest undelivered message for m, or returns nil.
func (g *group) first(m *member) *entry {
	var oldest *entry
	for p, list := range g.topic.parts {
		if i := g.next[p]; i < len(list) && g.mayTake(m, p) && (oldest == nil || list[i] < oldest.index) {
			oldest = &entry{index: list[i], partition: p}
		}
	}
	if oldest != nil {
		g.next[oldest.partition]++
		at, _ := g.find(oldest.index)
		g.open = slices.Insert(g.open, at, oldest)
	}
	return oldest
}

func (g *group) mayTake(m *member, p int) bool {
	return !g.ordered || g.owners[p] == m && g.heirs[p] == m
}

// join and leave change the members and who should own each partition.
func (g *group) join(m *member) {
	g.members = append(g.members, m)
	g.shareOut()
}

func (g *group) leave(m *member) {
	g.members = slices.DeleteFunc(g.members, func(other *member) bool { return other == m })
	g.shareOut()
}

func (g *group) shareOut() {
	clear(g.heirs[:])
	for p, i := range partition.Share(len(g.members)) {
		if i >= 0 {
			g.heirs[p] = g.members[i]
		}
	}
	g.wakeAll()
}

// handOver moves partitions to the members that should own them, once nothing of them is in flight.
func (g *group) handOver(now time.Time) {
	if !g.ordered {
		return
	}
	var held [partition.Count]bool
	for _, e := range g.open {
		held[e.partition] = held[e.partition] || e.holder != nil && e.due.After(now)
	}
	for p, m := range g.heirs {
		if g.owners[p] != m && !held[p] {
			g.owners[p] = m
			if m != nil {
				m.wakeUp()
			}
		}
	}
}

// find returns the position in open at which an index is or would be.
func (g *group) find(index int) (int, bool) {
	return slices.BinarySearchFunc(g.open, index, func(e *entry, index int) int { return cmp.Compare(e.index, index) })
}

func (g *group) wakeAll() {
	for _, m := range g.members {
		m.wakeUp()
	}
}

// lag returns what waits in each partition, in flight or not.
func (g *group) lag() []driver.PartitionLag {
	list := make([]driver.PartitionLag, partition.Count)
	count := func(index int) {
		l, s := &list[g.topic.log[index].partition], &g.topic.log[index]
		if l.Waiting++; l.Oldest.IsZero() || s.at.Before(l.Oldest) {
			l.Oldest = s.at
		}
	}
	for p, indexes := range g.topic.parts {
		list[p].Partition = partition.Name(p)
		for _, index := range indexes[g.next[p]:] {
			count(index)
		}
	}
	for _, e := range g.open {
		count(e.index)
	}
	return list
}
