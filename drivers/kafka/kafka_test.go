package kafka_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/drivers/kafka"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

// testAckWait is longer than a busy machine stands still, for then what is in flight comes again.
const testAckWait = 5 * time.Second

// fake starts a Kafka in this process: the protocol, groups and offsets, without replication.
func fake(tb testing.TB, opts ...kfake.Opt) (*kfake.Cluster, string) {
	tb.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		tb.Fatalf("kfake: %v", err)
	}
	tb.Cleanup(c.Close)
	return c, "kafka://" + strings.Join(c.ListenAddrs(), ",")
}

func open(tb testing.TB, url string) *kafka.Broker {
	tb.Helper()
	b, err := kafka.Open(tb.Context(), url, &kafka.Options{AckWait: testAckWait, Partitions: 4})
	if err != nil {
		tb.Fatalf("Open(%s) = %v", url, err)
	}
	return b
}

func closeNow(tb testing.TB, b *kafka.Broker) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		tb.Errorf("Close = %v", err)
	}
}

// linked opens a connection to the only broker at url, which tells its clients its own address, by
// way of a proxy.
func linked(t *testing.T, url string) (driver.Broker, drivertest.Link) {
	t.Helper()
	p := servertest.NewProxy(t, url[strings.LastIndexAny(url, "/@")+1:])
	b, err := kafka.Open(t.Context(), url, &kafka.Options{AckWait: testAckWait, Partitions: 4, Client: []kgo.Opt{
		kgo.Dialer(func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, p.Addr())
		}),
	}})
	if err != nil {
		t.Fatalf("Open(%s) by a proxy = %v", url, err)
	}
	return b, p
}

// conformance runs the suite.
func conformance(t *testing.T, url string) {
	for i, c := range drivertest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			if i > 0 { // the search for leaked goroutines goes first and alone
				t.Parallel()
			}
			h := drivertest.Harness{
				Broker: open(t, url), AckWait: testAckWait, Ordered: true, KeyAffinity: true,
				Open: func(t *testing.T) driver.Broker { return open(t, url) }, ProcessURL: url, Retention: 7 * 24 * time.Hour,
				Linked: func(t *testing.T) (driver.Broker, drivertest.Link) { return linked(t, url) },
			}
			if c.Needs != nil && !c.Needs(h) {
				closeNow(t, h.Broker.(*kafka.Broker))
				t.Skipf("%s: Kafka does not have it, or it is tested elsewhere", c.Name)
			}
			c.Run(t, h)
		})
	}
}

// TestConformance is not parallel: it begins with the search for leaked goroutines.
func TestConformance(t *testing.T) {
	_, url := fake(t)
	conformance(t, url)
}
