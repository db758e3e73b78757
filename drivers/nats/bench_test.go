package nats_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

// BenchmarkPublish compares single messages with atomic batches of any size, at both settings of
// the server's fsync. Where the two cross with fsync is the driver's limit for batches.
func BenchmarkPublish(b *testing.B) {
	for _, sync := range []bool{true, false} {
		for _, batch := range []int{1, 16, 24, 32, 40, 48, 64, 500} {
			for _, atomic := range []bool{true, false} { // innermost: one after the other
				b.Run(fmt.Sprintf("always=%t/batch=%d/atomic=%t", sync, batch, atomic), func(b *testing.B) {
					s := startServer(b, func(o *server.Options) { o.SyncAlways = sync })
					broker := open(b, fmt.Sprintf("%s?atomic=%t", s.s.ClientURL(), atomic))
					b.Cleanup(func() { closeNow(b, broker) })
					nats.SetAtomicMin(broker.backend, 2)
					drivertest.BenchmarkPublish(b, broker, batch)
				})
			}
		}
	}
}

func BenchmarkConsume(b *testing.B) {
	s := startServer(b, nil)
	broker := open(b, s.s.ClientURL())
	b.Cleanup(func() { closeNow(b, broker) })
	drivertest.BenchmarkConsume(b, broker)
}
