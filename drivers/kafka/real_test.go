package kafka_test

import (
	"context"
	"testing"
	"time"

	"github.com/kaptar/kaptar/drivers/kafka"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

func TestMain(m *testing.M) {
	drivertest.Process(func(ctx context.Context, url string) (driver.Broker, error) {
		return kafka.Open(ctx, url, &kafka.Options{AckWait: testAckWait, Partitions: 4})
	})
	servertest.Main(m)
}

func TestConformanceReal(t *testing.T) { conformance(t, servertest.Shared(t, servers.Kafka).URL()) }

// TestConformanceRestart has a broker of its own, which the case kills twice in mid traffic.
func TestConformanceRestart(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servers.Kafka)
	again := func(t *testing.T) { restart(t, s) }
	for _, c := range drivertest.Cases() {
		if c.Needs == nil || c.Needs(drivertest.Harness{}) || !c.Needs(drivertest.Harness{Restart: again}) {
			continue // not about restarts
		}
		t.Run(c.Name, func(t *testing.T) {
			h := drivertest.Harness{Broker: open(t, s.URL()), AckWait: testAckWait, Ordered: true, Restart: again, Wait: time.Minute}
			c.Run(t, h)
		})
	}
}

func kill(t *testing.T, s *servers.Server) {
	t.Helper()
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
}

func restart(t *testing.T, s *servers.Server) {
	t.Helper()
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}
