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

// An assignment is a partition that a member has, from its assignment to its end. The member's mu
// guards it.
type assignment struct {
	m         *member
	partition topicPartition

	// Unfinished entries in offset order; what is finished is forgotten, so that one message that
	// waits for long does not keep those after it in memory.
	front, back *entry
	inFlight    int // entries in flight

	next      int64 // after the last fetched record; -1: none yet
	committed int64 // -1: nothing was committed by this assignment
	closing   bool  // no more deliveries: it is about to end
	ended     bool
	left      bool // ended since the member left, not since another one has the partition
}

// An entry is a fetched record that is not acknowledged.
type entry struct {
	c            *assignment
	prev, next   *entry
	older, newer *entry // of those in flight
	record       *kgo.Record
	offset       int64
	at           time.Duration // of the member's clock; in flight: end of the ack wait; waiting: when it is due
	first        delivery
	attempts     int32
	index        int32 // in the heap of those waiting
	state        state
}

type state uint8

const (
	queued   state = iota // fetched
	inFlight              // delivered
	waiting               // for redelivery
	finished
)

// An ackRecord is what the Broker remembers of a message after its assignment ended.
type ackRecord struct {
	attempts int32
	done     bool
}

func (c *assignment) push(e *entry) {
	e.prev = c.back
	if c.back == nil {
		c.front = e
	} else {
		c.back.next = e
	}
	c.back = e
}

func (c *assignment) remove(e *entry) {
	if e.prev == nil {
		c.front = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		c.back = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
}

// position is the offset before which everything is finished; -1 if nothing was fetched.
func (c *assignment) position() int64 {
	if c.front != nil {
		return c.front.offset
	}
	return c.next
}

// find returns the unfinished entry of an offset, or nil.
func (c *assignment) find(offset int64) *entry {
	for e := c.front; e != nil && e.offset <= offset; e = e.next {
		if e.offset == offset {
			return e
		}
	}
	return nil
}

// A flight has the entries that are delivered and neither acknowledged nor given back, in the order
// in which their ack waits end.
type flight struct {
	oldest, newest *entry
	n              int
}

func (f *flight) push(e *entry) {
	e.older = f.newest
	if f.newest == nil {
		f.oldest = e
	} else {
		f.newest.newer = e
	}
	f.newest = e
	f.n++
}

func (f *flight) remove(e *entry) {
	if e.older == nil {
		f.oldest = e.newer
	} else {
		e.older.newer = e.newer
	}
	if e.newer == nil {
		f.newest = e.older
	} else {
		e.newer.older = e.older
	}
	e.older, e.newer = nil, nil
	f.n--
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
