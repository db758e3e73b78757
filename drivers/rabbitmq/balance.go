package rabbitmq

import (
	"math/rand/v2"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/internal/steady"
)

// balance shares the partitions among the members. The server activates the consumer that has
// waited longest, so without it the first member would have all of them. Members are counted by
// their consumers of a queue that gets no messages. A member with more active partitions than its
// share leaves the surplus and queues up again at the end, until a member with room is first. Only
// partitions with messages count.
//
// This is only about load: in any case each partition has one active member.
func (m *member) balance() {
	for backoff := newBackoff(); steady.Sleep(m.ctx, backoff.Next()); {
		m.b.sub.wait(m.ctx)
		if m.count() {
			backoff.Reset()
		}
	}
}

// count calls share at intervals until the channel breaks. It returns whether it ever could.
func (m *member) count() (worked bool) {
	conn, err := m.b.sub.current()
	if err != nil {
		return false
	}
	ch, err := conn.Channel()
	if err != nil {
		return false
	}
	defer func() { _ = ch.Close() }()
	name := m.group.members()
	declare := func(passive func(name string, durable, autoDelete, exclusive, noWait bool, args amqp.Table) (amqp.Queue, error)) (int, error) {
		q, err := passive(name, true, true, false, false, nil)
		return q.Consumers, err
	}
	if _, err := declare(ch.QueueDeclare); err != nil {
		return false
	}
	if _, err := ch.Consume(name, "kaptar", true, false, false, false, nil); err != nil {
		return false
	}
	every := m.b.opts.Balance
	for steady.Sleep(m.ctx, every*4/5+rand.N(every*2/5)) {
		members, err := declare(ch.QueueDeclarePassive)
		if err != nil {
			return worked
		}
		worked = true
		m.share(members)
	}
	return worked
}

// share leaves the partitions that this member has beyond its share.
func (m *member) share(members int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	room := (len(m.group.queues) + max(members, 1) - 1) / max(members, 1)
	for s := range m.sessions {
		if !s.active || s.draining {
			continue
		}
		if room--; room < 0 {
			s.drain()
		}
	}
}
