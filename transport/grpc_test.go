package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/dependency"
	"github.com/kaptar/kaptar/internal/inproc"
)

// health is a service with one unary and one streaming method, whose answers the test decides.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	seen  atomic.Int32
	check func(ctx context.Context, service string) error
}

func (h *health) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	h.seen.Add(1)
	if h.check != nil {
		if err := h.check(ctx, r.Service); err != nil {
			return nil, err
		}
	}
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

func (h *health) Watch(r *grpc_health_v1.HealthCheckRequest, s grpc_health_v1.Health_WatchServer) error {
	h.seen.Add(1)
	switch r.Service {
	case "fail":
		return status.Error(codes.Unavailable, "no")
	case "away":
		s.SetTrailer(metadata.Pairs(dependency.Trailer, "bank"))
		return status.Error(codes.Unavailable, "the bank is away")
	case "quiet":
		<-s.Context().Done()
		return s.Context().Err()
	}
	for range 2 {
		if err := s.Send(&grpc_health_v1.HealthCheckResponse{}); err != nil {
			return err
		}
	}
	if r.Service == "endless" {
		<-s.Context().Done()
		return s.Context().Err()
	}
	return nil
}

// serve starts a gRPC server on loopback; stop ends it early.
func serve(t testing.TB, h *health) (address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(srv, h)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	stop = sync.OnceFunc(func() { srv.Stop(); <-done })
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func grpcListed(t testing.TB, addresses ...string) *discovery.Memory {
	t.Helper()
	m := new(discovery.Memory)
	for _, a := range addresses {
		if err := m.Register(t.Context(), discovery.Instance{ID: a, Service: "order-service", GRPC: a, HTTP: "unused:80"}); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func check(ctx context.Context, tr *Transport, service string) error {
	_, err := grpc_health_v1.NewHealthClient(tr.Conn("order-service")).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	return err
}

func TestUnary(t *testing.T) {
	noLeaks(t)
	h := &health{}
	h.check = func(ctx context.Context, service string) error {
		d, ok := ctx.Deadline()
		if left := time.Until(d); !ok || left <= time.Second || left > 5*time.Second {
			t.Errorf("the server sees a deadline in %v (%t), want the default of 5s", left, ok)
		}
		md, _ := metadata.FromIncomingContext(ctx)
		if len(md.Get("traceparent")) != 1 || strings.Join(md.Get("mine"), "") != "1" {
			t.Errorf("metadata at the server: %v", md)
		}
		if service == "missing" {
			return status.Error(codes.NotFound, "no such order")
		}
		return nil
	}
	address, _ := serve(t, h)
	tel := newTelemetry(t, io.Discard)
	tr := over(t, Options{Resolver: grpcListed(t, address), Telemetry: tel}, nil)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "mine", "1")
	for range 3 {
		if err := check(ctx, tr, ""); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		err := check(ctx, tr, "missing")
		if st, ok := status.FromError(err); !ok || st.Code() != codes.NotFound || st.Message() != "no such order" {
			t.Fatalf("got %v, want the server's own NotFound", err)
		}
	}
	if got := tr.State("order-service"); got != Closed {
		t.Errorf("after NotFound: %s, want closed", got)
	}
	for code, want := range map[string]float64{"OK": 3, "NotFound": 10} {
		if v, _ := metric(t, tel, "client_requests_total", "target=order-service", "protocol=grpc", "code="+code); v != want {
			t.Errorf("client_requests_total for %s = %v, want %v", code, v, want)
		}
	}
}

func TestWhichGRPCCodesAreFailures(t *testing.T) {
	t.Parallel()
	for code, want := range map[codes.Code]BreakerState{
		codes.Unavailable: Open, codes.DeadlineExceeded: Open, codes.Internal: Open, codes.ResourceExhausted: Open,
		codes.NotFound: Closed, codes.InvalidArgument: Closed, codes.Unknown: Closed, codes.Aborted: Closed,
		codes.Canceled: Closed, codes.Unauthenticated: Closed, codes.FailedPrecondition: Closed, codes.Unimplemented: Closed,
	} {
		h := &health{check: func(context.Context, string) error { return status.Error(code, "x") }}
		address, _ := serve(t, h)
		tr := over(t, Options{Resolver: grpcListed(t, address)}, nil)
		for range 5 {
			if err := check(t.Context(), tr, ""); status.Code(err) != code {
				t.Errorf("got %v, want %v", err, code)
			}
		}
		if got := tr.State("order-service"); got != want {
			t.Errorf("after five times %v: %s, want %s", code, got, want)
		}
		if want != Open {
			continue
		}
		err := check(t.Context(), tr, "")
		if !errors.Is(err, ErrOpen) || status.Code(err) != codes.Unavailable || h.seen.Load() != 5 {
			t.Errorf("%v: sixth call %v after %d calls, want ErrOpen with Unavailable after 5", code, err, h.seen.Load())
		}
	}
}

func TestBothFacesShareOneBreaker(t *testing.T) {
	t.Parallel()
	h := &health{check: func(context.Context, string) error { return status.Error(codes.Unavailable, "x") }}
	address, _ := serve(t, h)
	tr := over(t, Options{Resolver: grpcListed(t, address)}, func(r *http.Request) (*http.Response, error) { return reply(r, 500), nil })
	for range 2 {
		_ = check(t.Context(), tr, "")
	}
	for range 3 {
		if status, err := do(t, tr, "POST", orders, nil); status != 500 {
			t.Fatalf("got %d, %v, want 500", status, err)
		}
	}
	if err := check(t.Context(), tr, ""); !errors.Is(err, ErrOpen) {
		t.Errorf("gRPC after two gRPC and three HTTP failures: %v, want ErrOpen", err)
	}
	if _, err := do(t, tr, "GET", orders, nil); !errors.Is(err, ErrOpen) {
		t.Errorf("HTTP after two gRPC and three HTTP failures: %v, want ErrOpen", err)
	}
}

func TestGRPCDeadlineAndCancel(t *testing.T) {
	t.Parallel()
	h := &health{check: func(ctx context.Context, service string) error {
		if service == "fail" {
			return status.Error(codes.Internal, "x")
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	address, _ := serve(t, h)
	tr := over(t, Options{Resolver: grpcListed(t, address)}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := check(ctx, tr, ""); status.Code(err) != codes.DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "order-service") {
		t.Errorf("got %v, want DeadlineExceeded both ways, naming the target", err)
	}
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Millisecond, cancel)
		if err := check(ctx, tr, ""); status.Code(err) != codes.Canceled || !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want Canceled both ways", err)
		}
	}
	if got := tr.State("order-service"); got != Closed {
		t.Errorf("after calls that their caller cancelled: %s, want closed", got)
	}
	fresh := over(t, Options{Resolver: grpcListed(t, address)}, nil)
	for i := range 5 { // a cancelled call among them is no success either
		if i == 4 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(5*time.Millisecond, cancel)
			_ = check(ctx, fresh, "")
		}
		_ = check(t.Context(), fresh, "fail")
	}
	if got := fresh.State("order-service"); got != Open {
		t.Errorf("five failures with a cancelled call between: %s, want open", got)
	}
}

// TestTheCalleeHasLessTime: so that its answer "too late" still finds its caller there.
func TestTheCalleeHasLessTime(t *testing.T) {
	t.Parallel()
	var left time.Duration
	h := &health{check: func(ctx context.Context, _ string) error {
		at, _ := ctx.Deadline()
		left = time.Until(at)
		return nil
	}}
	channel := inproc.NewChannel(nil, nil)
	grpc_health_v1.RegisterHealthServer(channel, h)
	local := new(Local)
	local.Add("a", nil, channel)
	for of, want := range map[string]time.Duration{"its caller": 995 * time.Millisecond, "its target": 595 * time.Millisecond, "an attempt": 395 * time.Millisecond, "none": time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			set := Settings{Timeout: 600 * time.Millisecond}
			ctx, cancel := context.WithTimeout(WithIdempotent(t.Context()), time.Second)
			defer cancel()
			switch of {
			case "its caller":
				set = Settings{}
			case "an attempt":
				set.Retry.AttemptTimeout = 400 * time.Millisecond
			case "none":
				set.Timeout = 3 * time.Millisecond
			}
			tr := over(t, Options{Resolver: listed("a"), Local: local, Default: set}, nil)
			if err := check(ctx, tr, ""); err != nil || left != want {
				t.Errorf("the deadline is that of %s: %v, and the callee has %v, want %v", of, err, left, want)
			}
		})
	}
}

func TestGRPCRepeats(t *testing.T) {
	t.Parallel()
	unavailable := func(h *health, times int32, trailer ...string) func(context.Context, string) error {
		return func(ctx context.Context, _ string) error {
			if h.seen.Load() > times {
				return nil
			}
			_ = grpc.SetTrailer(ctx, metadata.Pairs(trailer...))
			return status.Error(codes.Unavailable, "x")
		}
	}
	for name, test := range map[string]struct {
		idempotent bool
		trailer    []string
		want       int32
		code       codes.Code
	}{
		"not marked":        {false, nil, 1, codes.Unavailable},
		"marked":            {true, nil, 3, codes.OK},
		"told not to":       {true, []string{"grpc-retry-pushback-ms", "-1"}, 1, codes.Unavailable},
		"told to wait":      {true, []string{"grpc-retry-pushback-ms", "1"}, 3, codes.OK},
		"told nonsense":     {true, []string{"grpc-retry-pushback-ms", "soon"}, 1, codes.Unavailable},
		"told for too long": {true, []string{"grpc-retry-pushback-ms", "60000"}, 1, codes.Unavailable},
	} {
		h := &health{}
		h.check = unavailable(h, 2, test.trailer...)
		address, _ := serve(t, h)
		tr := over(t, Options{Resolver: grpcListed(t, address)}, nil)
		ctx := t.Context()
		if test.idempotent {
			ctx = WithIdempotent(ctx)
		}
		if err := check(ctx, tr, ""); status.Code(err) != test.code || h.seen.Load() != test.want {
			t.Errorf("%s: %v after %d attempts, want %v after %d", name, err, h.seen.Load(), test.code, test.want)
		}
	}
}

func TestACallThatReachedNoServerIsRepeated(t *testing.T) {
	t.Parallel()
	h := &health{}
	address, _ := serve(t, h)
	const dead = "127.0.0.1:1" // which no other test is given
	for range 10 {             // not marked as idempotent, and yet none fails; a new transport has no reason to avoid the dead one
		tr := over(t, Options{Resolver: grpcListed(t, dead, address)}, nil)
		if err := check(t.Context(), tr, ""); err != nil {
			t.Fatal(err)
		}
		stream, err := grpc_health_v1.NewHealthClient(tr.Conn("order-service")).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			t.Fatalf("stream: %v", err)
		}
		for err == nil {
			_, err = stream.Recv()
		}
	}
	alone := over(t, Options{Resolver: grpcListed(t, dead)}, nil)
	if err := check(t.Context(), alone, ""); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "order-service") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("only a dead instance: %v, want Unavailable that names target and reason", err)
	}
	none := over(t, Options{}, nil)
	if err := check(t.Context(), none, ""); !errors.Is(err, ErrNoInstances) || status.Code(err) != codes.Unavailable {
		t.Errorf("no instance: %v, want ErrNoInstances with Unavailable", err)
	}
}

func TestStreams(t *testing.T) {
	noLeaks(t)
	h := &health{}
	address, _ := serve(t, h)
	tel := newTelemetry(t, io.Discard)
	tr := over(t, Options{Resolver: grpcListed(t, address), Telemetry: tel, Default: Settings{Timeout: time.Millisecond}}, nil)
	client := grpc_health_v1.NewHealthClient(tr.Conn("order-service"))
	inFlight := func() int64 { return tr.byName["order-service"].instances()[0].inFlight.Load() }

	s, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Context().Deadline(); ok {
		t.Error("the stream has a deadline that its caller did not set")
	}
	if got := inFlight(); got != 1 {
		t.Errorf("an open stream: %d in flight, want 1", got)
	}
	n := 0
	for ; err == nil; n++ {
		_, err = s.Recv()
	}
	if n != 3 || err != io.EOF || inFlight() != 0 {
		t.Errorf("%d receives, then %v, %d in flight; want 3, EOF, 0", n, err, inFlight())
	}

	ctx, cancel := context.WithCancel(t.Context())
	s, err = client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: "endless"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel() // and never receive again
	waitFor(t, "no stream in flight whose caller has gone", func() bool { return inFlight() == 0 })
	if got := tr.State("order-service"); got != Closed {
		t.Errorf("after a cancelled stream: %s, want closed", got)
	}
	for range 5 {
		s, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "fail"})
		if err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != codes.Unavailable {
			t.Errorf("got %v, want Unavailable", err)
		}
	}
	if _, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{}); !errors.Is(err, ErrOpen) {
		t.Errorf("after five failed streams: %v, want ErrOpen", err)
	}
	if v, _ := metric(t, tel, "client_requests_total", "protocol=grpc", "code=open"); v != 1 {
		t.Errorf("refused calls counted: %v, want 1", v)
	}
}

func TestGRPCInThisProcess(t *testing.T) {
	t.Parallel()
	h := &health{}
	channel := inproc.NewChannel(nil, nil)
	grpc_health_v1.RegisterHealthServer(channel, h)
	local := new(Local)
	m := new(discovery.Memory)
	_ = m.Register(t.Context(), discovery.Instance{ID: "a", Service: "order-service"}) // no address at all
	local.Add("a", nil, channel)
	tr := over(t, Options{Resolver: m, Local: local}, nil)
	if err := check(t.Context(), tr, ""); err != nil || h.seen.Load() != 1 {
		t.Errorf("got %v after %d calls, want one call", err, h.seen.Load())
	}
	s, err := grpc_health_v1.NewHealthClient(tr.Conn("order-service")).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = s.Recv()
	}
	if err != io.EOF {
		t.Errorf("stream ended with %v, want EOF", err)
	}
	h.check = func(context.Context, string) error { return status.Error(codes.Unavailable, "x") }
	for range 5 {
		_ = check(t.Context(), tr, "")
	}
	if err := check(t.Context(), tr, ""); !errors.Is(err, ErrOpen) {
		t.Errorf("after five failures in process: %v, want ErrOpen", err)
	}
}

func TestTheConnectionOfAnInstanceThatLeavesIsClosedAfterItsLastCall(t *testing.T) {
	noLeaks(t)
	inside, proceed := make(chan struct{}), make(chan struct{})
	h := &health{check: func(context.Context, string) error { inside <- struct{}{}; <-proceed; return nil }}
	first, _ := serve(t, h)
	second, _ := serve(t, &health{})
	m := grpcListed(t, first)
	tr := over(t, Options{Resolver: m}, nil)
	result := make(chan error)
	go func() { result <- check(t.Context(), tr, "") }()
	<-inside
	in := tr.byName["order-service"].instances()[0]
	_ = m.Register(t.Context(), discovery.Instance{ID: second, Service: "order-service", GRPC: second})
	_ = m.Deregister(t.Context(), discovery.Instance{ID: first, Service: "order-service"})
	for !in.gone.Load() {
		runtime.Gosched()
	}
	connected := func() bool {
		in.connMu.Lock()
		defer in.connMu.Unlock()
		return in.conn != nil
	}
	if !connected() {
		t.Error("the connection was closed under a call")
	}
	proceed <- struct{}{}
	if err := <-result; err != nil {
		t.Errorf("the call under way ended with %v, want no error", err)
	}
	if connected() {
		t.Error("the connection is still open after the last call")
	}
}
