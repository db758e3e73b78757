package h1

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

func jsonServer(tb testing.TB) *httptest.Server {
	tb.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"4711","name":"Ada Lovelace","mail":"ada@example.org","visits":12345}`)
	}))
	tb.Cleanup(srv.Close)
	return srv
}

func get(tb testing.TB, client *http.Client, url string) {
	resp, err := client.Get(url)
	if err != nil {
		tb.Error(err)
		return
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		tb.Error(err)
	}
	_ = resp.Body.Close()
}

// clients are the two paths; both are net/http's client and its server.
func clients(tb testing.TB) (lean, bare *http.Client) {
	dialer := &net.Dialer{Timeout: time.Second}
	next := &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 256, DisableCompression: true}
	plain := next.Clone()
	own := New(&Options{Next: next})
	tb.Cleanup(own.CloseIdleConnections)
	tb.Cleanup(plain.CloseIdleConnections)
	return &http.Client{Transport: own}, &http.Client{Transport: plain}
}

// BenchmarkAgainstNetHTTP runs both paths in turns and reports how many times the calls of net/http
// ours make, the median of the rounds. Everything but the RoundTripper is the same.
func BenchmarkAgainstNetHTTP(b *testing.B) {
	srv := jsonServer(b)
	lean, bare := clients(b)
	for _, workers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			var ratios []float64
			for b.Loop() {
				took := func(client *http.Client) time.Duration {
					began := time.Now()
					var wg sync.WaitGroup
					for range workers {
						wg.Go(func() {
							for range 4096 / workers {
								get(b, client, srv.URL)
							}
						})
					}
					wg.Wait()
					return time.Since(began)
				}
				ours := took(lean)
				ratios = append(ratios, float64(took(bare))/float64(ours))
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "x-net/http")
		})
	}
}

func BenchmarkGet(b *testing.B) {
	srv := jsonServer(b)
	lean, bare := clients(b)
	for name, client := range map[string]*http.Client{"lean": lean, "net/http": bare} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				get(b, client, srv.URL)
			}
		})
	}
}
