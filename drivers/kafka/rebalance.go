package kafka

import (
	"container/heap"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/internal/steady"
)

// assigned begins assignments; the client calls it before it fetches.
func (m *member) assigned(_ context.Context, _ *kgo.Client, got map[string][]int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range got[m.topic] {
		c := &assignment{m: m, partition: topicPartition{m.group, m.topic, p}, next: -1, committed: -1, closing: m.leaving}
		m.assignments[p] = c
	}
}

// entriesTogether entries are allocated together. With more, one entry that waits for long would
// keep too many others in memory.
const entriesTogether = 16

// receive adds what the client gave to the assignments, and returns the number of records. No
// assignment begins or ends during the call.
func (m *member) receive(ctx context.Context, fetches kgo.Fetches) (n int) {
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		for records := range slices.Chunk(p.Records, entriesTogether) {
			list := make([]entry, len(records))
			for i, r := range records {
				list[i].record, list[i].offset = r, r.Offset
			}
			m.queueUp(p.Partition, list)
			n += len(list)
		}
	})
	m.cl.AllowRebalance()
	fetches.EachError(func(_ string, _ int32, err error) { m.classify(ctx, err) })
	if n > 0 {
		steady.Signal(m.dirty)
	}
	return n
}

// queueUp adds entries to the assignment of their partition and to the queue.
func (m *member) queueUp(partition int32, list []entry) {
	m.b.mu.Lock()
	defer m.b.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.assignments[partition]
	if c == nil {
		return
	}
	for i := range list {
		m.record(c, &list[i])
	}
	m.queue = append(m.queue, list)
	m.queued += len(list)
}

// record adds one record to its assignment. The caller holds the Broker's and the member's mu.
func (m *member) record(c *assignment, e *entry) {
	if c.next < 0 {
		m.b.prune(c.partition, e.offset)
	} else if e.offset < c.next { // the log was truncated: what was above is gone
		for c.open.first != nil {
			m.finish(c.open.first)
		}
		c.committed = -1
	}
	c.next = e.offset + 1
	e.c, e.attempts = c, m.b.recall(c.partition, e.offset)
	c.open.push(e)
}

// revoked is called when partitions move to another member, and when this one leaves. What is in
// flight gets some time, since the next owner would handle it again.
func (m *member) revoked(ctx context.Context, partitions []int32) {
	m.mu.Lock()
	leaving := m.leaving
	for _, p := range partitions {
		if c := m.assignments[p]; c != nil {
			c.closing = true
			m.dropDue(c)
		}
	}
	m.mu.Unlock()
	if !leaving {
		m.drain(ctx, partitions, drainTime)
	}
	offsets := m.endAssignments(partitions)
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	_ = m.commit(ctx, offsets) // what is not committed comes again
}

// dropDue removes an assignment's entries from those that wait. The caller holds m.mu; nothing may
// be added afterwards.
func (m *member) dropDue(c *assignment) {
	m.due = slices.DeleteFunc(m.due, func(e *entry) bool {
		if e.c == c {
			m.dueBytes -= size(e.record)
		}
		return e.c == c
	})
	for i, e := range m.due {
		e.index = int32(i)
	}
	heap.Init(&m.due)
	steady.Signal(m.wake)
}

// drain waits until nothing of the partitions is in flight, but not longer than most.
func (m *member) drain(ctx context.Context, partitions []int32, most time.Duration) {
	timeout := time.NewTimer(most)
	defer timeout.Stop()
	for {
		m.mu.Lock()
		n := 0
		for _, p := range partitions {
			if c := m.assignments[p]; c != nil {
				n += c.inFlight
			}
		}
		if m.drained == nil {
			m.drained = make(chan struct{})
		}
		changed := m.drained
		m.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			return
		case <-ctx.Done():
			return
		case <-m.b.ctx.Done():
			return
		}
	}
}

// endAssignments ends assignments and returns the offsets to commit.
func (m *member) endAssignments(partitions []int32) map[int32]kgo.EpochOffset {
	m.b.mu.Lock()
	defer m.b.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	offsets := m.positions(partitions)
	for _, p := range partitions {
		c := m.assignments[p]
		if c == nil {
			continue
		}
		if !c.closing {
			c.closing = true
			m.dropDue(c)
		}
		c.ended = true
		for e := c.open.first; e != nil; e = e.links[byOffset].next {
			if e.state == inFlight {
				m.endFlight(e)
				e.state = waiting
			}
			if e.attempts > 0 {
				m.b.remember(c.partition, e.offset, e.attempts)
			}
		}
		delete(m.assignments, p)
	}
	return offsets
}

// finishUp ends all deliveries. It returns the partitions and whether something is in flight.
func (m *member) finishUp() (partitions []int32, busy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leaving = true
	m.queue, m.queued = nil, 0
	for p, c := range m.assignments {
		c.closing = true
		m.dropDue(c)
		partitions = append(partitions, p)
	}
	return partitions, m.inFlight.n > 0
}

// leave commits what is acknowledged, leaves the group and closes the client.
func (m *member) leave() {
	ctx, cancel := context.WithTimeout(m.b.life, leaveTime)
	defer cancel()
	if m.b.health.link().Err() == nil {
		_ = m.cl.LeaveGroupContext(ctx) // commits in revoked; else the group notices after the session timeout
	}
	m.cl.CloseAllowingRebalance()
	m.mu.Lock()
	rest := slices.Collect(maps.Keys(m.assignments))
	m.mu.Unlock()
	m.endAssignments(rest)
}
