package h1

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
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

// always is a connection that answers every request with the same bytes.
type always struct {
	net.Conn
	answer, left string
}

func (c *always) Read(p []byte) (int, error) {
	if c.left == "" {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(p, c.left)
	c.left = c.left[n:]
	return n, nil
}

func (c *always) Write(p []byte) (int, error) {
	c.left = c.answer
	return len(p), nil
}

func (c *always) Close() error                { return nil } // as the pool does when the other tests take long
func (c *always) SetDeadline(time.Time) error { return nil }

// TestAllocations pins what a call allocates: the header's map (2), its strings and the body (1),
// and the response with all else (1). net/http's Transport has 24 more.
func TestAllocations(t *testing.T) { //nolint:paralleltest // AllocsPerRun does not allow it
	conn := &always{answer: ok + "Content-Type: application/json\r\nDate: Sun, 29 Nov 2026 10:00:00 GMT\r\nContent-Length: 8\r\n\r\n" + `{"id":1}`}
	tr := New(&Options{Dial: func(context.Context, string, string) (net.Conn, error) { return conn, nil }})
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://a/b?c=d", nil)
	if n := testing.AllocsPerRun(1000, func() {
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); n != 8 || err != nil {
			t.Fatal(n, err)
		}
	}); n > 5 { // 4, and the fifth where sync.Pool forgets, as it does on purpose under -race
		t.Errorf("%v allocations, want 4", n)
	}
}
