package kafka

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

const (
	maxHeld      = 10_000                 // messages that wait for a redelivery
	maxHeldBytes = 64 << 20               // of them
	fetchBytes   = 16 << 20               // of one answer; a member holds at most two from each broker
	fetchWait    = 500 * time.Millisecond // as other clients; a partition assigned during a fetch may have to wait for its end
	drainTime    = 2 * time.Second
	leaveTime    = 3 * time.Second
	leaveLate    = 10 * time.Second // how long deliveries in flight keep a leaving member in the group
	lookAgain    = 5 * time.Second  // interval of checking for a deleted topic
)

// A member is one Subscribe call, with a client of its own in the group. One goroutine takes what
// the client has fetched and delivers it, one waits in its place when there is nothing, and one
// commits. A further goroutine would move each message between processors.
type member struct {
	b     *Broker
	sub   driver.Subscription
	topic string // Kafka's name
	group string
	cl    *kgo.Client

	begun time.Time     // when clock was 0
	wake  chan struct{} // holds a wake-up of deliver
	none  chan struct{} // of await
	dirty chan struct{} // of commit

	committing sync.Mutex // one commit at a time, so that an older one cannot come last

	mu          sync.Mutex
	assignments map[int32]*assignment
	queue       [][]entry // fetched and not delivered
	queued      int       // entries in queue
	inFlight    list      // by the end of their ack waits
	awaited     bool      // await has the client
	due         dueHeap
	dueBytes    int
	drained     chan struct{} // closed when a delivery ends; nil: nobody waits for that
	leaving     bool
	fatal       error
}

func newMember(b *Broker, sub driver.Subscription, topic string) *member {
	return &member{
		b: b, sub: sub, topic: topic, group: groupName(sub), begun: time.Now(),
		wake: make(chan struct{}, 1), none: make(chan struct{}, 1), dirty: make(chan struct{}, 1),
		assignments: make(map[int32]*assignment), inFlight: list{kind: byEnd},
	}
}

// clock is the time base of entries. For each message, time.Now would take several times as long.
func (m *member) clock() time.Duration { return time.Since(m.begun) }

func (m *member) options() []kgo.Opt {
	wait := m.b.opts.AckWait
	return []kgo.Opt{
		kgo.ConsumerGroup(m.group),
		kgo.ConsumeTopics(m.topic),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(), // a record is in its assignment before the assignment can end
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(m.b.opts.sessionTimeout()),
		kgo.HeartbeatInterval(min(max(wait/10, 50*time.Millisecond), time.Second)),
		kgo.FetchMaxBytes(fetchBytes),
		kgo.FetchMaxWait(fetchWait),
		kgo.OnPartitionsAssigned(m.assigned),
		kgo.OnPartitionsRevoked(func(ctx context.Context, _ *kgo.Client, lost map[string][]int32) { m.revoked(ctx, lost[m.topic]) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			_ = m.endAssignments(lost[m.topic])
		}),
	}
}

// run delivers until ctx ends or it fails for good. The member stays in the group until what was
// delivered is acknowledged or nacked, so that no other member gets those messages too, or later
// ones of their keys.
func (m *member) run(ctx context.Context, deliver func(driver.Delivery)) error {
	awaiting, stop := context.WithCancel(ctx)
	committing, end := context.WithCancel(m.b.life)
	var tasks sync.WaitGroup
	tasks.Go(func() { m.await(awaiting) })
	tasks.Go(func() { m.commits(committing) })
	err := m.deliver(ctx, deliver)
	stop()
	partitions, busy := m.finishUp()
	left := make(chan struct{})
	m.b.calls.Go(func() {
		defer close(left)
		if busy {
			m.drain(committing, partitions, min(leaveLate, m.b.opts.AckWait))
		}
		end()
		tasks.Wait()
		m.leave()
	})
	if !busy {
		<-left
	}
	return err
}

func (m *member) deliver(ctx context.Context, deliver func(driver.Delivery)) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	d := decoder{raw: m.sub.Raw}
	for ctx.Err() == nil {
		l, r, wait, err := m.next(m.clock())
		if err != nil {
			return err
		}
		if l != nil {
			deliver(driver.Delivery{Message: d.decode(m.sub.Topic, r), Attempt: int(l.attempt), Acker: l})
			continue
		}
		if m.fetch(ctx) {
			continue
		}
		timer.Reset(wait)
		select {
		case <-m.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// next returns what to deliver, counted as in flight, or nil and how long to wait for it.
func (m *member) next(now time.Duration) (l *delivery, r *kgo.Record, wait time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fatal != nil {
		return nil, nil, 0, m.fatal
	}
	m.expire(now)
	wait = time.Minute
	if m.inFlight.n > 0 {
		wait = min(wait, max(m.inFlight.first.at-now, time.Millisecond))
	}
	if m.inFlight.n >= m.sub.MaxInFlight {
		return nil, nil, wait, nil
	}
	if len(m.due) > 0 {
		e := m.due[0]
		if e.at <= now {
			heap.Pop(&m.due)
			m.dueBytes -= size(e.record)
			return m.take(e, now), e.record, 0, nil
		}
		wait = min(wait, e.at-now)
	}
	for m.queued > 0 {
		e := m.pop()
		if e.state == queued && !e.c.closing && !e.c.ended {
			return m.take(e, now), e.record, 0, nil
		}
	}
	return nil, nil, wait, nil
}

// pop takes the next entry off the queue. The caller holds m.mu.
func (m *member) pop() *entry {
	e := &m.queue[0][0]
	if m.queue[0] = m.queue[0][1:]; len(m.queue[0]) == 0 {
		m.queue[0] = nil
		m.queue = m.queue[1:]
	}
	m.queued--
	return e
}

// take counts e as in flight. The caller holds m.mu.
func (m *member) take(e *entry, now time.Duration) *delivery {
	e.state, e.at = inFlight, now+m.b.opts.AckWait
	e.attempts++
	m.inFlight.push(e)
	e.c.inFlight++
	l := &e.first
	if l.e != nil { // it belongs to an earlier delivery, which may still be acknowledged
		l = &delivery{}
	}
	l.e, l.attempt = e, e.attempts
	return l
}

// expire makes messages whose ack wait has passed due again. The caller holds m.mu.
func (m *member) expire(now time.Duration) {
	for e := m.inFlight.first; e != nil && e.at <= now; e = m.inFlight.first {
		m.endFlight(e)
		m.requeue(e, now)
	}
}

// endFlight takes e out of flight. The caller holds m.mu.
func (m *member) endFlight(e *entry) {
	m.inFlight.remove(e)
	e.c.inFlight--
	if m.drained != nil {
		close(m.drained)
		m.drained = nil
	}
	if m.inFlight.n == m.sub.MaxInFlight-1 { // it was full
		steady.Signal(m.wake)
	}
}

// requeue keeps e for redelivery at the given time. The caller holds m.mu.
func (m *member) requeue(e *entry, at time.Duration) {
	e.state, e.at = waiting, at
	if e.c.closing || e.c.ended {
		return // its next owner delivers it
	}
	e.record = clone(e.record)
	heap.Push(&m.due, e)
	m.dueBytes += size(e.record)
	steady.Signal(m.wake)
}

// finish forgets e, whatever its state. The caller holds m.mu.
func (m *member) finish(e *entry) {
	switch e.state {
	case finished:
		return
	case inFlight:
		m.endFlight(e)
	case waiting:
		if !e.c.closing && !e.c.ended {
			heap.Remove(&m.due, int(e.index))
			m.dueBytes -= size(e.record)
			steady.Signal(m.wake) // there may be room again
		}
	}
	e.state = finished
	e.c.open.remove(e)
	e.record = nil
	steady.Signal(m.dirty)
}

// fetch takes all records that the client has, so that the client fetches the next ones while these
// are delivered. If there are none it leaves the waiting to await. It reports whether there may be
// something to deliver.
func (m *member) fetch(ctx context.Context) bool {
	m.mu.Lock()
	idle := !m.awaited && m.queued == 0 && len(m.due) < maxHeld && m.dueBytes < maxHeldBytes
	m.mu.Unlock()
	if !idle {
		return false
	}
	if m.receive(ctx, m.cl.PollRecords(nil, 0)) > 0 { //nolint:staticcheck // nil means not to wait
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.awaited = true
	steady.Signal(m.none)
	return false
}

// await waits for records whenever fetch found none.
func (m *member) await(ctx context.Context) {
	for {
		select {
		case <-m.none:
		case <-ctx.Done():
			return
		}
		once, cancel := context.WithTimeout(ctx, lookAgain)
		m.receive(ctx, m.cl.PollRecords(once, 0))
		cancel()
		m.mu.Lock()
		m.awaited = false
		m.mu.Unlock()
		steady.Signal(m.wake)
	}
}

// classify ends the subscription if an error will not pass.
func (m *member) classify(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil || errors.Is(err, context.Canceled):
		return
	case errors.Is(err, context.DeadlineExceeded): // nothing has come for a while
		if m.b.Healthy() != nil {
			return
		}
		look, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		if found, err := m.b.adm.ListTopics(look, m.topic); err == nil && errors.Is(found[m.topic].Err, kerr.UnknownTopicOrPartition) {
			m.classify(ctx, found[m.topic].Err)
		}
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		m.b.forget(m.sub.Topic)
		m.fail(fmt.Errorf("topic %s was deleted: %w", m.topic, err))
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed), errors.Is(err, kgo.ErrClientClosed):
		m.fail(m.b.lacks("Read", m.topic, m.group, err))
	}
}

func (m *member) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fatal == nil {
		m.fatal = err
	}
	steady.Signal(m.wake)
}
