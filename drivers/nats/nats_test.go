package nats_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

// testAckWait is longer than a busy machine stands still, for then what is in flight comes again.
const testAckWait = 5 * time.Second

// A testServer is a real NATS server in this process, with JetStream on disk and sync always.
type testServer struct {
	dir  string
	opts func(*server.Options)
	s    *server.Server
	port int
}

func startServer(tb testing.TB, opts func(*server.Options)) *testServer {
	tb.Helper()
	s := &testServer{dir: tb.TempDir(), opts: opts, port: servertest.Port(tb)}
	s.start(tb)
	tb.Cleanup(s.stop)
	return s
}

func (s *testServer) start(tb testing.TB) {
	tb.Helper()
	opts := &server.Options{
		Host: "127.0.0.1", Port: s.port, JetStream: true, StoreDir: s.dir, SyncAlways: true, NoLog: true, NoSigs: true,
	}
	if s.opts != nil {
		s.opts(opts)
	}
	var err error
	if s.s, err = server.NewServer(opts); err != nil {
		tb.Fatalf("nats-server: %v", err)
	}
	s.s.Start()
	if !s.s.ReadyForConnections(20 * time.Second) {
		tb.Fatal("nats-server was not ready within 20s")
	}
}

func (s *testServer) stop() {
	s.s.Shutdown()
	s.s.WaitForShutdown()
}

func (s *testServer) restart(tb testing.TB) {
	tb.Helper()
	s.stop()
	s.start(tb)
}

// A testBroker is the broker of a backend of its own, which ends with it.
type testBroker struct {
	driver.Broker
	backend *nats.Backend
}

func (b *testBroker) Close(ctx context.Context) error { return b.backend.Close(ctx) }
func (b *testBroker) Healthy() error                  { return b.Broker.(driver.HealthReporter).Healthy() }

func (b *testBroker) Lag(ctx context.Context, sub driver.Subscription) ([]driver.PartitionLag, error) {
	return b.Broker.(driver.LagReporter).Lag(ctx, sub)
}

func (b *testBroker) Reset(ctx context.Context, sub driver.Subscription, to time.Time) error {
	return b.Broker.(driver.Resetter).Reset(ctx, sub, to)
}

func (b *testBroker) Retention(ctx context.Context, topic string) (time.Duration, error) {
	return b.Broker.(driver.Retainer).Retention(ctx, topic)
}

func openBroker(ctx context.Context, url string, opts *nats.Options) (*testBroker, error) {
	backend, err := nats.Open(ctx, url, opts)
	if err != nil {
		return nil, err
	}
	broker, err := backend.Broker()
	if err != nil {
		return nil, errors.Join(err, backend.Close(ctx))
	}
	return &testBroker{broker, backend}, nil
}

func open(tb testing.TB, url string) *testBroker {
	tb.Helper()
	parameter := "?ack_wait=" + testAckWait.String()
	if strings.Contains(url, "?") {
		parameter = strings.Replace(parameter, "?", "&", 1)
	}
	b, err := openBroker(tb.Context(), url+parameter, nil)
	if err != nil {
		tb.Fatalf("Open(%s) = %v", url, err)
	}
	return b
}

func harness(t *testing.T, url string) drivertest.Harness {
	return drivertest.Harness{
		Broker: open(t, url), AckWait: testAckWait, Ordered: true, Dedup: true, ProcessURL: url, Retention: 7 * 24 * time.Hour,
		Open: func(t *testing.T) driver.Broker { return open(t, url) },
		Linked: func(t *testing.T) (driver.Broker, drivertest.Link) {
			first, _, _ := strings.Cut(url[strings.LastIndexAny(url, "/@")+1:], ",")
			first, _, _ = strings.Cut(first, "?")
			p := servertest.NewProxy(t, first)
			servers, query, _ := strings.Cut(url, "?")
			servers = servers[:strings.LastIndexAny(servers, "/@")+1] + p.Addr()
			if query != "" {
				servers += "?" + query
			}
			return open(t, servers), p
		},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	drivertest.Run(t, func(t *testing.T) drivertest.Harness { return harness(t, s.s.ClientURL()) })
}

// TestConformanceRestart has servers of its own, which the cases stop and start.
func TestConformanceRestart(t *testing.T) {
	t.Parallel()
	for _, c := range drivertest.Cases() {
		if c.Needs == nil || c.Needs(drivertest.Harness{}) || !c.Needs(drivertest.Harness{Restart: func(*testing.T) {}}) {
			continue // not about restarts
		}
		for _, mode := range []string{"?atomic=true", "?atomic=false"} {
			t.Run(c.Name+mode, func(t *testing.T) {
				t.Parallel()
				s := startServer(t, nil)
				h := harness(t, s.s.ClientURL()+mode)
				nats.SetAtomicMin(h.Broker.(*testBroker).backend, 16) // the case's batches have 20
				h.Restart = func(t *testing.T) { s.restart(t) }
				c.Run(t, h)
			})
		}
	}
}

func closeNow(tb testing.TB, b *testBroker) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		tb.Errorf("Close = %v", err)
	}
}
