package inproc_test

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kaptar/kaptar/internal/inproc"
)

func ExampleRoundTripper() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "user %s for %s", r.PathValue("id"), r.RemoteAddr)
	})
	client := &http.Client{Transport: inproc.RoundTripper(mux)}
	resp, err := client.Get("http://user-service/users/7")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(resp.Status, string(body), err)
	// Output: 200 OK user 7 for in-process <nil>
}

func ExampleChannel() {
	channel := inproc.NewChannel(nil, nil)
	healthpb.RegisterHealthServer(channel, health.NewServer())
	client := healthpb.NewHealthClient(channel)
	resp, err := client.Check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(resp.GetStatus(), err)
	// Output: SERVING <nil>
}
