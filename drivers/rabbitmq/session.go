package rabbitmq

import (
	"fmt"
	"slices"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/internal/steady"
)

// A session is the time during which a member consumes a partition, on a channel of its own. It
// ends with the channel: the server then takes back everything that is not acknowledged, in order,
// before another member gets a later message. If only the consumer were cancelled, another one
// could go on while messages are still on their way back.
//
// The last four fields are guarded by member.mu.
type session struct {
	m       *member
	queue   string
	ch      *amqp.Channel
	drained chan struct{} // closed when the channel may end
	ended   chan struct{} // closed when it has

	expiring sync.Mutex // held while expired deliveries are given back

	deliveries map[*delivery]struct{} // delivered and not acknowledged
	active     bool                   // the server has sent a message
	draining   bool
	over       bool
}

// consume keeps a session of a partition until the member leaves.
func (m *member) consume(queue string) {
	for backoff := newBackoff(); m.ctx.Err() == nil; {
		m.b.sub.wait(m.ctx)
		s, deliveries, err := m.begin(queue)
		if err == nil {
			backoff.Reset()
			s.run(deliveries)
			continue
		}
		switch code(err) {
		case amqp.NotFound:
			m.fail(fmt.Errorf("queue %s was deleted: %w", queue, err))
			return
		case amqp.AccessRefused, amqp.PreconditionFailed, amqp.NotAllowed, amqp.NotImplemented:
			m.fail(fmt.Errorf("consume queue %s: %w", queue, err))
			return
		}
		steady.Sleep(m.ctx, backoff.Next())
	}
}

// begin starts to consume a partition. The server sends at most MaxInFlight at a time.
func (m *member) begin(queue string) (*session, <-chan amqp.Delivery, error) {
	conn, err := m.b.sub.current()
	if err != nil {
		return nil, nil, err
	}
	ch, err := conn.Channel()
	if err != nil {
		return nil, nil, err
	}
	s := &session{m: m, queue: queue, ch: ch, drained: make(chan struct{}), ended: make(chan struct{}), deliveries: make(map[*delivery]struct{})}
	if err = ch.Qos(min(m.sub.MaxInFlight, 0xffff), 0, false); err == nil {
		var deliveries <-chan amqp.Delivery
		if deliveries, err = ch.Consume(queue, "kaptar", false, false, false, false, nil); err == nil {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.sessions[s] = true
			if m.ctx.Err() != nil {
				s.drain()
			}
			return s, deliveries, nil
		}
	}
	_ = ch.Close()
	return nil, nil, err
}

// run takes deliveries until the channel has ended.
func (s *session) run(deliveries <-chan amqp.Delivery) {
	defer s.end()
	drained := s.drained
	for {
		select {
		case d, ok := <-deliveries:
			if !ok {
				_ = s.ch.Close() // the server has cancelled the consumer: its queue was deleted or moved
				return
			}
			s.arrive(&d)
		case <-drained:
			drained = nil
			if s.m.b.opts.Unordered {
				_ = s.ch.Cancel("kaptar", false) // so that no further message comes and counts as an attempt
			}
			_ = s.ch.Close()
		}
	}
}

func (s *session) arrive(d *amqp.Delivery) {
	m := s.m
	m.mu.Lock()
	defer m.mu.Unlock()
	s.active = true
	if s.draining {
		return // goes back with the channel
	}
	m.queue = append(m.queue, &delivery{s: s, raw: d})
	m.wakeUp()
}

// drain ends the session once everything delivered is acknowledged. Messages that were only fetched
// are dropped here. The caller holds member.mu.
func (s *session) drain() {
	if s.draining {
		return
	}
	s.draining = true
	for l := range s.deliveries {
		if l.state == delaying { // goes back with the channel
			l.timer.Stop()
			l.state = finished
			delete(s.deliveries, l)
			s.m.open--
		}
	}
	s.m.queue = slices.DeleteFunc(s.m.queue, func(l *delivery) bool { return l.s == s })
	s.maybeDrained()
}

func (s *session) maybeDrained() {
	if !s.draining || len(s.deliveries) > 0 {
		return
	}
	select {
	case <-s.drained:
	default:
		close(s.drained)
	}
}

// end forgets the session: the server has taken its messages back.
func (s *session) end() {
	m := s.m
	defer func() {
		m.mu.Lock()
		last := m.ctx.Err() != nil && len(m.sessions) == 0
		m.mu.Unlock()
		if last {
			m.b.forget(m)
		}
	}()
	m.mu.Lock()
	defer m.mu.Unlock()
	s.over, s.draining = true, true
	delete(m.sessions, s)
	m.queue = slices.DeleteFunc(m.queue, func(l *delivery) bool { return l.s == s })
	for l := range s.deliveries {
		l.timer.Stop()
		l.state = gone
	}
	m.open -= len(s.deliveries)
	clear(s.deliveries)
	close(s.ended)
	m.wakeUp()
}
