package memory

import (
	"container/heap"
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
		g = &group{topic: t, ackWait: ackWait, open: make(map[int]*entry), members: make(map[*member]struct{})}
		if sub.From == driver.FromNow {
			g.next = len(t.log)
		}
		t.groups[sub.Group] = g
	}
	return g
}

// A group remembers what its members have, and what must come again. Broker.mu guards it.
type group struct {
	topic    *topic
	ackWait  time.Duration
	next     int            // index of the first message never delivered
	open     map[int]*entry // delivered and not acknowledged, by index
	waiting  dueHeap        // of those, the nacked ones: by time
	ready    indexHeap      // of those, the ones whose time has come: by index
	deadline time.Time      // no delivery's time is over before; the zero time: there is none
	members  map[*member]struct{}
}

// An entry is a message that is delivered and not acknowledged.
type entry struct {
	index   int
	attempt int
	holder  *member   // nil: nobody has it
	due     time.Time // with a holder: when its time is over; else when it may be delivered
}

// take returns the next message that may be delivered now, handed to m; or nil and when to ask
// again, where the zero time means: when woken.
func (g *group) take(m *member, now time.Time) (*entry, time.Time) {
	g.expire(now)
	for len(g.waiting) > 0 && !g.waiting[0].due.After(now) {
		heap.Push(&g.ready, heap.Pop(&g.waiting))
	}
	for len(g.ready) > 0 {
		if e := heap.Pop(&g.ready).(*entry); g.open[e.index] == e {
			return g.give(e, m, now), time.Time{}
		}
	}
	if g.next < len(g.topic.log) {
		e := &entry{index: g.next}
		g.open[e.index] = e
		g.next++
		return g.give(e, m, now), time.Time{}
	}
	again := g.deadline
	if len(g.waiting) > 0 && (again.IsZero() || g.waiting[0].due.Before(again)) {
		again = g.waiting[0].due
	}
	return nil, again
}

func (g *group) give(e *entry, m *member, now time.Time) *entry {
	e.attempt++
	e.holder = m
	e.due = now.Add(g.ackWait)
	m.inFlight++
	if g.deadline.IsZero() || e.due.Before(g.deadline) {
		g.deadline = e.due
	}
	return e
}

// expire takes messages back from members that held them too long. It looks at all of them only
// when the earliest time may be over.
func (g *group) expire(now time.Time) {
	if g.deadline.IsZero() || g.deadline.After(now) {
		return
	}
	g.deadline = time.Time{}
	for _, e := range g.open {
		switch {
		case e.holder == nil:
		case !e.due.After(now):
			g.release(e)
			heap.Push(&g.ready, e)
		case g.deadline.IsZero() || e.due.Before(g.deadline):
			g.deadline = e.due
		}
	}
}

// release takes e from its holder.
func (g *group) release(e *entry) {
	if e.holder != nil {
		e.holder.inFlight--
		e.holder = nil
	}
}

func (g *group) wakeAll() {
	for m := range g.members {
		select {
		case m.wake <- struct{}{}:
		default: // a wake-up waits already
		}
	}
}

type dueHeap []*entry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(*entry)) }
func (h *dueHeap) Pop() any          { e := (*h)[len(*h)-1]; *h = (*h)[:len(*h)-1]; return e }

type indexHeap []*entry

func (h indexHeap) Len() int           { return len(h) }
func (h indexHeap) Less(i, j int) bool { return h[i].index < h[j].index }
func (h indexHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *indexHeap) Push(x any)        { *h = append(*h, x.(*entry)) }
func (h *indexHeap) Pop() any          { e := (*h)[len(*h)-1]; *h = (*h)[:len(*h)-1]; return e }
