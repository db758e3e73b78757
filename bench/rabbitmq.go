package main

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	rabbitGroup      = "bench"
	rabbitPartitions = 8
)

var errRefused = errors.New("a message was not taken")

// bareRabbit uses amqp091-go.
type bareRabbit struct {
	pub, sub *amqp.Connection
	ordered  bool // several queues, each with one active consumer
	channels []publishing
}

// publishing is a channel in confirm mode.
type publishing struct {
	ch       *amqp.Channel
	returned <-chan amqp.Return
}

func openRabbit(ordered bool) func(context.Context, string) (client, error) {
	return func(_ context.Context, url string) (client, error) {
		pub, err := amqp.Dial(url)
		if err != nil {
			return nil, err
		}
		sub, err := amqp.Dial(url)
		return &bareRabbit{pub: pub, sub: sub, ordered: ordered}, err
	}
}

func (b *bareRabbit) queues(prefix string) []string {
	n := 1
	if b.ordered {
		n = rabbitPartitions
	}
	list := make([]string, n)
	for i := range list {
		list[i] = prefix + strconv.Itoa(i)
	}
	return list
}

func (b *bareRabbit) prepare(_ context.Context, topic string) error {
	ch, err := b.pub.Channel()
	if err != nil {
		return err
	}
	defer func() { _ = ch.Close() }()
	args := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum}
	if b.ordered {
		args[amqp.SingleActiveConsumerArg] = true
		if err := ch.ExchangeDeclare(topic, "x-consistent-hash", true, false, false, false, nil); err != nil {
			return err
		}
	}
	for _, queue := range b.queues(topic) {
		if _, err := ch.QueueDeclare(queue, true, false, false, false, args); err != nil {
			return err
		}
		if b.ordered {
			if err := ch.QueueBind(queue, "1", topic, false, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// publisher has a channel for each goroutine, as is usual.
func (b *bareRabbit) publisher(topic string, i int) (func(context.Context, []event) error, error) {
	for i >= len(b.channels) {
		ch, err := b.pub.Channel()
		if err == nil {
			err = ch.Confirm(false)
		}
		if err != nil {
			return nil, err
		}
		b.channels = append(b.channels, publishing{ch, ch.NotifyReturn(make(chan amqp.Return, 1000))})
	}
	ch, returned := b.channels[i].ch, b.channels[i].returned
	queue := b.queues(topic)[0]
	return func(ctx context.Context, events []event) (err error) {
		confirms := make([]*amqp.DeferredConfirmation, len(events))
		for i := range events {
			e := &events[i]
			exchange, key := topic, e.key
			if !b.ordered {
				exchange, key = "", queue
			}
			confirms[i], err = ch.PublishWithDeferredConfirmWithContext(ctx, exchange, key, true, false, amqp.Publishing{
				MessageId: e.id, DeliveryMode: amqp.Persistent, ContentType: contentType, Body: e.data,
				Headers: amqp.Table{"cloudEvents_id": e.id, "cloudEvents_type": eventType},
			})
			if err != nil {
				return err
			}
		}
		for _, c := range confirms {
			if taken, err := c.WaitContext(ctx); err != nil || !taken {
				return errors.Join(err, errRefused)
			}
		}
		select {
		case <-returned:
			return errRefused
		default:
			return nil
		}
	}, nil
}

func (b *bareRabbit) consume(_ context.Context, topic string, n int, handle func(id, key string, data []byte)) error {
	ch, err := b.sub.Channel()
	if err != nil {
		return err
	}
	defer func() { _ = ch.Close() }()
	if err := ch.Qos(inFlight, 0, false); err != nil {
		return err
	}
	var got atomic.Int64
	queues := b.queues(topic)
	result := make(chan error, len(queues)+1)
	for _, queue := range queues {
		deliveries, err := ch.Consume(queue, queue, false, false, false, false, nil)
		if err != nil {
			return err
		}
		go func() {
			for d := range deliveries {
				id, _ := d.Headers["cloudEvents_id"].(string)
				handle(id, d.RoutingKey, d.Body)
				if err := d.Ack(false); err != nil {
					result <- err
					return
				}
				if got.Add(1) == int64(n) {
					result <- nil
				}
			}
		}()
	}
	if err := <-result; err != nil {
		return err
	}
	return ch.Close() // the server answers when it has dealt with all acknowledgements
}

// purge empties the queues with that prefix.
func (b *bareRabbit) purge(prefix string) error {
	ch, err := b.pub.Channel()
	if err != nil {
		return err
	}
	defer func() { _ = ch.Close() }()
	for _, name := range b.queues(prefix) {
		if _, err := ch.QueuePurge(name, false); err != nil && !strings.Contains(err.Error(), "NOT_FOUND") {
			return err
		}
	}
	return nil
}

func (b *bareRabbit) close() {
	_ = b.pub.Close()
	_ = b.sub.Close()
}
