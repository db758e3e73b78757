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

	"github.com/kaptar/kaptar/messaging/driver"
)

const commitEvery = 100 * time.Millisecond

// errMoved is why a message that was acknowledged comes again.
var errMoved = errors.New("another member has the partition by now; the message comes again")

// A lease is one delivery of an entry. The member's mu guards it.
type lease struct {
	e       *entry
	attempt int32
	settled bool
}

// Ack implements driver.Settler.
func (l *lease) Ack(ctx context.Context) error {
	if ctx.Err() != nil {
		return fmt.Errorf("kafka: ack: %w", context.Cause(ctx))
	}
	m, c := l.e.c.m, l.e.c
	m.mu.Lock()
	if l.settled || l.e.state == settled {
		l.settled = true
		m.mu.Unlock()
		return nil
	}
	ended := c.ended
	if !ended {
		m.settle(l.e)
		l.settled = true
	}
	m.mu.Unlock()
	if !ended {
		return nil
	}
	if err := m.b.ackLate(ctx, l.e); err != nil {
		return fmt.Errorf("kafka: ack at %s: %w", m.b.url, err)
	}
	m.mu.Lock()
	l.settled = true
	m.mu.Unlock()
	return nil
}

// Nack implements driver.Settler.
func (l *lease) Nack(ctx context.Context, after time.Duration) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("kafka: nack: %w", err)
	}
	m := l.e.c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.settled {
		return nil
	}
	l.settled = true
	if l.current() {
		m.land(l.e)
		m.wait(l.e, m.clock()+max(after, 0))
	}
	return nil // else it comes again anyway
}

// Extend implements driver.Settler.
func (l *lease) Extend(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("kafka: extend: %w", err)
	}
	m := l.e.c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if !l.settled && l.current() {
		m.flying.remove(l.e)
		l.e.at = m.clock() + m.b.opts.AckWait
		m.flying.push(l.e)
	}
	return nil
}

// current reports whether this delivery is the one in flight. The caller holds the member's mu.
func (l *lease) current() bool { return l.e.state == flying && l.e.attempts == l.attempt }

// ackLate settles an entry whose claim has ended: at the member of this Broker that has the partition now, or, when its
// own member left, by a commit to the group.
func (b *Broker) ackLate(ctx context.Context, e *entry) error {
	c := e.c
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return driver.ErrClosed
	}
	b.mark(c.place, e.offset, mark{attempts: e.attempts, done: true})
	if heir := b.claims[c.place]; heir != nil {
		heir.m.mu.Lock()
		if again := heir.find(e.offset); again != nil {
			heir.m.settle(again)
		}
		heir.m.mu.Unlock()
		b.mu.Unlock()
		return nil
	}
	b.mu.Unlock()

	c.m.mu.Lock()
	c.m.settle(e)
	position, left := c.position(), c.left
	c.m.mu.Unlock()
	if !left {
		return errMoved
	}
	select {
	case <-c.m.gone:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ctx, cancel := b.bound(ctx)
	defer cancel()
	if err := b.commitLate(ctx, c.place, position); err != nil {
		return b.cause(ctx, err)
	}
	return nil
}

// mark remembers a message. The caller holds b.mu.
func (b *Broker) mark(p place, offset int64, now mark) {
	if b.marks[p] == nil {
		b.marks[p] = make(map[int64]mark)
	}
	now.done = now.done || b.marks[p][offset].done
	b.marks[p][offset] = now
}

// unmark returns what is remembered of a message and forgets it. The caller holds b.mu.
func (b *Broker) unmark(p place, offset int64) mark {
	if len(b.marks) == 0 { // nearly always
		return mark{}
	}
	m, ok := b.marks[p][offset]
	if ok {
		delete(b.marks[p], offset)
		if len(b.marks[p]) == 0 {
			delete(b.marks, p)
		}
	}
	return m
}

// prune forgets what is before the group's place. The caller holds b.mu.
func (b *Broker) prune(p place, start int64) {
	for offset := range b.marks[p] {
		if offset < start {
			delete(b.marks[p], offset)
		}
	}
}

// commits calls commit now and then until ctx ends.
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
			signal(m.dirty)
			continue
		}
		m.mu.Lock()
		places := m.positions(slices.Collect(maps.Keys(m.claims)))
		m.mu.Unlock()
		once, cancel := context.WithTimeout(ctx, callTimeout)
		if err := m.commit(once, places); err != nil {
			signal(m.dirty)
		}
		cancel()
	}
}

// positions returns what is to be committed for the given partitions. The caller holds m.mu.
func (m *member) positions(partitions []int32) map[int32]kgo.EpochOffset {
	list := make(map[int32]kgo.EpochOffset)
	for _, p := range partitions {
		if c := m.claims[p]; c != nil && c.position() > c.committed {
			list[p] = kgo.EpochOffset{Epoch: -1, Offset: c.position()}
		}
	}
	return list
}

// commit commits as a member; the broker refuses it when the group has moved on without this member.
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
					} else if c := m.claims[p.Partition]; c != nil {
						c.committed = max(c.committed, list[p.Partition].Offset)
					}
				}
			}
		})
	return failure
}
