package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

// Lag implements driver.LagReporter from the group's queues. AMQP reports only the ready messages
// of a queue. Of those in flight only this Broker's count, so the true lag is greater by up to
// MaxInFlight for each member elsewhere. The age of messages is not known.
func (b *Broker) Lag(ctx context.Context, sub driver.Subscription) (list []driver.PartitionLag, err error) {
	err = b.about(ctx, fmt.Sprintf("lag of group %s in topic %s", sub.Group, sub.Topic), func(u *builder) error {
		g := &group{name: groupName(sub.Topic, sub.Group)}
		if sub.Raw {
			g.queues = []string{sub.Topic}
		} else {
			n, err := b.partitions(u, g)
			if err != nil {
				return err
			}
			for i := range n {
				g.queues = append(g.queues, g.name+":"+strconv.Itoa(i))
			}
		}
		for i, queue := range g.queues {
			var q amqp.Queue
			err := u.do(func(ch *amqp.Channel) (err error) {
				q, err = ch.QueueDeclarePassive(queue, true, false, false, false, nil)
				return err
			})
			if err != nil {
				return fmt.Errorf("queue %s (made when the group first subscribes): %w", queue, err)
			}
			list = append(list, driver.PartitionLag{Partition: strconv.Itoa(i), Waiting: int64(q.Messages + b.inFlight(queue))})
		}
		return nil
	})
	return list, err
}

// inFlight returns how many messages of a queue the members of this Broker have.
func (b *Broker) inFlight(queue string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for m := range b.members {
		m.mu.Lock()
		for s := range m.sessions {
			if s.queue == queue {
				n += len(s.deliveries)
			}
		}
		for _, l := range m.queue {
			if l.s.queue == queue {
				n++
			}
		}
		m.mu.Unlock()
	}
	return n
}

// Reset implements driver.Resetter: errors.ErrUnsupported, since queues drop what is acknowledged.
func (b *Broker) Reset(_ context.Context, sub driver.Subscription, _ time.Time) error {
	return fmt.Errorf("rabbitmq: reset of group %s in topic %s: %w: RabbitMQ keeps no message that every group has acknowledged: "+
		"let the publisher send the events again", sub.Group, sub.Topic, errors.ErrUnsupported)
}

// Retention implements driver.Retainer: 0, since a queue keeps a message until it is acknowledged.
// AMQP does not report what a policy of the server drops earlier (message-ttl, expires).
func (b *Broker) Retention(ctx context.Context, topic string) (time.Duration, error) {
	return 0, b.about(ctx, "retention of topic "+topic, func(u *builder) error {
		err := u.do(func(ch *amqp.Channel) error {
			return ch.ExchangeDeclarePassive(topic, amqp.ExchangeFanout, true, false, false, false, nil)
		})
		if code(err) == amqp.NotFound { // or it is a raw topic
			if there, failure := u.hasQueue(topic); failure != nil || there {
				return failure
			}
		}
		return err
	})
}

// about calls ask with a channel of the connection that consumes.
func (b *Broker) about(ctx context.Context, what string, ask func(u *builder) error) error {
	if !b.enter() {
		return fmt.Errorf("rabbitmq: %s: %w", what, driver.ErrClosed)
	}
	defer b.calls.Done()
	ctx, cancel := steady.Bound(ctx, callTimeout)
	defer cancel()
	conn, err := b.sub.current()
	if err == nil {
		err = b.await(ctx, func() error {
			u := &builder{conn: conn}
			defer u.close()
			return ask(u)
		})
	}
	if err != nil {
		return fmt.Errorf("rabbitmq: %s at %s: %w", what, b.url, b.cause(err))
	}
	return nil
}
