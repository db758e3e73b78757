package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kaptar/kaptar/internal/partition"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

const (
	lookEvery = 2 * time.Second        // interval of reading the roster and calling the next member
	lease     = 8 * time.Second        // how long after its last read of the roster a member delivers
	silent    = 10 * time.Second       // how long a member may leave calls unanswered; longer than lease
	callAgain = 200 * time.Millisecond // between two calls to a member that does not listen
	drainTime = 10 * time.Second       // how long deliveries in flight delay a partition's move
	ackTravel = 50 * time.Millisecond  // time for an acknowledgement to reach the server
)

// A member is one Subscribe call with Ordered. The group's roster says which partitions it has. One
// goroutine follows the roster, and each partition has its own puller.
type member struct {
	b       *broker
	sub     driver.Subscription
	info    topicInfo
	roster  rosterKey
	me      string // its name in the roster, and the subject on which it answers
	flight  *flight
	deliver func(driver.Delivery)
	wake    chan struct{} // holds at most one wake-up of run
	one     sync.Mutex    // held while something is delivered

	// Used by run's goroutine only, and after it by that of leave.
	parts   [partition.Count]*part
	leaving bool
	looked  time.Time // when the next member was last called
	quiet   string    // the member that did not answer
	since   time.Time // since when

	mu    sync.Mutex
	until time.Time       // no delivery begins after it,
	link  context.Context // nor after link has ended: others may believe that a disconnected member is dead
	fatal error
}

// A part is a partition that a member has.
type part struct {
	stop    context.CancelFunc
	drained chan struct{} // closed when nothing is in flight any more, or that took too long
}

func (b *broker) newMember(info topicInfo, sub driver.Subscription, deliver func(driver.Delivery)) *member {
	return &member{
		b: b, sub: sub, info: info, roster: rosterKey{b.groups, info.stream + "." + escapeName(sub.Group)}, me: b.conn.NewInbox(),
		flight: &flight{limit: sub.MaxInFlight, waiting: make(map[*puller]struct{})}, deliver: deliver, wake: make(chan struct{}, 1),
	}
}

// run delivers until ctx ends or it fails for good. The partitions move to others once what was
// delivered is acknowledged or nacked.
func (m *member) run(ctx context.Context) error {
	answer, err := m.b.conn.Subscribe(m.me, m.answer)
	if err != nil {
		return err
	}
	if err := m.look(ctx); err != nil {
		_ = answer.Unsubscribe()
		return err
	}
	for tick := time.NewTicker(lookEvery); ctx.Err() == nil && !m.b.isClosed(); {
		if err = m.failed(); err != nil {
			break
		}
		select {
		case <-m.wake:
		case <-tick.C:
		case <-ctx.Done():
			continue
		case <-m.b.done:
			continue
		}
		_ = m.look(ctx) // if it keeps failing, the lease ends
	}
	m.stopAll()
	m.b.calls.Go(func() {
		m.leave(context.WithoutCancel(ctx))
		_ = answer.Unsubscribe()
	})
	return err
}

// answer replies to a call, or wakes run because the roster has changed.
func (m *member) answer(msg *nats.Msg) {
	if msg.Reply == "" {
		m.wakeUp()
		return
	}
	_ = m.b.conn.Publish(msg.Reply, nil) // without it the other one calls again
}

func (m *member) wakeUp() { steady.Signal(m.wake) }

// look reads the roster, follows it, and writes what should change in it.
func (m *member) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lease/2)
	defer cancel()
	for ctx.Err() == nil {
		begun, link := time.Now(), m.b.conn.currentLink()
		now, revision, err := m.roster.read(ctx)
		if err != nil {
			return err
		}
		m.obey(link, now, begun)
		next := m.plan(ctx, now)
		if next.equal(now) {
			return nil
		}
		written, err := m.roster.write(ctx, next, revision)
		if err != nil {
			return err
		}
		if !written {
			continue // another member has changed it
		}
		m.obey(link, next, begun)
		for _, other := range next.all() {
			if other != m.me {
				_ = m.b.conn.Publish(other, nil) // else it reads the roster later by itself
			}
		}
		return nil
	}
	return context.Cause(ctx)
}

// obey begins and ends partitions as the roster says. The roster was read or written at or after
// since, over link.
func (m *member) obey(link context.Context, r *roster, since time.Time) {
	for p, owner := range r.Owners {
		switch {
		case owner != m.me && m.parts[p] != nil: // the others believed that this member was dead
			m.parts[p].stop()
			m.parts[p] = nil
		case owner == m.me && m.parts[p] == nil && r.has(m.me) && !m.leaving:
			m.parts[p] = m.begin(p)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.has(m.me) && !m.leaving {
		m.until, m.link = since.Add(lease), link
	}
}

// plan returns the roster as it should be next.
func (m *member) plan(ctx context.Context, now *roster) *roster {
	next := now.clone()
	if m.leaving {
		next.retire(m.me)
	} else {
		next.admit(m.me)
	}
	m.callNext(ctx, next)
	for p, heir := range next.heirs() {
		mine := m.parts[p]
		switch owner := next.Owners[p]; {
		case owner == "" && (heir == m.me || m.leaving):
			next.Owners[p] = heir
		case owner != m.me:
		case mine == nil && (heir != m.me || m.leaving): // it never began
			next.Owners[p] = heir
		case mine != nil && (heir != m.me || m.leaving):
			mine.stop()
			if ended(mine.drained) {
				m.parts[p], next.Owners[p] = nil, heir
			}
		case mine != nil && ended(mine.drained): // it was to go and is to stay
			m.parts[p] = m.begin(p)
		}
	}
	return next
}

// callNext calls the member after this one from time to time, and strikes it off if it is gone:
// when a process has died the server says at once that nobody listens. A member that does not
// answer is struck off after silent.
func (m *member) callNext(ctx context.Context, r *roster) {
	if time.Since(m.looked) < lookEvery/2 {
		return
	}
	m.looked = time.Now()
	m.b.mu.Lock()
	back := time.Since(m.b.changed) < 2*lookEvery
	m.b.mu.Unlock()
	for range partition.Count / 2 { // the others next time
		other := r.after(m.me)
		if other == m.me {
			return
		}
		err := m.b.call(ctx, other)
		if errors.Is(err, nats.ErrNoResponders) && !back { // after a restart of the server the others may not be back yet
			steady.Sleep(ctx, callAgain)
			err = m.b.call(ctx, other)
		}
		switch gone := errors.Is(err, nats.ErrNoResponders) && !back; {
		case ctx.Err() != nil:
			return
		case err == nil:
			m.quiet = ""
			return
		case gone:
		case m.quiet != other:
			m.quiet, m.since = other, time.Now()
			return
		case time.Since(m.since) < silent:
			return
		}
		r.strike(other)
	}
}

// call returns nil when a member answers.
func (b *broker) call(ctx context.Context, member string) error {
	ctx, cancel := context.WithTimeout(ctx, callAgain*2)
	defer cancel()
	_, err := b.conn.RequestWithContext(ctx, member, nil)
	return err
}

// begin starts to deliver a partition.
func (m *member) begin(p int) *part {
	ctx, stop := context.WithCancel(context.Background())
	mine := &part{stop: stop, drained: make(chan struct{})}
	name := partitionConsumer(m.sub.Group, p)
	puller := m.b.newPuller(m.info, m.sub, name, min(max(m.sub.MaxInFlight/8, 8), m.sub.MaxInFlight), m.flight)
	puller.may = m.may
	m.b.calls.Go(func() {
		defer m.wakeUp()
		defer close(mine.drained)
		m.b.takeOver(ctx, m.info.stream, name)
		err := puller.run(ctx, func(d driver.Delivery) {
			m.one.Lock()
			defer m.one.Unlock()
			if ctx.Err() != nil || !m.may() { // it waited for the lock for too long
				puller.release(d.Acker.(*pending)) //nolint:forcetypeassert // by puller
				return
			}
			m.deliver(d)
		})
		if err != nil && ctx.Err() == nil {
			m.fail(err)
		}
		puller.drain(min(drainTime, m.b.set.ackWait))
	})
	return mine
}

// may reports whether the member certainly still owns what the roster said.
func (m *member) may() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Before(m.until) && m.link.Err() == nil
}

func (m *member) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fatal == nil {
		m.fatal = err
	}
	m.wakeUp()
}

func (m *member) failed() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fatal
}

// stopAll ends deliveries. Nothing is delivered after it returns.
func (m *member) stopAll() {
	for _, mine := range m.parts {
		if mine != nil {
			mine.stop()
		}
	}
	m.one.Lock()
	defer m.one.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.until = time.Time{}
}

// leave gives up each partition once nothing of it is in flight.
func (m *member) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, min(drainTime, m.b.set.ackWait)+lease/2)
	defer cancel()
	m.leaving = true
	for ctx.Err() == nil && m.b.conn.IsConnected() {
		err := m.look(ctx)
		mine := false
		for _, p := range m.parts {
			mine = mine || p != nil
		}
		if err == nil && !mine {
			return
		}
		select {
		case <-m.wake:
		case <-time.After(callAgain):
		case <-ctx.Done():
		}
	}
}

// drain waits until nothing is in flight.
func (p *puller) drain(limit time.Duration) {
	p.mu.Lock()
	p.expire(time.Now())
	empty := make(chan struct{})
	if len(p.pending) == 0 {
		close(empty)
	} else {
		p.emptied = empty
	}
	p.mu.Unlock()
	select {
	case <-empty:
	case <-p.b.done:
	case <-time.After(limit):
	}
}

func partitionConsumer(group string, p int) string {
	return fmt.Sprintf("%s@%s", escapeName(group), partition.Name(p)) // no group has '@' in its name
}
