package kaptar_test

import (
	"context"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/kaptar/kaptar"
)

// pair runs a caller, whose Setup also does prepare, and a service that it calls once over HTTP and
// once over gRPC. It returns the spans of both.
func pair(t *testing.T, prepare func(app *kaptar.App, client *http.Client)) []sdktrace.ReadOnlySpan {
	t.Helper()
	done := make(chan error, 1)
	caller := kaptar.Service{Name: "caller", Setup: func(app *kaptar.App) error {
		client, conn := app.Client(), app.Conn("called")
		prepare(app, client)
		app.Go("call", func(ctx context.Context) error {
			resp, err := client.Get("http://called/greet/ada")
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				_, err = testpb.NewTestServiceClient(conn).UnaryCall(ctx, &testpb.SimpleRequest{})
			}
			done <- err
			return nil
		})
		return nil
	}}
	called := kaptar.Service{Name: "called", Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /greet/{name}", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Header.Get("By"))
		})
		testpb.RegisterTestServiceServer(app.GRPC(), testServer{})
		return nil
	}}
	recorder := tracetest.NewSpanRecorder()
	services := []kaptar.Service{caller, called}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- kaptar.Run(ctx, &kaptar.Options{Sources: onFreePorts(nil, services), Log: t.Output(), SpanProcessor: recorder}, services...)
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	case err := <-ended:
		t.Fatalf("Run ended early: %v", err)
	}
	cancel()
	return recorder.Ended()
}

// One RPC, one HTTP call: both ends name the same things the same way.
func TestBothEndsOfACallUseTheSameNames(t *testing.T) {
	t.Parallel()
	attrs := map[string]map[attribute.Key]string{}
	for _, s := range pair(t, func(*kaptar.App, *http.Client) {}) {
		of := map[attribute.Key]string{}
		for _, kv := range s.Attributes() {
			of[kv.Key] = kv.Value.String()
		}
		what := "HTTP"
		if strings.Contains(s.Name(), "UnaryCall") {
			what = "RPC"
		}
		attrs[what+" "+s.SpanKind().String()] = of
	}
	for what, common := range map[string][]attribute.Key{
		"HTTP": {"http.request.method", "http.response.status_code"},
		"RPC":  {"rpc.method", "rpc.response.status_code", "rpc.system.name"},
	} {
		client, server := attrs[what+" "+trace.SpanKindClient.String()], attrs[what+" "+trace.SpanKindServer.String()]
		for _, key := range common {
			if client[key] == "" || client[key] != server[key] {
				t.Errorf("%s: %s is %q at the client and %q at the server, want the same", what, key, client[key], server[key])
			}
		}
		for _, key := range slices.Concat(slices.Collect(maps.Keys(client)), slices.Collect(maps.Keys(server))) {
			if foreign := map[string]string{"HTTP": "rpc.", "RPC": "http."}[what]; strings.HasPrefix(string(key), foreign) {
				t.Errorf("%s: the span has %s, of the other protocol", what, key)
			}
		}
	}
}

func TestClientDoors(t *testing.T) {
	t.Parallel()
	var seen []string
	pair(t, func(app *kaptar.App, _ *http.Client) { // the client was handed out before
		o := app.Transport()
		o.Client = append(o.Client, func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				seen = append(seen, r.URL.Host)
				return next.RoundTrip(r)
			})
		})
		o.Unary = append(o.Unary, func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			seen = append(seen, method)
			return next(ctx, method, req, reply, cc, opts...)
		})
	})
	if got, want := strings.Join(seen, " "), "called /grpc.testing.TestService/UnaryCall"; got != want {
		t.Errorf("middleware saw %q, want %q", got, want)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
