package rabbitmq_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
)

const benchTopic = "bench"

func benchMessages(n int) []driver.Message {
	data := make([]byte, 200)
	out := make([]driver.Message, n)
	for i := range out {
		id := rand.Text()
		out[i] = driver.Message{
			ID: id, Topic: benchTopic, Key: strconv.Itoa(i % 100), Data: data,
			Headers: driver.HeadersOf(map[string]string{driver.HeaderID: id, driver.HeaderType: benchTopic, driver.HeaderContentType: "application/json"}),
		}
	}
	return out
}

// plainQueue makes one quorum queue for the bare client.
func plainQueue(b *testing.B) *amqp.Channel {
	ch := plain(b, servertest.VHost(b))
	if _, err := ch.QueueDeclare("q", true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		b.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		b.Fatal(err)
	}
	return ch
}

func publishPlain(b *testing.B, ch *amqp.Channel, n int) {
	data := make([]byte, 200)
	confirms := make([]*amqp.DeferredConfirmation, n)
	for i := range confirms {
		id := rand.Text()
		var err error
		confirms[i], err = ch.PublishWithDeferredConfirm("", "q", false, false, amqp.Publishing{
			MessageId: id, DeliveryMode: amqp.Persistent, ContentType: "application/json", Body: data,
			Headers: amqp.Table{"cloudEvents_id": id, "cloudEvents_type": benchTopic},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range confirms {
		if !c.Wait() {
			b.Fatal("not confirmed")
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, batch := range []int{1, 16, 500} {
		b.Run(fmt.Sprintf("driver/batch=%d", batch), func(b *testing.B) {
			broker := open(b, servertest.VHost(b)+"?order=none", nil)
			defer closeNow(b, broker)
			makeGroup(b, broker)
			for b.Loop() {
				if err := broker.Publish(b.Context(), benchMessages(batch)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "msg/s")
		})
		b.Run(fmt.Sprintf("plain/batch=%d", batch), func(b *testing.B) {
			ch := plainQueue(b)
			for b.Loop() {
				publishPlain(b, ch, batch)
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

const benchTotal = 10_000

func BenchmarkConsume(b *testing.B) {
	for _, query := range []string{"?order=none", "?partitions=8"} {
		b.Run("driver"+query, func(b *testing.B) {
			broker := open(b, servertest.VHost(b)+query, nil)
			defer closeNow(b, broker)
			makeGroup(b, broker)
			for b.Loop() {
				b.StopTimer()
				for range benchTotal / 500 {
					if err := broker.Publish(b.Context(), benchMessages(500)); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				consume(b, broker, benchTotal)
			}
			b.ReportMetric(float64(b.N*benchTotal)/b.Elapsed().Seconds(), "msg/s")
		})
	}
	b.Run("plain", func(b *testing.B) {
		ch := plainQueue(b)
		if err := ch.Qos(512, 0, false); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			b.StopTimer()
			for range benchTotal / 500 {
				publishPlain(b, ch, 500)
			}
			b.StartTimer()
			deliveries, err := ch.Consume("q", "bench", false, false, false, false, nil)
			if err != nil {
				b.Fatal(err)
			}
			for range benchTotal {
				d := <-deliveries
				if err := d.Ack(false); err != nil {
					b.Fatal(err)
				}
			}
			if err := ch.Cancel("bench", false); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N*benchTotal)/b.Elapsed().Seconds(), "msg/s")
	})
}

// makeGroup makes the group's queues: whoever subscribes for no time at all has made them.
func makeGroup(b *testing.B, broker driver.Broker) {
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	result := make(chan error, 1)
	go func() {
		result <- broker.Subscribe(ctx, driver.Subscription{Topic: benchTopic, Group: "g", From: driver.FromNow}, func(d driver.Delivery) {
			_ = d.Ack(b.Context())
			stop()
		})
	}()
	for {
		if err := broker.Publish(b.Context(), benchMessages(1)); err != nil {
			b.Fatal(err)
		}
		select {
		case err := <-result:
			if err != nil {
				b.Fatal(err)
			}
			return
		default:
		}
	}
}

// consume receives and acknowledges n messages.
func consume(b *testing.B, broker driver.Broker, n int) {
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	got := 0
	sub := driver.Subscription{Topic: benchTopic, Group: "g", From: driver.FromNow, MaxInFlight: 512}
	err := broker.Subscribe(ctx, sub, func(d driver.Delivery) {
		if err := d.Ack(ctx); err != nil {
			b.Error(err)
		}
		if got++; got == n {
			stop()
		}
	})
	if err != nil || got < n {
		b.Fatalf("got %d of %d messages, error %v", got, n, err)
	}
}
