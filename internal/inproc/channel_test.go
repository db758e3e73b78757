package inproc_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kaptar/kaptar/internal/inproc"
)

const unaryName = "/test.Echo/Unary"

func call(ctx context.Context, cc grpc.ClientConnInterface, in string, opts ...grpc.CallOption) (string, error) {
	out := new(text)
	err := cc.Invoke(ctx, unaryName, wrapperspb.String(in), out, opts...)
	return out.GetValue(), err
}

// wantStatus fails the test unless err is a status with this code and, unless it is empty, this
// message.
func wantStatus(t *testing.T, what string, err error, code codes.Code, message string) {
	t.Helper()
	s, ok := status.FromError(err)
	if !ok || s.Code() != code || message != "" && s.Message() != message {
		t.Errorf("%s: got %v, want %v %q", what, err, code, message)
	}
}

func TestUnaryMetadata(t *testing.T) {
	onBothChannels(t, func() *echo {
		return &echo{unary: func(ctx context.Context, in *text) (*text, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			p, ok := peer.FromContext(ctx)
			_, timed := ctx.Deadline()
			m, _ := grpc.Method(ctx)
			_ = grpc.SetHeader(ctx, metadata.Pairs("x-h", "1"))
			_ = grpc.SendHeader(ctx, metadata.Pairs("x-h", "2", "b-bin", "\x00\xff"))
			late := grpc.SetHeader(ctx, metadata.Pairs("x-h", "3")) != nil
			_ = grpc.SetTrailer(ctx, metadata.Pairs("x-t", "1"))
			_ = grpc.SetTrailer(ctx, metadata.Pairs("x-t", "2"))
			return wrapperspb.String(fmt.Sprint(in.GetValue(), md["x-req"], md["r-bin"], md["content-type"], md["te"], md["secret"],
				ok && p.Addr != nil, timed, m, late)), nil
		}}
	}, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ctx = metadata.AppendToOutgoingContext(ctx, "X-Req", "a", "x-req", "b", "r-bin", "\x01", "te", "forged", "content-type", "forged")
		ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("secret", "of the caller's own request"))
		var header, trailer metadata.MD
		var p peer.Peer
		var finished []error
		got, err := call(ctx, cc, "hi", grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&p),
			grpc.OnFinish(func(err error) { finished = append(finished, err) }))
		if want := "hi[a b] [\x01] [application/grpc] [] [] true true/test.Echo/Unarytrue"; got != want || err != nil {
			t.Errorf("got %q %v\nwant %q", got, err, want)
		}
		if got := fmt.Sprint(header["x-h"], header["b-bin"], header["content-type"], trailer["x-t"], len(trailer)); got != "[1 2] [\x00\xff] [application/grpc] [1 2] 1" {
			t.Errorf("header and trailer %q", got)
		}
		if p.Addr == nil {
			t.Error("no peer address")
		}
		if len(finished) != 1 || finished[0] != nil {
			t.Errorf("OnFinish was called with %v, want once with nil", finished)
		}
	})
}

func TestUnaryErrors(t *testing.T) {
	t.Parallel()
	detailed, err := status.New(codes.FailedPrecondition, "no stock").WithDetails(&errdetails.ErrorInfo{Reason: "SKU"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		err     error
		code    codes.Code
		message string
	}{
		{status.Error(codes.NotFound, "no user 7"), codes.NotFound, "no user 7"},
		{fmt.Errorf("store: %w", status.Error(codes.NotFound, "no user 7")), codes.NotFound, "store: rpc error: code = NotFound desc = no user 7"},
		{errors.New("plain"), codes.Unknown, "plain"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, "context deadline exceeded"},
		{fmt.Errorf("db: %w", context.Canceled), codes.Canceled, "db: context canceled"},
		{detailed.Err(), codes.FailedPrecondition, "no stock"},
	} {
		t.Run(tc.code.String(), func(t *testing.T) {
			onBothChannels(t, func() *echo {
				return &echo{unary: func(ctx context.Context, _ *text) (*text, error) {
					_ = grpc.SetHeader(ctx, metadata.Pairs("x-h", "1"))
					_ = grpc.SetTrailer(ctx, metadata.Pairs("x-t", "1"))
					return nil, tc.err
				}}
			}, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
				var header, trailer metadata.MD
				_, err := call(t.Context(), cc, "", grpc.Header(&header), grpc.Trailer(&trailer))
				wantStatus(t, tc.err.Error(), err, tc.code, tc.message)
				if got := fmt.Sprint(header["x-h"], trailer["x-t"]); got != "[1] [1]" {
					t.Errorf("header and trailer with an error: %s, want [1] [1]", got)
				}
				if got, want := len(status.Convert(err).Details()), len(status.Convert(tc.err).Details()); got != want {
					t.Errorf("%d details, want %d", got, want)
				}
			})
		})
	}
}

func TestUnimplemented(t *testing.T) {
	onBothChannels(t, newEcho, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
		for _, m := range []string{"/test.Echo/Nope", "/nope.Nope/Unary"} {
			wantStatus(t, "Invoke "+m, cc.Invoke(t.Context(), m, new(text), new(text)), codes.Unimplemented, "")
			cs, err := cc.NewStream(t.Context(), both, m)
			if err != nil {
				t.Fatalf("NewStream %s: %v", m, err)
			}
			if h, err := cs.Header(); len(h["content-type"]) > 1 || err != nil {
				t.Errorf("Header of %s: %v %v", m, h, err)
			}
			wantStatus(t, "stream "+m, cs.RecvMsg(new(text)), codes.Unimplemented, "")
		}
	})
}

func TestUnaryDeadlineAndCancel(t *testing.T) {
	onBothChannels(t, func() *echo {
		return &echo{unary: func(ctx context.Context, _ *text) (*text, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
	}, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := call(ctx, cc, "")
		wantStatus(t, "deadline", err, codes.DeadlineExceeded, "")
		_, err = call(ctx, cc, "")
		wantStatus(t, "deadline long past", err, codes.DeadlineExceeded, "")

		ctx, cancel = context.WithCancel(t.Context())
		timer := time.AfterFunc(20*time.Millisecond, cancel)
		defer timer.Stop()
		_, err = call(ctx, cc, "")
		wantStatus(t, "cancel", err, codes.Canceled, "")
	})
}

func TestMessageSizes(t *testing.T) {
	onBothChannels(t, func() *echo {
		return &echo{unary: func(_ context.Context, in *text) (*text, error) {
			if in.GetValue() == "big" {
				return wrapperspb.String(strings.Repeat("x", 5<<20)), nil
			}
			return in, nil
		}}
	}, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
		_, err := call(t.Context(), cc, strings.Repeat("x", 5<<20))
		wantStatus(t, "request of 5 MiB", err, codes.ResourceExhausted, "")
		_, err = call(t.Context(), cc, "big")
		wantStatus(t, "reply of 5 MiB", err, codes.ResourceExhausted, "")
		if got, err := call(t.Context(), cc, "big", grpc.MaxCallRecvMsgSize(6<<20)); len(got) != 5<<20 {
			t.Errorf("reply of 5 MiB with 6 allowed: %d bytes, %v", len(got), err)
		}
		_, err = call(t.Context(), cc, "hello", grpc.MaxCallSendMsgSize(4))
		wantStatus(t, "request over the client's own limit", err, codes.ResourceExhausted, "")
	})
}

func TestBadMetadataIsRefused(t *testing.T) {
	onBothChannels(t, newEcho, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
		for _, kv := range [][2]string{{"a b", "1"}, {"a", "x\ny"}, {"a", "é"}} {
			_, err := call(metadata.AppendToOutgoingContext(t.Context(), kv[0], kv[1]), cc, "")
			wantStatus(t, fmt.Sprintf("metadata %q", kv), err, codes.Internal, "")
		}
	})
}

type token string

func (k token) GetRequestMetadata(_ context.Context, uri ...string) (map[string]string, error) {
	if k == "" {
		return nil, errors.New("no token")
	}
	return map[string]string{"Authorization": string(k)}, nil
}

func (token) RequireTransportSecurity() bool { return false }

func TestCredentialsOfACall(t *testing.T) {
	onBothChannels(t, func() *echo {
		return &echo{unary: func(ctx context.Context, _ *text) (*text, error) {
			return wrapperspb.String(fmt.Sprint(metadata.ValueFromIncomingContext(ctx, "authorization"))), nil
		}}
	}, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
		if got, err := call(t.Context(), cc, "", grpc.PerRPCCredentials(token("Bearer 1"))); got != "[Bearer 1]" {
			t.Errorf("got %q %v, want [Bearer 1]", got, err)
		}
		_, err := call(t.Context(), cc, "", grpc.PerRPCCredentials(token("")))
		wantStatus(t, "failing credentials", err, codes.Internal, "")
	})
}

// inChannel runs check in a bubble with e in the process.
func inChannel(t *testing.T, unary grpc.UnaryServerInterceptor, stream grpc.StreamServerInterceptor,
	check func(t *testing.T, e *echo, ch *inproc.Channel),
) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, ch := newEcho(), inproc.NewChannel(unary, stream)
		ch.RegisterService(echoDesc(), e)
		check(t, e, ch)
	})
}

func TestUnaryCancelReturnsThoughTheHandlerGoesOn(t *testing.T) {
	inChannel(t, nil, nil, func(t *testing.T, e *echo, ch *inproc.Channel) {
		e.unary = func(ctx context.Context, in *text) (*text, error) {
			time.Sleep(time.Hour) // synctest: the bubble's clock
			return in, nil
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := call(ctx, ch, "")
		wantStatus(t, "deadline", err, codes.DeadlineExceeded, "")
		if took := time.Since(start); took != time.Second {
			t.Errorf("returned after %v, want 1s", took)
		}
		time.Sleep(time.Hour)
	})
}

func TestUnarySharesNothing(t *testing.T) {
	inChannel(t, nil, nil, func(t *testing.T, e *echo, ch *inproc.Channel) {
		reply := wrapperspb.String("reply")
		e.unary = func(ctx context.Context, in *text) (*text, error) {
			if v := ctx.Value(key{}); v != nil {
				t.Errorf("the handler sees the caller's value %v", v)
			}
			md, _ := metadata.FromIncomingContext(ctx)
			md["x"][0] = "changed"
			in.Value = "changed"
			return reply, nil
		}
		in, out := wrapperspb.String("request"), new(text)
		md := metadata.Pairs("x", "1")
		ctx := metadata.NewOutgoingContext(context.WithValue(t.Context(), key{}, "secret"), md)
		if err := ch.Invoke(ctx, unaryName, in, out); err != nil {
			t.Fatal(err)
		}
		out.Value += "!"
		if in.GetValue() != "request" || reply.GetValue() != "reply" || md["x"][0] != "1" {
			t.Errorf("request %v, reply %v, metadata %v were changed by the other side", in, reply, md)
		}
	})
}

func TestUnaryPanicIsInternal(t *testing.T) {
	inChannel(t, nil, nil, func(t *testing.T, e *echo, ch *inproc.Channel) {
		e.unary = func(context.Context, *text) (*text, error) { panic("kaboom") }
		_, err := call(t.Context(), ch, "")
		wantStatus(t, "panic", err, codes.Internal, "inproc: handler of /test.Echo/Unary panicked: kaboom")
	})
}

func TestInterceptors(t *testing.T) {
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		resp, err := next(ctx, wrapperspb.String(req.(*text).GetValue()+" via "+info.FullMethod))
		return resp, err
	}
	stream := func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if !info.IsServerStream || info.IsClientStream || info.FullMethod != "/test.Echo/Down" {
			return fmt.Errorf("info %+v", info)
		}
		if err := ss.SendMsg(wrapperspb.String("before")); err != nil {
			return err
		}
		return next(srv, ss)
	}
	inChannel(t, unary, stream, func(t *testing.T, e *echo, ch *inproc.Channel) {
		if got, err := call(t.Context(), ch, "hi"); got != "hi via /test.Echo/Unary" {
			t.Errorf("unary: %q %v", got, err)
		}
		e.stream = func(ss grpc.ServerStream) error { return ss.SendMsg(wrapperspb.String("after")) }
		cs, err := ch.NewStream(t.Context(), down, "/test.Echo/Down")
		if err != nil {
			t.Fatal(err)
		}
		if got := drain(t, cs); got != "before after EOF" {
			t.Errorf("stream: %s, want before after EOF", got)
		}
	})
}

func TestRegisterTwicePanics(t *testing.T) {
	t.Parallel()
	ch := inproc.NewChannel(nil, nil)
	ch.RegisterService(echoDesc(), newEcho())
	defer func() {
		if recover() == nil {
			t.Error("a second registration did not panic")
		}
	}()
	ch.RegisterService(echoDesc(), newEcho())
}

func TestNotAMessage(t *testing.T) {
	onBothChannels(t, newEcho, func(t *testing.T, _ *echo, cc grpc.ClientConnInterface) {
		wantStatus(t, "request", cc.Invoke(t.Context(), unaryName, "text", new(text)), codes.Internal, "")
		wantStatus(t, "reply", cc.Invoke(t.Context(), unaryName, new(text), "text"), codes.Internal, "")
	})
}

func TestContextEndsWithTheHandler(t *testing.T) {
	inChannel(t, nil, nil, func(t *testing.T, e *echo, ch *inproc.Channel) {
		ctxs := make(chan context.Context, 3)
		e.unary = func(ctx context.Context, in *text) (*text, error) { ctxs <- ctx; return in, nil }
		e.stream = func(ss grpc.ServerStream) error { ctxs <- ss.Context(); return nil }
		if _, err := call(t.Context(), ch, ""); err != nil {
			t.Error(err)
		}
		if got := drain(t, open(t.Context(), t, ch, both)); got != "EOF" {
			t.Errorf("stream: %s, want EOF", got)
		}
		h := func(_ http.ResponseWriter, r *http.Request) { ctxs <- r.Context() }
		if _, err := inproc.RoundTripper(http.HandlerFunc(h)).RoundTrip(newRequest(t, "GET", "http://s/", nil)); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		for _, what := range []string{"unary", "stream", "HTTP"} {
			if err := (<-ctxs).Err(); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: the context of a handler that has returned: %v, want context.Canceled", what, err)
			}
		}
	})
}
