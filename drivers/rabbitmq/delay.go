package rabbitmq

import (
	"context"
	"fmt"
	"maps"
	"math"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// level rounds a delay up to a power of two of seconds. Each level has a queue, because RabbitMQ
// looks for messages whose time has come only at the head: one that waits long holds up those
// behind it, here for less than twice their own time.
func level(after time.Duration) time.Duration {
	d := time.Second
	for d < after && d < math.MaxInt64/2 {
		d *= 2
	}
	return d
}

// putAside stores a copy of a message that comes back to the group after the given time.
func (b *Broker) putAside(ctx context.Context, g *group, raw *amqp.Delivery, attempts int, after time.Duration) error {
	if !b.enter() {
		return b.cause(amqp.ErrClosed)
	}
	defer b.calls.Done()
	ctx, cancel := bound(ctx)
	defer cancel()
	c, err := b.acquire(ctx)
	if err != nil {
		return err
	}
	err = b.putAsideOn(ctx, c, g, raw, attempts, after)
	b.release(c, err == nil)
	return err
}

func (b *Broker) putAsideOn(ctx context.Context, c *channel, g *group, raw *amqp.Delivery, attempts int, after time.Duration) error {
	name := g.name + ":delay:" + level(after).String()
	if !b.pub.isKnown(name) {
		if err := b.await(ctx, func() error { return declareDelay(c.ch, g, name) }); err != nil {
			return fmt.Errorf("queue %s: %w", name, err)
		}
		b.pub.learn(name, true)
	}
	headers := make(amqp.Table, len(raw.Headers)+1)
	maps.Copy(headers, raw.Headers)
	maps.DeleteFunc(headers, func(name string, _ any) bool { return reserved(name) })
	headers[headerAttempt] = int64(attempts)
	id := raw.MessageId
	copied := amqp.Publishing{
		Headers: headers, ContentType: raw.ContentType, ContentEncoding: raw.ContentEncoding, DeliveryMode: amqp.Persistent,
		CorrelationId: raw.CorrelationId, ReplyTo: raw.ReplyTo, MessageId: id, Timestamp: raw.Timestamp,
		Type: raw.Type, AppId: raw.AppId, Body: raw.Body,
		Expiration: strconv.FormatInt(int64((after+time.Millisecond-1)/time.Millisecond), 10),
	}
	// Mandatory: the queue may have been deleted, and then the message must not be acknowledged.
	_, err := c.send(ctx, []outgoing{{exchange: name, key: raw.RoutingKey, mandatory: true, msg: copied}})
	if err != nil {
		b.pub.learn(name, false)
	}
	return err
}

// declareDelay makes a queue that nobody consumes. What expires in it goes to the group's exchange
// with its routing key, and is forgotten here only when it has arrived there.
func declareDelay(ch *amqp.Channel, g *group, name string) error {
	args := amqp.Table{
		amqp.QueueTypeArg:        amqp.QueueTypeQuorum,
		"x-dead-letter-exchange": g.name,
		"x-dead-letter-strategy": "at-least-once",
		amqp.QueueOverflowArg:    amqp.QueueOverflowRejectPublish, // at-least-once needs it
	}
	if g.raw {
		args["x-dead-letter-exchange"], args["x-dead-letter-routing-key"] = "", g.queues[0]
	}
	if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil {
		return err
	}
	if err := ch.ExchangeDeclare(name, amqp.ExchangeFanout, true, false, false, false, nil); err != nil {
		return err
	}
	return ch.QueueBind(name, "", name, false, nil)
}
