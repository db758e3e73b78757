package outside

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/kaptartest"
)

type greeter struct {
	testpb.UnimplementedTestServiceServer
}

func (greeter) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Username: User(ctx)}, nil
}

// run starts a protected service and one that calls it within the process.
func run(t *testing.T) *kaptartest.System {
	t.Helper()
	return kaptartest.Start(t,
		kaptar.Service{Name: "guarded", Setup: func(app *kaptar.App) error {
			Protect(app, "https://shop.example", map[string]string{"Bearer 1": "ada"})
			app.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, "hello ", User(r.Context())) })
			testpb.RegisterTestServiceServer(app.GRPC(), greeter{})
			return nil
		}},
		kaptar.Service{Name: "open", Setup: func(app *kaptar.App) error {
			app.HandleFunc("GET /via", func(w http.ResponseWriter, r *http.Request) {
				req, err := http.NewRequestWithContext(r.Context(), "GET", "http://guarded/hello", nil)
				if err != nil {
					panic(err)
				}
				req.Header.Set("Authorization", r.Header.Get("Authorization"))
				resp, err := app.Client().Do(req)
				if err != nil {
					panic(err)
				}
				defer func() { _ = resp.Body.Close() }()
				w.WriteHeader(resp.StatusCode)
				_, _ = io.Copy(w, resp.Body)
			})
			return nil
		}},
	)
}

func TestProtect(t *testing.T) {
	t.Parallel()
	sys := run(t)
	if resp := sys.Do("GET", "guarded", "/hello", "", "Authorization", "Bearer 1"); resp.Status != 200 || resp.Body != "hello ada" {
		t.Errorf("with a token: %d %q", resp.Status, resp.Body)
	}
	if resp := sys.Do("GET", "guarded", "/hello", ""); resp.Status != 401 || !strings.Contains(resp.Body, `"trace_id":"`) {
		t.Errorf("without: %d %q", resp.Status, resp.Body)
	}
	if resp := sys.Do("GET", "guarded", "/nowhere", "", "Authorization", "Bearer 1"); resp.Status != 404 {
		t.Errorf("no such route: %d", resp.Status)
	}
	resp := sys.Do("OPTIONS", "guarded", "/hello", "", "Origin", "https://shop.example", "Access-Control-Request-Method", "GET")
	if resp.Status != 204 || resp.Header.Get("Access-Control-Allow-Origin") != "https://shop.example" {
		t.Errorf("preflight: %d %v", resp.Status, resp.Header)
	}
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		if resp := sys.Do("GET", "guarded", path, ""); resp.Status != 200 {
			t.Errorf("%s needs a token: %d", path, resp.Status)
		}
	}
	for token, want := range map[string]int{"Bearer 1": 200, "Bearer 2": 401} {
		if resp := sys.Do("GET", "open", "/via", "", "Authorization", token); resp.Status != want {
			t.Errorf("within the process with %s: %d %q, want %d", token, resp.Status, resp.Body, want)
		}
	}
	limited := false
	for range 200 {
		resp := sys.Do("GET", "guarded", "/hello", "", "Authorization", "Bearer 1")
		limited = limited || resp.Status == 429
	}
	if !limited {
		t.Error("200 requests at once are not limited")
	}
	metrics := sys.Do("GET", "guarded", "/metrics", "").Body
	for _, status := range []string{"200", "401", "429"} {
		if want := `http_requests_total{endpoint="/hello",method="GET",service="guarded",status="` + status + `"}`; !strings.Contains(metrics, want) {
			t.Errorf("metrics have no %s", want)
		}
	}
}

func TestProtectRPC(t *testing.T) {
	t.Parallel()
	client := testpb.NewTestServiceClient(run(t).Conn("guarded"))
	if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a token: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer 1")
	if got, err := client.UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil || got.GetUsername() != "ada" {
		t.Errorf("with one: %v, %v", got, err)
	}
}
