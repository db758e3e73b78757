package gateway_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/kaptartest"
)

// BenchmarkGateway is one request through a gateway to a service in the same process, client
// included: what the chain and the proxy cost is the difference to BenchmarkService.
func BenchmarkGateway(b *testing.B) { benchmark(b, "http://gateway/v1/users/1") }

// BenchmarkService is the same without the gateway.
func BenchmarkService(b *testing.B) { benchmark(b, "http://user-service/v1/users/1") }

func benchmark(b *testing.B, url string) {
	users := kaptar.Service{Name: "user-service", Setup: func(app *kaptar.App) error {
		app.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "answer") })
		return nil
	}}
	sys := kaptartest.StartWith(b, &kaptartest.Options{Settings: map[string]string{"log_level": "ERROR", "otel.traces_sampler": "always_off"}}, edge(nil), users)
	b.ReportAllocs()
	for b.Loop() {
		resp, err := sys.Client().Get(url)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			b.Fatal(resp.Status, err)
		}
		_ = resp.Body.Close()
	}
}
