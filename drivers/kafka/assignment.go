package kafka

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A topicPartition is a partition as a group sees it.
type topicPartition struct {
	group     string
	topic     string // Kafka's name
	partition int32
}

// An assignment is a member's partition, until that is lost. The member's mu guards it.
type assignment struct {
	m         *member
	partition topicPartition

	// Unfinished entries in offset order. Finished ones are removed, so that one message that waits
	// for long does not keep later ones in memory.
	open     list
	inFlight int // entries in flight

	next      int64 // after the last fetched record; -1: none yet
	committed int64 // -1: nothing was committed by this assignment
	closing   bool  // no more deliveries: it is about to end
	ended     bool
}

// An entry is a fetched record that is not acknowledged.
type entry struct {
	c        *assignment
	links    [2]struct{ prev, next *entry } // in lists, by their kind
	record   *kgo.Record
	offset   int64
	at       time.Duration // of the member's clock; in flight: end of the ack wait; waiting: when it is due
	first    delivery
	attempts int32
	index    int32 // in the heap of those waiting
	state    state
}

type state uint8

const (
	queued   state = iota // fetched
	inFlight              // delivered
	waiting               // for redelivery
	finished
)

// position is the offset before which everything is finished; -1 if nothing was fetched.
func (c *assignment) position() int64 {
	if c.open.first != nil {
		return c.open.first.offset
	}
	return c.next
}

// A list holds entries by links of one kind; the zero value is an empty one by offset.
type list struct {
	kind        int // of links
	first, last *entry
	n           int
}

const (
	byOffset = iota // the unfinished entries of an assignment
	byEnd           // the entries in flight, in the order in which their ack waits end
)

func (l *list) push(e *entry) {
	e.links[l.kind].prev = l.last
	if l.last == nil {
		l.first = e
	} else {
		l.last.links[l.kind].next = e
	}
	l.last = e
	l.n++
}

func (l *list) remove(e *entry) {
	at := &e.links[l.kind]
	if at.prev == nil {
		l.first = at.next
	} else {
		at.prev.links[l.kind].next = at.next
	}
	if at.next == nil {
		l.last = at.prev
	} else {
		at.next.links[l.kind].prev = at.prev
	}
	at.prev, at.next = nil, nil
	l.n--
}

// A dueHeap is a container/heap of waiting entries, earliest first.
type dueHeap []*entry //nolint:recvcheck // the shape of container/heap

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = int32(i), int32(j) //nolint:gosec // at most maxHeld
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	e := x.(*entry)          //nolint:forcetypeassert // heap.Push gets nothing else
	e.index = int32(len(*h)) //nolint:gosec // at most maxHeld
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
