package inproc_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kaptar/kaptar/internal/inproc"
)

// userJSON has 78 bytes.
const userJSON = `{"id":1,"username":"ada","email":"ada@example.com","since":"2026-01-01T00:00"}`

func BenchmarkRoundTrip(b *testing.B) {
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, userJSON)
	})
	srv := httptest.NewServer(h)
	b.Cleanup(srv.Close)
	for _, shape := range []struct {
		name, url string
		rt        http.RoundTripper
	}{
		{"inproc", "http://user-service/users/1", inproc.RoundTripper(h)},
		{"loopback", srv.URL + "/users/1", srv.Client().Transport},
	} {
		b.Run(shape.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, shape.url, nil)
				if err != nil {
					b.Fatal(err)
				}
				resp, err := shape.rt.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, resp.Body); n != int64(len(userJSON)) || err != nil {
					b.Fatalf("read %d bytes, %v", n, err)
				}
				_ = resp.Body.Close()
			}
		})
	}
}

func BenchmarkInvoke(b *testing.B) {
	ch := inproc.NewChannel(nil, nil)
	ch.RegisterService(echoDesc(), newEcho())
	for _, shape := range []struct {
		name string
		conn grpc.ClientConnInterface
	}{
		{"inproc", ch},
		{"loopback", dialLoopback(b, nil, nil)},
	} {
		b.Run(shape.name, func(b *testing.B) {
			b.ReportAllocs()
			req := wrapperspb.String(userJSON)
			for b.Loop() {
				if err := shape.conn.Invoke(b.Context(), "/test.Echo/Unary", req, new(wrapperspb.StringValue)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
