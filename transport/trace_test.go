package transport

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/kaptar/kaptar/internal/inproc"
	"github.com/kaptar/kaptar/telemetry"
)

// recorded makes a transport's spans readable.
func recorded(tr *Transport) *tracetest.SpanRecorder {
	rec := tracetest.NewSpanRecorder()
	tr.tel, _ = telemetry.New(context.Background(), telemetry.Options{Service: "shop", SpanProcessor: rec}) // no option is wrong
	return rec
}

func attributes(s sdktrace.ReadOnlySpan) map[attribute.Key]string {
	m := map[attribute.Key]string{}
	for _, kv := range s.Attributes() {
		m[kv.Key] = kv.Value.String()
	}
	return m
}

func TestAClientSpanForEachCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var parents []string
		n := 0
		tr := over(t, Options{Resolver: listed("a")}, func(r *http.Request) (*http.Response, error) {
			parents = append(parents, r.Header.Get("Traceparent"))
			if n++; n == 1 {
				return nil, errors.New("connection refused")
			}
			return reply(r, 404), nil
		})
		rec := recorded(tr)
		req, _ := http.NewRequestWithContext(trace.ContextWithSpanContext(t.Context(), parentSpan()), "GET", "http://ada:secret@order-service/orders/1?t=secret#secret", nil)
		req.Header.Set("Traceparent", "00-ffffffffffffffffffffffffffffffff-ffffffffffffffff-01")
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(rec.Ended()); got != 0 {
			t.Errorf("%d spans ended before the body, want 0", got)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		spans := rec.Ended()
		if len(spans) != 1 {
			t.Fatalf("%d spans, want one for the call with all its attempts", len(spans))
		}
		s := spans[0]
		if s.Name() != "GET order-service" || s.SpanKind() != trace.SpanKindClient || s.Parent().SpanID() != parentSpan().SpanID() || s.Status().Code != otelcodes.Error {
			t.Errorf("span %q, kind %v, parent %v, status %v", s.Name(), s.SpanKind(), s.Parent().SpanID(), s.Status())
		}
		for key, want := range map[attribute.Key]string{
			"http.request.method": "GET", "server.address": "order-service", "url.full": "http://order-service/orders/1",
			"http.response.status_code": "404", "http.request.resend_count": "1", "error.type": "404", "kaptar.instance": "a",
		} {
			if got := attributes(s)[key]; got != want {
				t.Errorf("%s = %q, want %q", key, got, want)
			}
		}
		want := "00-" + s.SpanContext().TraceID().String() + "-" + s.SpanContext().SpanID().String() + "-01"
		if len(parents) != 2 || parents[0] != want || parents[1] != want {
			t.Errorf("the target got %q, want twice %q", parents, want)
		}
	})
}

func TestTheSpanOfARefusedCallSaysWhy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := over(t, Options{Resolver: listed("a")}, func(r *http.Request) (*http.Response, error) { return reply(r, 500), nil })
		for range 5 {
			_, _ = do(t, tr, "POST", orders, nil)
		}
		rec := recorded(tr)
		_, _ = do(t, tr, "POST", orders, nil)
		_ = check(t.Context(), tr, "")
		spans := rec.Ended()
		if len(spans) != 2 || attributes(spans[0])["error.type"] != "open" {
			t.Fatalf("%d spans, want 2, the first of type open", len(spans))
		}
		if s := spans[1]; s.Name() != "grpc.health.v1.Health/Check" || attributes(s)["rpc.system.name"] != "grpc" {
			t.Errorf("gRPC span %q %v", s.Name(), attributes(s))
		}
	})
}

// TestAnRPCWithinTheProcessSendsTheTrace: the channel takes an option for it, other connections the metadata.
func TestAnRPCWithinTheProcessSendsTheTrace(t *testing.T) {
	t.Parallel()
	state, _ := trace.ParseTraceState("vendor=1")
	for what, wrap := range map[string]func(grpc.ClientConnInterface) grpc.ClientConnInterface{
		"channel": func(c grpc.ClientConnInterface) grpc.ClientConnInterface { return c },
		"another": func(c grpc.ClientConnInterface) grpc.ClientConnInterface {
			return struct{ grpc.ClientConnInterface }{c}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var seen metadata.MD
			channel := inproc.NewChannel(nil, nil)
			grpc_health_v1.RegisterHealthServer(channel, &health{check: func(ctx context.Context, _ string) error {
				seen, _ = metadata.FromIncomingContext(ctx)
				return nil
			}})
			local := new(Local)
			local.Add("a", nil, wrap(channel))
			tr := over(t, Options{Resolver: listed("a"), Local: local}, nil)
			rec := recorded(tr)
			ctx := trace.ContextWithSpanContext(t.Context(), parentSpan().WithTraceState(state))
			if err := check(metadata.AppendToOutgoingContext(ctx, "x-user", "1"), tr, ""); err != nil {
				t.Fatal(err)
			}
			want := telemetry.FormatTraceparent(rec.Ended()[0].SpanContext())
			if got := seen["traceparent"]; len(got) != 1 || got[0] != want || len(seen["tracestate"]) != 1 || seen["tracestate"][0] != "vendor=1" || len(seen["x-user"]) != 1 {
				t.Errorf("%s: the callee sees %v, want one traceparent %s, tracestate vendor=1 and x-user", what, map[string][]string(seen), want)
			}
		})
	}
}
