//go:build servers

package kafkadriver_test

import (
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/kafkatest"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

func TestMain(m *testing.M) { kafkatest.Main(m) }

func TestConformanceReal(t *testing.T) { conformance(t, kafkatest.URL(t)) }

// TestConformanceRestart has a broker of its own, which the case kills twice in mid traffic.
func TestConformanceRestart(t *testing.T) {
	t.Parallel()
	s := kafkatest.Start(t)
	for _, c := range drivertest.Cases() {
		if c.Needs == nil || c.Needs(drivertest.Harness{}) || !c.Needs(drivertest.Harness{Restart: func(t *testing.T) { s.Restart(t) }}) {
			continue // not about restarts
		}
		t.Run(c.Name, func(t *testing.T) {
			h := drivertest.Harness{Broker: open(t, s.URL()), AckWait: testAckWait, Ordered: true, Restart: func(t *testing.T) { s.Restart(t) }, Wait: time.Minute}
			c.Run(t, h)
		})
	}
}
