package natsdriver_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaptar/kaptar/messaging/drivertest"
)

// BenchmarkPublish compares single messages with atomic batches, at both settings of the server's fsync.
func BenchmarkPublish(b *testing.B) {
	for _, sync := range []bool{true, false} {
		for _, atomic := range []bool{true, false} {
			for _, batch := range []int{1, 16, 500} {
				b.Run(fmt.Sprintf("always=%t/atomic=%t/batch=%d", sync, atomic, batch), func(b *testing.B) {
					s := startServer(b, func(o *server.Options) { o.SyncAlways = sync })
					broker := open(b, fmt.Sprintf("%s?atomic=%t", s.s.ClientURL(), atomic))
					b.Cleanup(func() { closeNow(b, broker) })
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
