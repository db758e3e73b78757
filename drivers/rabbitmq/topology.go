package rabbitmq

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/messaging/driver"
)

const (
	hashExchange = "x-consistent-hash"
	hashPlugin   = "rabbitmq_consistent_hash_exchange"
)

// A group is a consumer group on the server.
type group struct {
	name   string // of its exchange; its queues are name:0, name:1…
	queues []string
	raw    bool // it has no exchange, and its one queue is shared
}

// groupName joins two names that have no ':'. The server takes 255 bytes, suffixes included.
func groupName(topic, groupOf string) string {
	name := topic + ":" + groupOf
	if len(name) > 220 {
		sum := sha256.Sum256([]byte(name))
		name = topic[:min(len(topic), 90)] + ":" + groupOf[:min(len(groupOf), 90)] + ":" + hex.EncodeToString(sum[:16])
	}
	return name
}

func (g *group) dead() string    { return g.name + ":dead" }
func (g *group) members() string { return g.name + ":members" }

// A builder declares exchanges and queues on a channel, which the server closes at every refusal.
type builder struct {
	conn *connection
	ch   *amqp.Channel
}

func (u *builder) do(call func(ch *amqp.Channel) error) (err error) {
	if u.ch == nil || u.ch.IsClosed() {
		if u.ch, err = u.conn.Channel(); err != nil {
			return err
		}
	}
	return call(u.ch)
}

func (u *builder) close() {
	if u.ch != nil {
		_ = u.ch.Close()
	}
}

func (u *builder) hasQueue(name string) (bool, error) {
	err := u.do(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		return err
	})
	if code(err) == amqp.NotFound {
		return false, nil
	}
	return err == nil, err
}

// join makes sure that the topic and the group exist. Only the last step lets messages flow to a
// new group, so a group left incomplete by a program that died is completed by the next.
func (b *Broker) join(ctx context.Context, sub driver.Subscription) (*group, error) {
	conn, err := b.sub.current()
	if err != nil {
		return nil, err
	}
	g := &group{name: groupName(sub.Topic, sub.Group), raw: sub.Raw}
	err = b.await(ctx, func() error {
		u := &builder{conn: conn}
		defer u.close()
		if sub.Raw {
			g.queues = []string{sub.Topic}
			return b.rawQueue(u, sub.Topic)
		}
		return b.build(ctx, u, g, sub)
	})
	if err != nil {
		return nil, lacks("configure, write to and read what is named "+sub.Topic+" or begins with "+g.name, b.cause(err))
	}
	return g, nil
}

// rawQueue makes sure that the queue of a raw topic exists, with whatever arguments.
func (b *Broker) rawQueue(u *builder, name string) error {
	there, err := u.hasQueue(name)
	switch {
	case err != nil:
		return fmt.Errorf("queue %s: %w", name, err)
	case there:
		return nil
	case b.opts.MakeQueues:
		return u.declareQueue(name, nil)
	}
	return fmt.Errorf("queue %s: %w", name, errNoQueue)
}

// makeQueue makes the queue of a raw topic for a publisher, if Options.MakeQueues is set.
func (b *Broker) makeQueue(ctx context.Context, name string) error {
	known := "queue " + name // no exchange has a space
	if !b.opts.MakeQueues || b.pub.isKnown(known) {
		return nil
	}
	conn, err := b.pub.current()
	if err != nil {
		return err
	}
	err = b.await(ctx, func() error {
		u := &builder{conn: conn}
		defer u.close()
		return b.rawQueue(u, name)
	})
	if err != nil {
		return fmt.Errorf("rabbitmq: declare topic %s at %s: %w", name, b.url, lacks("configure it", b.cause(err)))
	}
	b.pub.learn(known, true)
	return nil
}

func (b *Broker) build(ctx context.Context, u *builder, g *group, sub driver.Subscription) error {
	if err := u.declareFanout(sub.Topic); err != nil {
		return err
	}
	partitions, err := b.partitions(u, g)
	if err != nil {
		return err
	}
	if err := u.declareQueue(g.dead(), amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum}); err != nil {
		return err
	}
	g.queues = make([]string, partitions)
	for i := partitions - 1; i >= 0; i-- { // backwards: if queue 0 exists, all do
		g.queues[i] = g.name + ":" + strconv.Itoa(i)
		if err := u.declareQueue(g.queues[i], b.queueArgs(g)); err != nil {
			return err
		}
	}
	if err := b.groupExchange(ctx, u, g, partitions); err != nil {
		return err
	}
	return u.do(func(ch *amqp.Channel) error {
		for _, queue := range g.queues {
			if err := ch.QueueBind(queue, "1", g.name, false, nil); err != nil { // here the key is the queue's weight
				return fmt.Errorf("bind queue %s: %w", queue, err)
			}
		}
		if err := ch.ExchangeBind(g.name, "", sub.Topic, false, nil); err != nil {
			return fmt.Errorf("bind exchange %s: %w", g.name, err)
		}
		return nil
	})
}

// partitions returns how many queues the group has, or is to get. A single deleted queue does not
// end the group, since the others have messages.
func (b *Broker) partitions(u *builder, g *group) (int, error) {
	b.mu.Lock()
	n := b.sizes[g.name]
	b.mu.Unlock()
	expected := max(n, b.opts.Partitions)
	for i := n; i < maxPartitions; i++ {
		exists, err := u.hasQueue(g.name + ":" + strconv.Itoa(i))
		if err != nil {
			return 0, fmt.Errorf("queue %s:%d: %w", g.name, i, err)
		}
		if exists {
			n = i + 1
		} else if i >= expected {
			break
		}
	}
	if n == 0 {
		n = b.opts.Partitions
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sizes[g.name] = n
	return n, nil
}

func (b *Broker) queueArgs(g *group) amqp.Table {
	args := amqp.Table{
		amqp.QueueTypeArg: amqp.QueueTypeQuorum,
		// Attempts are counted above; RabbitMQ 4 would drop a message after 20 without this.
		"x-delivery-limit": int32(math.MaxInt32),
		// What an operator's policy still drops must not vanish.
		"x-dead-letter-exchange": "", "x-dead-letter-routing-key": g.dead(),
	}
	if !b.opts.Unordered {
		args[amqp.SingleActiveConsumerArg] = true
	}
	return args
}

func (u *builder) declareQueue(name string, args amqp.Table) error {
	err := u.do(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, args)
		return err
	})
	switch {
	case code(err) == amqp.PreconditionFailed:
		return fmt.Errorf("queue %s was made with other settings (order=key or order=none?): %w", name, err)
	case err != nil:
		return fmt.Errorf("queue %s: %w", name, err)
	}
	return nil
}

func (u *builder) declareFanout(name string) error {
	err := u.do(func(ch *amqp.Channel) error {
		return ch.ExchangeDeclare(name, amqp.ExchangeFanout, true, false, false, false, nil)
	})
	if err != nil {
		return fmt.Errorf("exchange %s: %w", name, err)
	}
	return nil
}

// groupExchange makes the exchange that assigns each key to one queue.
func (b *Broker) groupExchange(ctx context.Context, u *builder, g *group, partitions int) error {
	if partitions == 1 {
		return u.declareFanout(g.name)
	}
	err := u.do(func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(g.name, hashExchange, true, false, false, false, nil)
	})
	if code(err) == amqp.NotFound {
		err = b.makeHashExchange(ctx, g.name)
	}
	if code(err) == amqp.CommandInvalid {
		return fmt.Errorf("the server lacks the plugin %s: enable it (rabbitmq-plugins enable %s), or use partitions=1 or order=none: %w",
			hashPlugin, hashPlugin, err)
	}
	if err != nil {
		return fmt.Errorf("exchange %s: %w", g.name, err)
	}
	return nil
}

// makeHashExchange uses a connection of its own, since a server without the plugin closes the
// connection that asks.
func (b *Broker) makeHashExchange(ctx context.Context, name string) error {
	var failure error
	for _, server := range b.servers {
		conn, err := b.dial(ctx, server)
		if err != nil {
			failure = err
			continue
		}
		u := &builder{conn: conn}
		err = u.do(func(ch *amqp.Channel) error {
			return ch.ExchangeDeclare(name, hashExchange, true, false, false, false, nil)
		})
		_ = conn.Close()
		return err
	}
	return failure
}
