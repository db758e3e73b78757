package server_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kaptar/kaptar/server"
)

// talk is an echo whose answers depend on the question.
func talk(seen *trace.SpanContext) echo {
	return echo{
		onSay: func(ctx context.Context, s string) (string, error) {
			*seen = trace.SpanContextFromContext(ctx)
			switch s {
			case "panic":
				panic("boom")
			case "not found":
				return "", status.Error(codes.NotFound, "no such thing")
			case "plain error":
				return "", errors.New("plain")
			case "wait":
				<-ctx.Done()
				return "", ctx.Err()
			}
			return "you said " + s, nil
		},
		onWatch: func(ss grpc.ServerStream) error {
			*seen = trace.SpanContextFromContext(ss.Context())
			in := &wrapperspb.StringValue{}
			if err := ss.RecvMsg(in); err != nil {
				return err
			}
			if in.Value == "panic" {
				panic("boom")
			}
			return ss.SendMsg(in)
		},
	}
}

func TestRPCIsMeasuredLoggedAndTraced(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	var seen trace.SpanContext
	b.GRPC().RegisterService(&echoDesc, talk(&seen))
	b.start(t)
	n := 0.0
	for name, conn := range map[string]grpc.ClientConnInterface{"network": b.dial(t), "in process": b.InProcess()} {
		n++
		ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+parentTrace+"-b7ad6b7169203331-01")
		for question, want := range map[string]codes.Code{
			"hi": codes.OK, "not found": codes.NotFound, "plain error": codes.Unknown, "panic": codes.Internal,
		} {
			b.log.Reset()
			got, err := say(ctx, conn, question)
			if status.Code(err) != want || want == codes.OK && got != "you said hi" {
				t.Errorf("%s: %q answered %q, %v, want %v", name, question, got, err, want)
			}
			if strings.Contains(status.Convert(err).Message(), "boom") {
				t.Errorf("%s: the panic's value was told to the client: %v", name, err)
			}
			eventually(t, "a line in the log", func() bool { return len(b.lines(t, "rpc")) == 1 })
			line := b.lines(t, "rpc")[0]
			if line["method"] != "test.v1.Echo/Say" || line["code"] != want.String() || line["trace_id"] != parentTrace || line["span_id"] != seen.SpanID().String() {
				t.Errorf("%s: %q logged as %v", name, question, line)
			}
			if p := b.lines(t, "panic in RPC"); (want == codes.Internal) != (len(p) == 1) || len(p) == 1 && !strings.Contains(p[0]["stack"].(string), "rpc_test.go") {
				t.Errorf("%s: %q: panics logged: %v", name, question, p)
			}
			labels := prometheus.Labels{"service": "users", "method": "test.v1.Echo/Say", "code": want.String()}
			eventually(t, "the RPC to be counted", func() bool { return b.metric(t, "rpc_requests_total", labels) == n })
		}
		if got := b.metric(t, "rpc_request_duration_seconds", prometheus.Labels{"service": "users", "method": "test.v1.Echo/Say"}); got != 4*n {
			t.Errorf("%s: %v durations, want %v", name, got, 4*n)
		}
		if seen.TraceID().String() != parentTrace || seen.IsRemote() {
			t.Errorf("%s: handler's span is %v, want one of its own in the caller's trace", name, seen)
		}
		lines := 1 // of the last RPC
		for question, want := range map[string]codes.Code{"hi": codes.OK, "panic": codes.Internal} {
			seen = trace.SpanContext{}
			if err := watchOnce(ctx, conn, question); status.Code(err) != want {
				t.Errorf("%s: stream %q: %v, want %v", name, question, err, want)
			}
			if seen.TraceID().String() != parentTrace {
				t.Errorf("%s: stream in trace %v", name, seen.TraceID())
			}
			labels := prometheus.Labels{"service": "users", "method": "test.v1.Echo/Watch", "code": want.String()}
			eventually(t, "the stream to be counted", func() bool { return b.metric(t, "rpc_requests_total", labels) == n })
			lines++
			eventually(t, "the stream's line in the log", func() bool { return len(b.lines(t, "rpc")) == lines }) // before it is reset
		}
	}
}

func watchOnce(ctx context.Context, conn grpc.ClientConnInterface, s string) error {
	stream, err := conn.NewStream(ctx, watchDesc, watchMethod)
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(wrapperspb.String(s)), stream.CloseSend()); err != nil {
		return err
	}
	return stream.RecvMsg(&wrapperspb.StringValue{})
}

func TestRPCDeadline(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{Timeout: 3 * time.Second})
	b.GRPC().RegisterService(&echoDesc, talk(&trace.SpanContext{}))
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := say(t.Context(), b.InProcess(), "wait")
		if status.Code(err) != codes.DeadlineExceeded || time.Since(start) != 3*time.Second {
			t.Errorf("without a deadline of the caller: %v after %v, want DeadlineExceeded after 3 s", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		start = time.Now()
		_, err = say(ctx, b.InProcess(), "wait")
		if status.Code(err) != codes.DeadlineExceeded || time.Since(start) != 8*time.Second {
			t.Errorf("with one of 8 s: %v after %v", err, time.Since(start))
		}
		synctest.Wait()
	})
}

func TestGRPCHealthFollowsReadiness(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.GRPC().RegisterService(&echoDesc, talk(&trace.SpanContext{}))
	b.start(t)
	check := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, conn := range []grpc.ClientConnInterface{b.dial(t), b.InProcess()} {
			for _, service := range []string{"", "test.v1.Echo"} {
				got, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
				if err != nil || got.Status != want {
					t.Errorf("health of %q = %v, %v, want %v", service, got, err, want)
				}
			}
		}
	}
	check(healthpb.HealthCheckResponse_NOT_SERVING)
	b.SetReady(true)
	check(healthpb.HealthCheckResponse_SERVING)
	b.SetReady(false)
	check(healthpb.HealthCheckResponse_NOT_SERVING)
	if lines := b.lines(t, "rpc"); len(lines) != 0 {
		t.Errorf("health checks are logged: %v", lines)
	}
	if got := b.metric(t, "rpc_requests_total", prometheus.Labels{"service": "users", "method": "grpc.health.v1.Health/Check", "code": "OK"}); got != -1 {
		t.Errorf("health checks are counted: %v", got)
	}
}

// A client that watches health never ends its stream by itself.
func TestHealthWatchDoesNotHoldUpShutdown(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.GRPC().RegisterService(&echoDesc, talk(&trace.SpanContext{}))
	b.start(t)
	for _, conn := range []grpc.ClientConnInterface{b.dial(t), b.InProcess()} {
		stream, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// TestReflection asks servers on loopback and on all addresses what they serve.
func TestReflection(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		address      string
		anyway, want bool
	}{
		{"127.0.0.1:0", false, true},
		{":0", false, false},
		{":0", true, true},
	} {
		b := setup(t, server.Options{Reflection: test.anyway})
		b.Options().GRPC = test.address
		b.GRPC().RegisterService(&echoDesc, talk(&trace.SpanContext{}))
		b.start(t)
		stream, err := reflectionpb.NewServerReflectionClient(b.dial(t)).ServerReflectionInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}) // Recv tells
		got, err := stream.Recv()
		if !test.want {
			if status.Code(err) != codes.Unimplemented {
				t.Errorf("reflection on %s: %v, want Unimplemented", b.GRPCAddr(), err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range got.GetListServicesResponse().GetService() {
			names = append(names, s.Name)
		}
		if s := strings.Join(names, " "); !strings.Contains(s, "test.v1.Echo") || !strings.Contains(s, "grpc.health.v1.Health") {
			t.Errorf("reflection lists %s", s)
		}
	}
}

func TestRegistrationMistakes(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.GRPC().RegisterService(&echoDesc, echo{})
	b.GRPC().RegisterService(&echoDesc, echo{})
	if err := b.Listen(); err == nil || err.Error() != "server: gRPC service test.v1.Echo registered twice" {
		t.Errorf("Listen after registering twice = %v", err)
	}
	late := setup(t, server.Options{})
	late.start(t)
	late.GRPC().RegisterService(&echoDesc, echo{})
	if s := late.log.String(); !strings.Contains(s, "server: gRPC service test.v1.Echo registered after Listen") || late.HasGRPC() {
		t.Errorf("registering after Listen: HasGRPC %v, log %s", late.HasGRPC(), s)
	}
}

func TestMessageLimit(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.GRPC().RegisterService(&echoDesc, talk(&trace.SpanContext{}))
	b.start(t)
	for name, conn := range map[string]grpc.ClientConnInterface{"network": b.dial(t), "in process": b.InProcess()} {
		if _, err := say(t.Context(), conn, strings.Repeat("x", 4<<20)); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%s: a message above 4 MiB: %v, want ResourceExhausted", name, status.Code(err))
		}
	}
}

func healthy(ctx context.Context, conn grpc.ClientConnInterface) error {
	_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}
