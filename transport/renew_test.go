package transport

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/test/waittest"
)

// counted is a listener that knows how many connections it has accepted and how many are open.
type counted struct {
	net.Listener
	accepted, open atomic.Int64
}

func (c *counted) Accept() (net.Conn, error) {
	nc, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.accepted.Add(1)
	c.open.Add(1)
	return &countedConn{Conn: nc, of: c}, nil
}

type countedConn struct {
	net.Conn
	of   *counted
	once atomic.Bool
}

func (c *countedConn) Close() error {
	if !c.once.Swap(true) {
		c.of.open.Add(-1)
	}
	return c.Conn.Close()
}

func waitFor(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	waittest.Until(tb, what, done)
}

// TestRenew: calls go over new connections, and what is under way is not disturbed.
func TestRenew(t *testing.T) {
	noLeaks(t)
	var l [2]*counted
	for i := range l {
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l[i] = &counted{Listener: inner}
	}
	inside, proceed := make(chan struct{}, 1), make(chan struct{})
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/slow") {
			inside <- struct{}{}
			<-proceed
		}
	}))
	_ = web.Listener.Close()
	web.Listener = l[0]
	web.Start()
	rpc := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(rpc, &health{})
	go func() { _ = rpc.Serve(l[1]) }()
	m := new(discovery.Memory)
	_ = m.Register(t.Context(), discovery.Instance{ID: "a", Service: "order-service", HTTP: l[0].Addr().String(), GRPC: l[1].Addr().String()})
	// Calls that are held up are neither given up nor made again, however slow the machine is.
	tr := New(&Options{Resolver: m, Default: Settings{Timeout: time.Minute, Retry: RetrySettings{AttemptTimeout: time.Minute}}})
	for name, call := range map[string]func() error{
		"HTTP": func() error { _, err := do(t, tr, "GET", orders, nil); return err },
		"long HTTP": func() error {
			_, err := do(t, tr, "PUT", orders, strings.NewReader(strings.Repeat("x", 64<<10)))
			return err
		},
		"gRPC": func() error { return check(t.Context(), tr, "") },
	} {
		at := l[0]
		if name == "gRPC" {
			at = l[1]
		}
		for range 2 {
			if err := call(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		had := at.accepted.Load()
		tr.Renew()
		waitFor(t, name+": the old connection to close", func() bool { return at.open.Load() <= 1 })
		for range 2 {
			if err := call(); err != nil {
				t.Fatalf("%s, renewed: %v", name, err)
			}
		}
		if got := at.accepted.Load(); got != had+1 {
			t.Errorf("%s: %d connections before and %d after, want one more", name, had, got)
		}
	}
	stream, err := grpc_health_v1.NewHealthClient(tr.Conn("order-service")).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "endless"})
	if err != nil {
		t.Fatal(err)
	}
	slow := make(chan error, 2)
	bodies := []string{"", strings.Repeat("x", 64<<10)}
	for _, body := range bodies {
		go func() { _, err := do(t, tr, "PUT", orders+"/slow", strings.NewReader(body)); slow <- err }()
		<-inside
	}
	tr.Renew()
	if err := check(t.Context(), tr, ""); err != nil {
		t.Errorf("beside a stream: %v", err)
	}
	for _, body := range bodies {
		if _, err := do(t, tr, "PUT", orders, strings.NewReader(body)); err != nil {
			t.Errorf("beside a call: %v", err)
		}
	}
	for range bodies {
		if _, err := stream.Recv(); err != nil {
			t.Errorf("a stream from before: %v", err)
		}
		proceed <- struct{}{}
		if err := <-slow; err != nil {
			t.Errorf("a call from before: %v", err)
		}
	}
	waitFor(t, "the connections of the calls to close", func() bool { return l[0].open.Load() == 2 })
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	rpc.Stop()
	web.Close()
}
