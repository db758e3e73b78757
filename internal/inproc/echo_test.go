package inproc_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kaptar/kaptar/internal/inproc"
)

type text = wrapperspb.StringValue

// echo is a service whose methods are set by each test.
type echo struct {
	unary  func(context.Context, *text) (*text, error)
	stream func(grpc.ServerStream) error
}

func newEcho() *echo {
	return &echo{unary: func(_ context.Context, in *text) (*text, error) { return in, nil }}
}

func echoDesc() *grpc.ServiceDesc {
	stream := func(srv any, ss grpc.ServerStream) error { return srv.(*echo).stream(ss) }
	return &grpc.ServiceDesc{
		ServiceName: "test.Echo",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Unary",
			Handler: func(srv any, ctx context.Context, dec func(any) error, ic grpc.UnaryServerInterceptor) (any, error) {
				in := new(text)
				if err := dec(in); err != nil {
					return nil, err
				}
				handler := func(ctx context.Context, req any) (any, error) { return srv.(*echo).unary(ctx, req.(*text)) }
				if ic == nil {
					return handler(ctx, in)
				}
				return ic(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/test.Echo/Unary"}, handler)
			},
		}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Up", Handler: stream, ClientStreams: true},
			{StreamName: "Down", Handler: stream, ServerStreams: true},
			{StreamName: "Both", Handler: stream, ClientStreams: true, ServerStreams: true},
		},
	}
}

var (
	up   = &grpc.StreamDesc{StreamName: "Up", ClientStreams: true}
	down = &grpc.StreamDesc{StreamName: "Down", ServerStreams: true}
	both = &grpc.StreamDesc{StreamName: "Both", ClientStreams: true, ServerStreams: true}
)

// dialLoopback starts a grpc-go server with e on loopback.
func dialLoopback(
	tb testing.TB, e *echo, unary grpc.UnaryServerInterceptor, opts ...grpc.ServerOption,
) *grpc.ClientConn {
	tb.Helper()
	if e == nil {
		e = newEcho()
	}
	if unary != nil {
		opts = append(opts, grpc.UnaryInterceptor(unary))
	}
	srv := grpc.NewServer(opts...)
	srv.RegisterService(echoDesc(), e)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
	})
	conn.Connect() // so that no test's deadline is spent on it
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		conn.WaitForStateChange(tb.Context(), state)
	}
	return conn
}

// onBothChannels runs check against the service in the process and against a grpc-go server on
// loopback: what both sides see must be the same. The run in the process is in a bubble, which does
// not end while a goroutine is left.
func onBothChannels(
	t *testing.T, newService func() *echo, check func(t *testing.T, e *echo, cc grpc.ClientConnInterface),
) {
	t.Helper()
	t.Parallel()
	t.Run("inproc", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			e, ch := newService(), inproc.NewChannel(nil, nil)
			ch.RegisterService(echoDesc(), e)
			check(t, e, ch)
		})
	})
	t.Run("loopback", func(t *testing.T) {
		t.Parallel()
		e := newService()
		check(t, e, dialLoopback(t, e, nil))
	})
}
