package inproc

import (
	"sync"

	"google.golang.org/grpc/mem"
)

const (
	queueSize   = 64 << 10 // bytes that a sender may be ahead of the receiver, as gRPC's window
	messageCost = 64       // bytes that a message counts at least, so that empty ones are bounded too
)

// A queue is one direction of a stream: messages, then the reason for its end. It is bounded by
// bytes and takes a message of any size when it is empty.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond
	msgs    []mem.BufferSlice
	size    int
	ended   error // no message comes after those in msgs
}

func newQueue() *queue {
	q := &queue{}
	q.changed.L = &q.mu
	return q
}

// put appends a message, which the queue then owns. It waits while the queue is full and returns
// the reason when it has ended.
func (q *queue) put(m mem.BufferSlice) error {
	cost := m.Len() + messageCost
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.ended == nil && q.size > 0 && q.size+cost > queueSize {
		q.changed.Wait()
	}
	if q.ended != nil {
		m.Free()
		return q.ended
	}
	q.msgs = append(q.msgs, m)
	q.size += cost
	q.changed.Broadcast()
	return nil
}

// get waits for a message; after the last it returns the reason for the end.
func (q *queue) get() (mem.BufferSlice, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.msgs) == 0 && q.ended == nil {
		q.changed.Wait()
	}
	if len(q.msgs) == 0 {
		return nil, q.ended
	}
	m := q.msgs[0]
	q.msgs[0] = nil
	q.msgs = q.msgs[1:]
	q.size -= m.Len() + messageCost
	q.changed.Broadcast()
	return m, nil
}

// end lets the receiver have what was sent and then reason. The first reason counts.
func (q *queue) end(reason error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended == nil {
		q.ended = reason
	}
	q.changed.Broadcast()
}

// cut ends the queue at once: what was not received is lost, also when it had ended well before.
func (q *queue) cut(reason error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range q.msgs {
		m.Free()
	}
	q.msgs, q.size, q.ended = nil, 0, reason
	q.changed.Broadcast()
}
