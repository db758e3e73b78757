package transport

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kaptar/kaptar/discovery"
)

// BenchmarkHTTP compares a call with the full chain with one over bare net/http, both over loopback in a
// handler's usual situation: the context has a deadline and a span that is not sampled. The server is bare, so the
// difference is what this package costs.
func BenchmarkHTTP(b *testing.B) {
	handler := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"id":1}`) }
	m := new(discovery.Memory)
	srv := server(b, m, "order-service", "a", handler)
	second := httptest.NewServer(http.HandlerFunc(handler))
	defer second.Close()
	full := over(b, Options{Resolver: m, Telemetry: newTelemetry(b, io.Discard)}, nil)
	local := new(Local)
	local.Add("a", http.HandlerFunc(handler), nil)
	inside := over(b, Options{Resolver: m, Local: local, Telemetry: newTelemetry(b, io.Discard)}, nil)
	bare := &http.Transport{MaxIdleConnsPerHost: idlePerTarget, DisableCompression: true}
	defer bare.CloseIdleConnections()

	unsampled := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	ctx, cancel := context.WithTimeout(trace.ContextWithSpanContext(context.Background(), unsampled), 1<<40)
	defer cancel()
	for _, bench := range []struct {
		name, method, url string
		rt                http.RoundTripper
	}{
		{"bare", "GET", srv.URL + "/orders/1", bare},
		{"full", "GET", orders, full},
		{"full-POST", "POST", orders, full},
		{"in-process", "GET", orders, inside},
	} {
		b.Run(bench.name, func(b *testing.B) {
			client := &http.Client{Transport: bench.rt}
			b.ReportAllocs()
			for b.Loop() {
				req, err := http.NewRequestWithContext(ctx, bench.method, bench.url, nil)
				if err != nil {
					b.Fatal(err)
				}
				resp, err := client.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
}

// BenchmarkEngine is the chain without a network: what is left is this package alone.
func BenchmarkEngine(b *testing.B) {
	answer := func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
	}
	tr := over(b, Options{Resolver: listed("a", "b", "c"), Telemetry: newTelemetry(b, io.Discard)}, answer)
	ctx, cancel := context.WithTimeout(context.Background(), 1<<40)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", orders, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tr.RoundTrip(req); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUnary compares a gRPC call with the full chain with one over bare grpc-go.
func BenchmarkUnary(b *testing.B) {
	address, _ := serve(b, &health{})
	tr := over(b, Options{Resolver: grpcListed(b, address), Telemetry: newTelemetry(b, io.Discard)}, nil)
	bare, err := tr.dialGRPC(&target{}, address, false)
	if err != nil {
		b.Fatal(err)
	}
	defer bare.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 1<<40)
	defer cancel()
	b.Run("bare", func(b *testing.B) { benchUnary(b, ctx, bare) })
	b.Run("full", func(b *testing.B) { benchUnary(b, ctx, tr.Conn("order-service")) })
}

func benchUnary(b *testing.B, ctx context.Context, conn grpc.ClientConnInterface) {
	client := grpc_health_v1.NewHealthClient(conn)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}
