package server_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kaptar/kaptar/server"
)

// fill keeps n calls of path under way until the end of the test or the call of what it returns.
func (b *bundle) fill(t *testing.T, client *http.Client, url string, n int, entered <-chan struct{}) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
			if err != nil {
				t.Error(err)
				return
			}
			if resp, err := client.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
	for range n {
		select {
		case <-entered:
		case <-time.After(time.Minute):
			t.Fatalf("a call of %s does not come to its handler", url)
		}
	}
	return func() {
		cancel()
		wg.Wait()
		eventually(t, "the server to notice", func() bool { return len(b.Busy()) == 0 })
	}
}

func get(t *testing.T, client *http.Client, url string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestLimit(t *testing.T) {
	t.Parallel()
	entered, ran := make(chan struct{}, 100), make(chan string, 100)
	hold := func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-r.Context().Done()
	}
	patient := setup(t, server.Options{Limit: server.Limit{Max: 4, Wait: time.Minute}, Timeout: -1}) // nothing is refused for a wait
	patient.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		hold(w, r)
	})
	patient.HandleFunc("GET /poll", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Hour))
		hold(w, r)
	})
	patient.HandleFunc("GET /quick", func(http.ResponseWriter, *http.Request) {})
	url := patient.start(t)
	for name, client := range patient.clients(t) {
		for _, path := range []string{"/stream", "/poll"} {
			end := patient.fill(t, client, url+path, 6, entered)
			if resp := get(t, client, url+"/quick"); resp.StatusCode != http.StatusOK {
				t.Errorf("%s: beside six of %s: %d, want 200", name, path, resp.StatusCode)
			}
			end()
		}
	}
	b := setup(t, server.Options{
		Limit: server.Limit{Max: 4, Wait: 100 * time.Millisecond}, Timeout: -1,
		Priority: func(route string) server.Priority {
			switch route {
			case "GET /sheddable":
				return server.Sheddable
			case "GET /critical":
				return server.Critical
			}
			return server.Normal
		},
	})
	b.HandleFunc("GET /hold", hold)
	for _, path := range []string{"/quick", "/sheddable", "/critical"} {
		b.HandleFunc("GET "+path, func(http.ResponseWriter, *http.Request) { ran <- path })
	}
	wrapped := newEcho(t, b)
	url = b.start(t)
	for name, client := range b.clients(t) {
		end := b.fill(t, client, url+"/hold", 4, entered)
		for len(ran) > 0 {
			<-ran
		}
		for _, path := range []string{"/quick", "/sheddable", "/critical"} {
			resp := get(t, client, url+path)
			if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "1" || resp.Header.Get("Kaptar-Overload") == "" {
				t.Errorf("%s: %s without room: %d %v, want 503 with Retry-After and the mark", name, path, resp.StatusCode, resp.Header)
			}
		}
		if len(ran) > 0 {
			t.Errorf("%s: the handler of %s ran without room", name, <-ran)
		}
		for _, path := range []string{"/livez", "/metrics"} {
			if resp := get(t, client, url+path); resp.StatusCode != http.StatusOK {
				t.Errorf("%s: %s without room: %d, want 200", name, path, resp.StatusCode)
			}
		}
		var trailer metadata.MD
		_, err := wrapped(t.Context(), grpc.Trailer(&trailer))
		if status.Code(err) != codes.Unavailable || len(trailer.Get("Kaptar-Overload")) == 0 {
			t.Errorf("%s: RPC without room: %v with %v, want Unavailable with the mark", name, err, trailer)
		}
		end()
		if resp := get(t, client, url+"/quick"); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: with room again: %d, want 200", name, resp.StatusCode)
		}
		if _, err := wrapped(t.Context()); err != nil {
			t.Errorf("%s: RPC with room again: %v", name, err)
		}
	}
	resp, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	got := string(body)
	for _, want := range []string{
		`server_limit{service="users"} 4`, `server_queue_length{service="users"} 0`,
		`server_rejected_total{reason="sheddable",service="users"} 2`, `server_rejected_total{reason="queue_time",service="users"} 6`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

// TestALargeAnswerTakesNoRoom: whichever way it is written, its end does not count, as the client may be slow.
func TestALargeAnswerTakesNoRoom(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(w http.ResponseWriter, text string){
		"bytes": func(w http.ResponseWriter, text string) { _, _ = w.Write([]byte(text)) },
		"text":  func(w http.ResponseWriter, text string) { _, _ = io.WriteString(w, text) },
	} {
		for _, parts := range []int{1, 3} {
			b := setup(t, server.Options{Limit: server.Limit{Max: 1, Wait: time.Millisecond}})
			beside := httptest.NewRecorder()
			b.HandleFunc("GET /quick", func(http.ResponseWriter, *http.Request) {})
			b.HandleFunc("GET /large", func(w http.ResponseWriter, _ *http.Request) {
				for range parts {
					write(w, strings.Repeat("x", 40<<10))
				}
				b.Handler().ServeHTTP(beside, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/quick", http.NoBody))
			})
			b.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/large", http.NoBody))
			want := map[int]int{1: http.StatusServiceUnavailable, 3: http.StatusOK}[parts]
			if beside.Code != want {
				t.Errorf("%s: beside an answer of %d parts of 40 KiB: %d, want %d", name, parts, beside.Code, want)
			}
		}
	}
}

// TestHalfBodiesTakeNoRoom: who does not send the rest of a request keeps nobody out.
func TestHalfBodiesTakeNoRoom(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{}, 10)
	b := setup(t, server.Options{Limit: server.Limit{Max: 4, Wait: 20 * time.Millisecond}})
	b.HandleFunc("POST /read", func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		_, _ = io.Copy(io.Discard, r.Body)
	})
	b.HandleFunc("GET /quick", func(http.ResponseWriter, *http.Request) {})
	url := b.start(t)
	for range 8 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", b.HTTPAddr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "POST /read HTTP/1.1\r\nHost: users\r\nContent-Length: 100\r\n\r\nhalf"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-entered:
		case <-time.After(20 * time.Second):
			t.Fatal("a half body keeps others out")
		}
	}
	if resp := get(t, b.clients(t)["network"], url+"/quick"); resp.StatusCode != http.StatusOK {
		t.Errorf("beside eight half bodies: %d, want 200", resp.StatusCode)
	}
}

// newEcho registers a service and returns a call of it within the process.
func newEcho(t *testing.T, b *bundle) func(context.Context, ...grpc.CallOption) (string, error) {
	t.Helper()
	b.GRPC().RegisterService(&grpc.ServiceDesc{ServiceName: "test.Quick", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Echo",
		Handler: func(_ any, ctx context.Context, dec func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := dec(in); err != nil {
				return nil, err
			}
			echo := func(_ context.Context, req any) (any, error) { return req, nil }
			return i(ctx, in, &grpc.UnaryServerInfo{FullMethod: "/test.Quick/Echo"}, echo)
		},
	}}}, struct{}{})
	return func(ctx context.Context, opts ...grpc.CallOption) (string, error) {
		out := new(wrapperspb.StringValue)
		err := b.InProcess().Invoke(ctx, "/test.Quick/Echo", wrapperspb.String("hello"), out, opts...)
		return out.GetValue(), err
	}
}

// TestHold: who is refused waits for that, and keeps nobody out meanwhile.
func TestHold(t *testing.T) {
	t.Parallel()
	const hold = 300 * time.Millisecond
	entered := make(chan struct{}, 10)
	b := setup(t, server.Options{Limit: server.Limit{Max: 4, Wait: 10 * time.Millisecond, Hold: hold}, Timeout: -1})
	b.HandleFunc("GET /hold", func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-r.Context().Done()
	})
	b.HandleFunc("GET /full", func(w http.ResponseWriter, _ *http.Request) { // as a proxy passes it on
		w.Header().Set("Kaptar-Overload", "queue_full")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	url := b.start(t)
	for name, client := range b.clients(t) {
		begun := time.Now()
		get(t, client, url+"/full")
		if took := time.Since(begun); took < hold {
			t.Errorf("%s: a refusal from further on came after %v, want %v", name, took, hold)
		}
		end := b.fill(t, client, url+"/hold", 4, entered)
		begun = time.Now()
		get(t, client, url+"/full")
		if took := time.Since(begun); took < hold {
			t.Errorf("%s: a refusal came after %v, want %v", name, took, hold)
		}
		end()
	}
}
