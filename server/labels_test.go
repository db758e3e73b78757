package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kaptar/kaptar/internal/inproc"
	"github.com/kaptar/kaptar/server"
)

// series counts all time series of a service.
func (b *bundle) series(t *testing.T) (n int) {
	t.Helper()
	families, err := b.tel.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		n += len(f.GetMetric())
	}
	return n
}

// TestClientsMakeUpNoSeries: 10,000 values of everything that a client, or what a handler passes on, can think up.
func TestClientsMakeUpNoSeries(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.HandleFunc("/users/{id}", func(http.ResponseWriter, *http.Request) {})
	b.HandleFunc("GET /status/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.PathValue("n"))
		w.WriteHeader(max(n%1000, 200))
	})
	say := echo{onSay: func(_ context.Context, s string) (string, error) {
		n, _ := strconv.Atoi(s)
		return "", status.Error(codes.Code(n), "made up")
	}}
	b.GRPC().RegisterService(&echoDesc, say)
	b.start(t)
	client, conn := &http.Client{Transport: inproc.RoundTripper(b.Handler())}, b.dial(t)
	fetch := func(method, path, header string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://users"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			req.Header.Set(header, "v")
			req.Host, req.Header["User-Agent"], req.Header["X-Request-Id"] = header+".example", []string{header}, []string{header}
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	rpc := func(method, text string) {
		_ = conn.Invoke(t.Context(), method, wrapperspb.String(text), new(wrapperspb.StringValue)) // it fails in its own way
	}
	feeds := map[string]func(n int){
		"method":      func(n int) { fetch("M"+strconv.Itoa(n), "/users/1", "") },
		"path":        func(n int) { fetch(http.MethodGet, fmt.Sprintf("/nowhere/%d", n), "") },
		"value":       func(n int) { fetch(http.MethodGet, fmt.Sprintf("/users/%d?q%d=%d", n, n, n), "") },
		"header":      func(n int) { fetch(http.MethodGet, "/users/1", fmt.Sprintf("X-%d", n)) },
		"status":      func(n int) { fetch(http.MethodGet, fmt.Sprintf("/status/%d", n), "") },
		"RPC":         func(n int) { rpc(fmt.Sprintf("/test.v1.Echo/Say%d", n), "") },
		"RPC service": func(n int) { rpc(fmt.Sprintf("/made.up.v%d/Say", n), "") },
		"RPC code":    func(n int) { rpc(sayMethod, strconv.Itoa(n)) },
		"RPC protocol": func(n int) {
			_ = conn.Invoke(t.Context(), sayMethod, nil, nil, grpc.CallContentSubtype("c"+strconv.Itoa(n)))
		},
	}
	for _, feed := range feeds {
		for n := range 1000 { // the codes and statuses that there are
			feed(n)
		}
	}
	before := b.series(t)
	for name, feed := range feeds {
		for n := 1000; n < 11_000; n++ {
			feed(n)
		}
		if after := b.series(t); after != before {
			t.Errorf("10,000 values of %s made %d series", name, after-before)
		}
	}
	if before > 500 { // 400 statuses of one route
		t.Errorf("%d series, want 500 at most", before)
	}
}
