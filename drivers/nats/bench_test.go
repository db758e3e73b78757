package nats_test

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/messaging/driver"
)

// BenchmarkPublish compares single messages with atomic batches of any size, at both settings of
// the server's fsync. Where the two cross with fsync is the driver's limit for batches. All else
// about speed is in bench/, beside the bare clients.
func BenchmarkPublish(b *testing.B) {
	for _, sync := range []bool{true, false} {
		for _, batch := range []int{1, 16, 24, 32, 40, 48, 64, 500} {
			for _, atomic := range []bool{true, false} { // innermost: one after the other
				b.Run(fmt.Sprintf("always=%t/batch=%d/atomic=%t", sync, batch, atomic), func(b *testing.B) {
					s := startServer(b, func(o *server.Options) { o.SyncAlways = sync })
					broker := open(b, fmt.Sprintf("%s?atomic=%t", s.s.ClientURL(), atomic))
					b.Cleanup(func() { closeNow(b, broker) })
					nats.SetAtomicMin(broker.backend, 2)
					benchmarkPublish(b, broker, batch)
				})
			}
		}
	}
}

// benchmarkPublish publishes messages of about 330 bytes with 100 different keys, batch by batch.
func benchmarkPublish(b *testing.B, broker driver.Broker, batch int) {
	b.Helper()
	topic := "bench." + rand.Text()
	if err := broker.Declare(b.Context(), driver.Subscription{Topic: topic}); err != nil {
		b.Fatal(err)
	}
	data, msgs, n := make([]byte, 200), make([]driver.Message, batch), 0
	for b.Loop() {
		for i := range msgs {
			id := topic + strconv.Itoa(n)
			msgs[i] = driver.Message{
				ID: id, Topic: topic, Key: strconv.Itoa(n % 100), Data: data,
				Headers: driver.Headers{
					{Name: driver.HeaderID, Value: id}, {Name: driver.HeaderType, Value: topic}, {Name: driver.HeaderContentType, Value: "application/json"},
				},
			}
			n++
		}
		if err := broker.Publish(b.Context(), msgs); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
}
