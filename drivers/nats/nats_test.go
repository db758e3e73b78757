package natsdriver_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

const testAckWait = 2 * time.Second

// A testServer is a real NATS server in this process, with JetStream on disk and sync always.
type testServer struct {
	dir  string
	opts func(*server.Options)
	s    *server.Server
	port int
}

func startServer(tb testing.TB, opts func(*server.Options)) *testServer {
	tb.Helper()
	s := &testServer{dir: tb.TempDir(), opts: opts, port: server.RANDOM_PORT}
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
	if !opts.DontListen {
		s.port = s.s.Addr().(*net.TCPAddr).Port
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

func open(tb testing.TB, url string) *natsdriver.Broker {
	tb.Helper()
	b, err := natsdriver.Open(tb.Context(), url, &natsdriver.Options{AckWait: testAckWait})
	if err != nil {
		tb.Fatalf("Open(%s) = %v", url, err)
	}
	return b
}

func harness(t *testing.T, url string) drivertest.Harness {
	return drivertest.Harness{
		Broker: open(t, url), AckWait: testAckWait, Ordered: true, Dedup: true,
		Open: func(t *testing.T) driver.Broker { return open(t, url) },
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
				natsdriver.SetAtomicMin(h.Broker.(*natsdriver.Broker), 16) // the case's batches have 20
				h.Restart = func(t *testing.T) { s.restart(t) }
				c.Run(t, h)
			})
		}
	}
}

func closeNow(tb testing.TB, b *natsdriver.Broker) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		tb.Errorf("Close = %v", err)
	}
}
