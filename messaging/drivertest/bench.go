package drivertest

import (
	"context"
	"crypto/rand"
	"strconv"
	"testing"

	"github.com/kaptar/kaptar/messaging/driver"
)

// BenchmarkPublish publishes messages of about 330 bytes with 100 different keys, batch by batch.
// It reports messages a second.
func BenchmarkPublish(b *testing.B, broker driver.Broker, batch int) {
	topic := "bench." + rand.Text()
	if err := broker.Declare(b.Context(), driver.Subscription{Topic: topic}); err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		if err := broker.Publish(b.Context(), benchBatch(topic, n, batch)); err != nil {
			b.Fatal(err)
		}
		n += batch
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkConsume receives and acknowledges messages that wait in the broker. It reports messages
// a second.
func BenchmarkConsume(b *testing.B, broker driver.Broker) {
	const total = 10_000
	topic := "bench." + rand.Text()
	for n := 0; n < total; n += 500 {
		if err := broker.Publish(b.Context(), benchBatch(topic, n, 500)); err != nil {
			b.Fatal(err)
		}
	}
	rounds := 0
	for b.Loop() {
		ctx, stop := context.WithCancel(b.Context())
		n := 0
		sub := driver.Subscription{Topic: topic, Group: rand.Text(), From: driver.FromBeginning, MaxInFlight: 512}
		err := broker.Subscribe(ctx, sub, func(d driver.Delivery) {
			if err := d.Ack(ctx); err != nil {
				b.Error(err)
			}
			if n++; n == total {
				stop()
			}
		})
		stop()
		if err != nil || n < total {
			b.Fatalf("got %d of %d messages, error %v", n, total, err)
		}
		rounds++
	}
	b.ReportMetric(float64(rounds*total)/b.Elapsed().Seconds(), "msg/s")
}

func benchBatch(topic string, first, n int) []driver.Message {
	data := make([]byte, 200)
	msgs := make([]driver.Message, n)
	for i := range msgs {
		id := topic + strconv.Itoa(first+i)
		msgs[i] = driver.Message{
			ID: id, Topic: topic, Key: strconv.Itoa((first + i) % 100), Data: data,
			Headers: driver.Headers{
				{Name: driver.HeaderID, Value: id}, {Name: driver.HeaderType, Value: topic}, {Name: driver.HeaderContentType, Value: "application/json"},
			},
		}
	}
	return msgs
}
