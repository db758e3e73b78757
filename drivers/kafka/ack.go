package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kaptar/kaptar/internal/steady"
)

const commitEvery = 100 * time.Millisecond

// errMoved is why an acknowledged message comes again.
var errMoved = errors.New("another member has the partition by now, so the message comes again")

// A delivery is one delivery of an entry. The member's mu guards it.
type delivery struct {
	e       *entry
	attempt int32
	done    bool
}

// Ack implements driver.Acker.
func (l *delivery) Ack(ctx context.Context) error {
	late, m := false, l.e.c.m
	err := l.change(ctx, "ack", func() {
		if late = l.e.c.ended && l.e.state != finished; !late {
			m.finish(l.e)
		}
		l.done = true
	})
	if err == nil && late {
		err = fmt.Errorf("kafka: ack at %s: %w", m.b.url, errMoved)
	}
	return err
}

// Nack implements driver.Acker.
func (l *delivery) Nack(ctx context.Context, after time.Duration) error {
	return l.change(ctx, "nack", func() {
		l.done = true
		if l.current() { // else it comes again anyway
			m := l.e.c.m
			m.endFlight(l.e)
			m.requeue(l.e, m.clock()+max(after, 0))
		}
	})
}

// Extend implements driver.Acker.
func (l *delivery) Extend(ctx context.Context) error {
	return l.change(ctx, "extend", func() {
		if l.current() {
			m := l.e.c.m
			m.inFlight.remove(l.e)
			l.e.at = m.clock() + m.b.opts.AckWait
			m.inFlight.push(l.e)
		}
	})
}

// change calls do under the member's mu, unless the delivery is done.
func (l *delivery) change(ctx context.Context, verb string, do func()) error {
	if ctx.Err() != nil {
		return fmt.Errorf("kafka: %s: %w", verb, context.Cause(ctx))
	}
	m := l.e.c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if !l.done {
		do()
	}
	return nil
}

// current reports whether this delivery is the one in flight. The caller holds the member's mu.
func (l *delivery) current() bool { return l.e.state == inFlight && l.e.attempts == l.attempt }

// remember records how often a message was delivered. The caller holds b.mu.
func (b *Broker) remember(p topicPartition, offset int64, attempts int32) {
	if b.attempts[p] == nil {
		b.attempts[p] = make(map[int64]int32)
	}
	b.attempts[p][offset] = attempts
}

// recall returns what remember recorded of a message, and forgets it. The caller holds b.mu.
func (b *Broker) recall(p topicPartition, offset int64) int32 {
	if len(b.attempts) == 0 { // nearly always
		return 0
	}
	n, ok := b.attempts[p][offset]
	if ok {
		delete(b.attempts[p], offset)
		if len(b.attempts[p]) == 0 {
			delete(b.attempts, p)
		}
	}
	return n
}

// prune forgets what is below the group's offset. The caller holds b.mu.
func (b *Broker) prune(p topicPartition, start int64) {
	maps.DeleteFunc(b.attempts[p], func(offset int64, _ int32) bool { return offset < start })
}

// commits stores new offsets every commitEvery, until ctx ends.
func (m *member) commits(ctx context.Context) {
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	for {
		select {
		case <-m.dirty:
		case <-ctx.Done():
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if m.b.health.link().Err() != nil {
			steady.Signal(m.dirty)
			continue
		}
		m.mu.Lock()
		offsets := m.positions(slices.Collect(maps.Keys(m.assignments)))
		m.mu.Unlock()
		once, cancel := context.WithTimeout(ctx, callTimeout)
		if err := m.commit(once, offsets); err != nil {
			steady.Signal(m.dirty)
		}
		cancel()
	}
}

// positions returns the offsets to commit for the given partitions. The caller holds m.mu.
func (m *member) positions(partitions []int32) map[int32]kgo.EpochOffset {
	list := make(map[int32]kgo.EpochOffset)
	for _, p := range partitions {
		if c := m.assignments[p]; c != nil && c.position() > c.committed {
			list[p] = kgo.EpochOffset{Epoch: -1, Offset: c.position()}
		}
	}
	return list
}

// commit stores offsets as a member of the group. The broker refuses it if the group has dropped this
// member.
func (m *member) commit(ctx context.Context, list map[int32]kgo.EpochOffset) error {
	if len(list) == 0 {
		return nil
	}
	m.committing.Lock()
	defer m.committing.Unlock()
	var failure error
	m.cl.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{m.topic: list},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
			failure = err
			if err != nil {
				return
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, t := range answer.Topics {
				for _, p := range t.Partitions {
					if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
						failure = err
					} else if c := m.assignments[p.Partition]; c != nil {
						c.committed = max(c.committed, list[p.Partition].Offset)
					}
				}
			}
		})
	return failure
}
