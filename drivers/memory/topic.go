package memory

import (
	"cmp"
	"slices"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// A topic is a log of messages and the positions of its groups in it. Broker.mu guards it.
type topic struct {
	log    []driver.Message
	groups map[string]*group
	window time.Duration        // how long an ID is remembered
	ids    map[string]time.Time // when an ID was stored
	recent []string             // the same IDs, oldest first
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
	t.log = append(t.log, m)
	for _, g := range t.groups {
		g.wakeAll()
	}
}

func (t *topic) group(sub driver.Subscription, ackWait time.Duration) *group {
	g := t.groups[sub.Group]
	if g == nil {
		g = &group{topic: t, ackWait: ackWait, members: make(map[*member]struct{})}
		if sub.From == driver.FromNow {
			g.next = len(t.log)
		}
		t.groups[sub.Group] = g
	}
	return g
}

// A group remembers what its members have, and what must come again. Broker.mu guards it.
type group struct {
	topic   *topic
	ackWait time.Duration
	next    int      // index of the first message never delivered
	open    []*entry // delivered and not acknowledged, by index
	members map[*member]struct{}
}

// An entry is a message that is delivered and not acknowledged.
type entry struct {
	index   int
	attempt int
	holder  *member   // nil: nobody has it
	due     time.Time // when it may be delivered again; with a holder, its time is over then
}

// take returns the next message that may be delivered now, handed to m; or nil and when to ask
// again, where the zero time means: when woken.
func (g *group) take(m *member, now time.Time) (next *entry, again time.Time) {
	held := 0
	for _, e := range g.open {
		if !e.due.After(now) {
			next = cmp.Or(next, e)
			continue
		}
		if e.holder == m {
			held++
		}
		if again.IsZero() || e.due.Before(again) {
			again = e.due
		}
	}
	if held >= m.limit || next == nil && g.next == len(g.topic.log) {
		return nil, again // one of its own deliveries may be the one that ends
	}
	if next == nil {
		next = &entry{index: g.next}
		g.open = append(g.open, next)
		g.next++
	}
	next.attempt++
	next.holder, next.due = m, now.Add(g.ackWait)
	return next, time.Time{}
}

// find returns where in open an index is or would be.
func (g *group) find(index int) (int, bool) {
	return slices.BinarySearchFunc(g.open, index, func(e *entry, index int) int { return cmp.Compare(e.index, index) })
}

func (g *group) wakeAll() {
	for m := range g.members {
		select {
		case m.wake <- struct{}{}:
		default: // a wake-up waits already
		}
	}
}
