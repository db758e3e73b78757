package transport_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/telemetry"
	"github.com/kaptar/kaptar/transport"
)

// userJSON has 78 bytes.
const userJSON = `{"id":1,"username":"ada","email":"ada@example.com","since":"2026-01-01T00:00"}`

func init() { // a collector that takes everything and keeps nothing
	telemetry.RegisterClient(func(context.Context, telemetry.Options, *url.URL) (*telemetry.Client, error) {
		return &telemetry.Client{Spans: noSpans{}}, nil
	})
}

type noSpans struct{}

func (noSpans) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (noSpans) Shutdown(context.Context) error                             { return nil }

// ends are a caller and a service that it calls, each with the whole chain and telemetry of its own.
type ends struct {
	client *http.Client
	conn   grpc.ClientConnInterface
}

// newEnds starts them. share is the share of traces that are recorded.
func newEnds(tb testing.TB, share float64, inProcess bool) ends {
	tb.Helper()
	tel := func(service string) *telemetry.Telemetry {
		t, err := telemetry.New(tb.Context(), telemetry.Options{
			Service: service, Endpoint: "http://collector", Sampler: "parentbased_traceidratio", SamplerArg: share,
			Log: telemetry.LogOptions{Output: io.Discard, Format: "json"},
		})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = t.Shutdown(context.Background()) })
		return t
	}
	srv := server.New(server.Options{HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0", Telemetry: tel("user-service")})
	srv.HandleFunc("GET /users/{id}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, userJSON)
	})
	srv.GRPC().RegisterService(&echo, nil)
	if err := srv.Listen(); err != nil {
		tb.Fatal(err)
	}
	go func() { _ = srv.Serve() }()
	tb.Cleanup(func() { _ = srv.Shutdown(context.Background()) })
	srv.SetReady(true)
	registry, local := new(discovery.Memory), new(transport.Local)
	in := discovery.Instance{ID: "u1", Service: "user-service", HTTP: srv.HTTPAddr(), GRPC: srv.GRPCAddr()}
	if err := registry.Register(tb.Context(), in); err != nil {
		tb.Fatal(err)
	}
	if inProcess {
		local.Add(in.ID, srv.Handler(), srv.InProcess())
	}
	tr := transport.New(&transport.Options{Resolver: registry, Local: local, Telemetry: tel("order-service")})
	tb.Cleanup(func() { _ = tr.Close() })
	return ends{client: &http.Client{Transport: tr}, conn: tr.Conn("user-service")}
}

// get makes one call as a handler would.
func (e ends) get(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://user-service/users/1", nil)
	if err != nil {
		return err
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return err
	}
	var user struct{ ID int }
	if err := json.Unmarshal(body, &user); err != nil || user.ID != 1 {
		return fmt.Errorf("user %d, %w", user.ID, err)
	}
	return nil
}

func (e ends) rpc(ctx context.Context) error {
	reply := new(wrapperspb.StringValue)
	if err := e.conn.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String(userJSON), reply); err != nil {
		return err
	}
	if reply.Value != userJSON {
		return fmt.Errorf("got %q", reply.Value)
	}
	return nil
}

// echo is a gRPC service of one method.
var echo = grpc.ServiceDesc{
	ServiceName: "test.Echo", HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Unary",
		Handler: func(_ any, ctx context.Context, decode func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			info := &grpc.UnaryServerInfo{FullMethod: "/test.Echo/Unary"}
			return around(ctx, in, info, func(_ context.Context, req any) (any, error) { return req, nil })
		},
	}},
}

// TestHotPathAllocates pins what a call costs both ends together, the caller's request and JSON
// included. Bare net/http on both sides takes 80 allocations and 6.9 kB.
func TestHotPathAllocates(t *testing.T) { //nolint:paralleltest // others would be counted too
	if raceDetector {
		t.Skip("the race detector allocates as well")
	}
	for _, tt := range []struct {
		what          string
		share         float64
		inProcess     bool
		rpc           bool
		allocs, bytes uint64
	}{
		{"HTTP", 0, false, false, 52, 6_900},
		{"HTTP, sampled", 1, false, false, 55, 7_400},
		{"HTTP in process", 0, true, false, 38, 6_000},
		{"HTTP in process, sampled", 1, true, false, 41, 6_800},
		{"gRPC", 0, false, true, 188, 13_600},
		{"gRPC, sampled", 1, false, true, 190, 14_900},
		{"gRPC in process", 0, true, true, 38, 3_950},
		{"gRPC in process, sampled", 1, true, true, 40, 5_000},
	} {
		e := newEnds(t, tt.share, tt.inProcess)
		call := e.get
		if tt.rpc {
			call = e.rpc
		}
		allocs, bytes := cost(t, call)
		t.Logf("%s: %d allocations, %d bytes", tt.what, allocs, bytes)
		if allocs > tt.allocs || bytes > tt.bytes {
			t.Errorf("%s: %d allocations and %d bytes a call, at most %d and %d are allowed", tt.what, allocs, bytes, tt.allocs, tt.bytes)
		}
	}
}

// cost is what a call allocates on average, in all goroutines.
func cost(t *testing.T, call func(context.Context) error) (allocs, bytes uint64) {
	t.Helper()
	const calls = 3000
	var before, after runtime.MemStats
	for i := range 2 * calls {
		if i == calls { // pools, buffers and connections are there
			runtime.ReadMemStats(&before)
		}
		if err := call(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	return (after.Mallocs - before.Mallocs) / calls, (after.TotalAlloc - before.TotalAlloc) / calls
}

// BenchmarkBothEnds is a call with both chains, over loopback and in process.
func BenchmarkBothEnds(b *testing.B) {
	for _, in := range []struct {
		name      string
		share     float64
		inProcess bool
	}{{"loopback-unsampled", 0, false}, {"loopback-sampled", 1, false}, {"inprocess-unsampled", 0, true}, {"inprocess-sampled", 1, true}} {
		e := newEnds(b, in.share, in.inProcess)
		for name, call := range map[string]func(context.Context) error{"http": e.get, "grpc": e.rpc} {
			b.Run(name+"-"+in.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := call(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(name+"-"+in.name+"-16", func(b *testing.B) {
				b.ReportAllocs()
				b.SetParallelism(8)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := call(b.Context()); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}
