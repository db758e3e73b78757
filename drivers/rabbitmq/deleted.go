package rabbitmq

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/internal/steady"
)

// guardMost is the longest time between two checks of the exchanges.
const guardMost = 2 * time.Second

func (b *Broker) guardEvery() time.Duration { return min(b.opts.Balance, guardMost) }

// guard notices that an exchange of the topic or of the group was deleted, which the server tells
// nobody: consuming continues, and nothing comes. If a publisher has made the topic's exchange
// again, guard restores the group's binding.
func (m *member) guard() {
	u := &builder{}
	defer func() { u.close() }()
	every := m.b.guardEvery()
	for steady.Sleep(m.ctx, every*4/5+rand.N(every*2/5)) {
		conn, err := m.b.sub.current()
		if err != nil {
			continue
		}
		if u.conn != conn {
			u = &builder{conn: conn}
		}
		err = u.do(func(ch *amqp.Channel) error { return ch.ExchangeBind(m.group.name, "", m.sub.Topic, false, nil) })
		if code(err) == amqp.NotFound {
			m.fail(fmt.Errorf("an exchange of the topic or the group was deleted: %w", err))
			return
		}
	}
}

// missing returns which exchange of list the server did not find, if err is about that. The next
// publish makes the exchange again, and must not conclude that nobody wants the messages: they
// would be lost until the groups are back. The error of a channel does not belong to one message.
func (l *link) missing(list []outgoing, err error) string {
	refusal, ok := errors.AsType[*amqp.Error](err)
	if !ok || refusal.Code != amqp.NotFound {
		return ""
	}
	for i := range list {
		if name := list[i].exchange; name != "" && strings.Contains(refusal.Reason, "'"+name+"'") {
			l.learn(name, false)
			l.mu.Lock()
			l.deleted[name] = time.Now()
			l.mu.Unlock()
			return name
		}
	}
	return ""
}

// deletedLately reports whether the exchange was deleted so recently that its groups may not be
// back. After three times guardEvery they should be, or the topic has none, and its messages must
// not wait for ever.
func (l *link) deletedLately(exchange string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.deleted[exchange]
	if ok && time.Since(at) > 3*l.b.guardEvery() {
		delete(l.deleted, exchange)
		return false
	}
	return ok
}
