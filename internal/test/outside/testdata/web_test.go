package outside

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
)

type greeter struct {
	testpb.UnimplementedTestServiceServer
}

func (greeter) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Username: User(ctx)}, nil
}

// run starts a protected service and one that calls it within the process.
func run(t *testing.T) (guarded, open kaptar.Endpoint) {
	t.Helper()
	services := []kaptar.Service{
		{Name: "guarded", Setup: func(app *kaptar.App) error {
			Protect(app, "https://shop.example", map[string]string{"Bearer 1": "ada"})
			app.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, "hello ", User(r.Context())) })
			testpb.RegisterTestServiceServer(app.GRPC(), greeter{})
			return nil
		}},
		{Name: "open", Setup: func(app *kaptar.App) error {
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
	}
	free := map[string]string{}
	for _, s := range services {
		free["services."+s.Name+".listen"] = "127.0.0.1:0"
		free["services."+s.Name+".grpc_listen"] = "127.0.0.1:0"
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan []kaptar.Endpoint, 1), make(chan error, 1)
	go func() {
		done <- kaptar.Run(ctx, &kaptar.Options{
			Sources: config.Sources{Defaults: free, DefaultsOrigin: "test"},
			Log:     t.Output(),
			Ready:   func(all []kaptar.Endpoint) { ready <- all },
		}, services...)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case all := <-ready:
		return all[0], all[1]
	case err := <-done:
		done <- err
		t.Fatalf("Run: %v", err)
	}
	return guarded, open
}

func call(t *testing.T, method, url string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestProtect(t *testing.T) {
	t.Parallel()
	guarded, open := run(t)
	base := "http://" + guarded.HTTP
	if resp, body := call(t, "GET", base+"/hello", "Authorization", "Bearer 1"); resp.StatusCode != 200 || body != "hello ada" {
		t.Errorf("with a token: %d %q", resp.StatusCode, body)
	}
	if resp, body := call(t, "GET", base+"/hello"); resp.StatusCode != 401 || !strings.Contains(body, `"trace_id":"`) {
		t.Errorf("without: %d %q", resp.StatusCode, body)
	}
	if resp, _ := call(t, "GET", base+"/nowhere", "Authorization", "Bearer 1"); resp.StatusCode != 404 {
		t.Errorf("no such route: %d", resp.StatusCode)
	}
	resp, _ := call(t, "OPTIONS", base+"/hello", "Origin", "https://shop.example", "Access-Control-Request-Method", "GET")
	if resp.StatusCode != 204 || resp.Header.Get("Access-Control-Allow-Origin") != "https://shop.example" {
		t.Errorf("preflight: %d %v", resp.StatusCode, resp.Header)
	}
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		if resp, _ := call(t, "GET", base+path); resp.StatusCode != 200 {
			t.Errorf("%s needs a token: %d", path, resp.StatusCode)
		}
	}
	for token, want := range map[string]int{"Bearer 1": 200, "Bearer 2": 401} {
		if resp, body := call(t, "GET", "http://"+open.HTTP+"/via", "Authorization", token); resp.StatusCode != want {
			t.Errorf("within the process with %s: %d %q, want %d", token, resp.StatusCode, body, want)
		}
	}
	limited := false
	for range 200 {
		resp, _ := call(t, "GET", base+"/hello", "Authorization", "Bearer 1")
		limited = limited || resp.StatusCode == 429
	}
	if !limited {
		t.Error("200 requests at once are not limited")
	}
	_, metrics := call(t, "GET", base+"/metrics")
	for _, status := range []string{"200", "401", "429"} {
		if want := `http_requests_total{endpoint="/hello",method="GET",service="guarded",status="` + status + `"}`; !strings.Contains(metrics, want) {
			t.Errorf("metrics have no %s", want)
		}
	}
}

func TestProtectRPC(t *testing.T) {
	t.Parallel()
	guarded, _ := run(t)
	conn, err := grpc.NewClient(guarded.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := testpb.NewTestServiceClient(conn)
	if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a token: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer 1")
	if got, err := client.UnaryCall(ctx, &testpb.SimpleRequest{}); err != nil || got.GetUsername() != "ada" {
		t.Errorf("with one: %v, %v", got, err)
	}
}
