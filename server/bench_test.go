package server_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/telemetry"
)

// BenchmarkChain is one request through the built-in chain, without the network.
func BenchmarkChain(b *testing.B) {
	tel, err := telemetry.New(b.Context(), telemetry.Options{Service: "users", Log: telemetry.LogOptions{Output: io.Discard, Format: "json"}})
	if err != nil {
		b.Fatal(err)
	}
	s := server.New(server.Options{Telemetry: tel})
	s.HandleFunc("POST /users/{id}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "ok")
	})
	s.HandleFunc("GET /users/{id}", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	h := s.Handler()
	for _, method := range []string{"GET", "POST"} {
		b.Run(method, func(b *testing.B) {
			b.ReportAllocs()
			w := &sink{header: http.Header{}}
			for b.Loop() {
				var body io.Reader
				if method == "POST" {
					body = strings.NewReader("hello")
				}
				h.ServeHTTP(w, httptest.NewRequestWithContext(b.Context(), method, "/users/1", body))
			}
		})
	}
}

type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(int)             {}
