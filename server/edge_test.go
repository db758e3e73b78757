package server_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/kaptar/kaptar/internal/inproc"
	"github.com/kaptar/kaptar/internal/wanted"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/telemetry"
)

func peers(t *testing.T, text string) (p server.Peers) {
	t.Helper()
	if err := p.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestAdminFrom: what a service says of itself is for those who run it.
func TestAdminFrom(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		from   string
		header []string
		seen   bool
	}{
		{"", nil, true},
		{"", []string{"X-Forwarded-For", "1.2.3.4"}, true},
		{"127.0.0.0/8", nil, true},
		{"127.0.0.0/8", []string{"X-Forwarded-For", "127.0.0.1"}, false},
		{"127.0.0.0/8", []string{"Forwarded", "for=127.0.0.1"}, false},
		{"10.0.0.0/8", nil, false},
		{"none", nil, false},
	} {
		b := setup(t, server.Options{AdminFrom: peers(t, tc.from)})
		url := b.start(t)
		b.SetReady(true)
		for _, path := range []string{"/livez", "/readyz", "/metrics"} {
			a := do(t, http.DefaultClient, http.MethodGet, url+path, nil, tc.header...)
			switch {
			case tc.seen && a.status != http.StatusOK:
				t.Errorf("admin from %q, %v: GET %s: %d, want 200", tc.from, tc.header, path, a.status)
			case !tc.seen:
				a.problem(t, http.StatusNotFound)
			}
		}
		if a := do(t, b.clients(t)["in process"], http.MethodGet, "http://users/livez", nil); a.status != http.StatusOK {
			t.Errorf("admin from %q: in process: %d, want 200", tc.from, a.status)
		}
	}
}

// TestTraceFrom: a stranger's trace is linked to, and says nothing about what is sampled.
func TestTraceFrom(t *testing.T) {
	t.Parallel()
	const theirs, unsampled = "4bf92f3577b34da6a3ce929d0e0e4736", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
	for from, continued := range map[string]bool{"": true, "127.0.0.1": true, "none": false, "10.0.0.0/8": false} {
		spans := tracetest.NewSpanRecorder()
		tel, err := telemetry.New(t.Context(), telemetry.Options{Service: "users", SpanProcessor: spans, Log: telemetry.LogOptions{Output: &buffer{}}})
		if err != nil {
			t.Fatal(err)
		}
		b := &bundle{Server: server.New(server.Options{HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0", Telemetry: tel, TraceFrom: peers(t, from)})}
		var seen string
		b.HandleFunc("GET /", func(_ http.ResponseWriter, r *http.Request) { seen = telemetry.TraceID(r.Context()) })
		b.GRPC().RegisterService(&echoDesc, echo{onSay: func(ctx context.Context, _ string) (string, error) {
			seen = telemetry.TraceID(ctx)
			return "", nil
		}})
		url := b.start(t)
		calls := map[string]func(){
			"request": func() {
				do(t, http.DefaultClient, http.MethodGet, url+"/", nil, "Traceparent", unsampled, "Tracestate", "a=b")
			},
			"RPC": func() {
				if _, err := say(metadata.AppendToOutgoingContext(t.Context(), "traceparent", unsampled), b.dial(t), ""); err != nil {
					t.Fatal(err)
				}
			},
		}
		for what, call := range calls {
			call()
			if len(seen) != 32 || (seen == theirs) != continued {
				t.Errorf("traces from %q: a %s has trace %s, theirs is to be continued: %t", from, what, seen, continued)
			}
		}
		if continued {
			if n := len(spans.Ended()); n != 0 {
				t.Errorf("traces from %q: %d spans of a trace that is not sampled", from, n)
			}
			continue
		}
		eventually(t, "two spans", func() bool { return len(spans.Ended()) == 2 })
		for _, s := range spans.Ended() {
			if links := s.Links(); s.Parent().IsValid() || len(links) != 1 || links[0].SpanContext.TraceID().String() != theirs || s.SpanContext().TraceState().Len() != 0 {
				t.Errorf("traces from %q: span %s has parent %v and links %v, want no parent and a link to theirs", from, s.Name(), s.Parent(), links)
			}
		}
	}
}

// TestRequestIDIsLogged: the id that an answer has can be found in the log.
func TestRequestIDIsLogged(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Request-Id", "abc") })
	do(t, http.DefaultClient, http.MethodGet, b.start(t)+"/", nil, "X-Request-Id", "theirs")
	eventually(t, "the line", func() bool { return len(b.lines(t, "request")) == 1 })
	if got := b.lines(t, "request")[0]["request_id"]; got != "abc" {
		t.Errorf("request_id is %v, want that of the answer", got)
	}
}

// TestHeldRefusalHasNoMark: a server that keeps refusals back is called from outside.
func TestHeldRefusalHasNoMark(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{Limit: server.Limit{Hold: time.Millisecond}})
	b.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Kaptar-Overload", "queue_full") // of a service that was called
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	if a := do(t, http.DefaultClient, http.MethodGet, b.start(t)+"/", nil); a.status != http.StatusServiceUnavailable || a.header.Get("Kaptar-Overload") != "" {
		t.Errorf("got %d %v, want 503 without a mark", a.status, a.header)
	}
}

// TestVersionFrom: the versions that a caller asks for reach what the handler calls, from those whose
// wishes count, if they can be read and come once.
func TestVersionFrom(t *testing.T) {
	t.Parallel()
	for from, counts := range map[string]bool{"": true, "127.0.0.1": true, "none": false, "10.0.0.0/8": false} {
		b := setup(t, server.Options{VersionFrom: peers(t, from)})
		var seen string
		var header []string
		b.HandleFunc("GET /", func(_ http.ResponseWriter, r *http.Request) {
			seen, header = wanted.From(r.Context()).Text(), r.Header[wanted.Header]
		})
		b.GRPC().RegisterService(&echoDesc, echo{onSay: func(ctx context.Context, _ string) (string, error) {
			seen = wanted.From(ctx).Text()
			return "", nil
		}})
		url := b.start(t)
		for _, tt := range []struct {
			values []string
			want   string
		}{
			{[]string{"user-service=v2,order-service=v3"}, "user-service=v2, order-service=v3"},
			{[]string{"user-service=v2", "order-service=v3"}, ""},
			{[]string{"user-service"}, ""},
			{[]string{"user-service=v2;q=1"}, ""},
			{[]string{strings.Repeat("x", 3000) + "=v2"}, ""},
			{nil, ""},
		} {
			md := metadata.MD{}
			for _, v := range tt.values {
				md.Append(wanted.Metadata, v)
			}
			get := func(url string, rt http.RoundTripper) int {
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/", nil)
				req.Header[wanted.Header] = tt.values
				resp, err := rt.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				return resp.StatusCode
			}
			rpc := func(conn grpc.ClientConnInterface) int {
				if _, err := say(metadata.NewOutgoingContext(t.Context(), md), conn, ""); err != nil {
					t.Fatal(err)
				}
				return 200
			}
			for what, call := range map[string]func() int{
				"request":                    func() int { return get(url, http.DefaultTransport) },
				"RPC":                        func() int { return rpc(b.dial(t)) },
				"request within the process": func() int { return get("http://users", inproc.RoundTripper(b.Handler())) },
				"RPC within the process":     func() int { return rpc(b.InProcess()) },
			} {
				want := tt.want
				if !counts && !strings.HasSuffix(what, "process") {
					want = ""
				}
				seen, header = "not called", nil
				if status := call(); status != 200 || seen != want {
					t.Errorf("wishes from %q: a %s with %.80q: %d, the handler's calls want %q, want %q", from, what, tt.values, status, seen, want)
				}
				if !counts && what == "request" && len(header) > 0 {
					t.Errorf("the handler saw %q", header)
				}
			}
		}
	}
}
