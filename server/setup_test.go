package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kaptar/kaptar/internal/inproc"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/telemetry"
)

// bundle is a server and what a test wants to see of it.
type bundle struct {
	*server.Server
	log *buffer
	tel *telemetry.Telemetry
}

// setup returns a server with telemetry of its own that does not listen yet.
func setup(t *testing.T, opts server.Options) *bundle {
	t.Helper()
	b := &bundle{log: &buffer{}}
	var err error
	b.tel, err = telemetry.New(t.Context(), telemetry.Options{Service: "users", Log: telemetry.LogOptions{Output: b.log, Format: "json"}})
	if err != nil {
		t.Fatal(err)
	}
	opts.HTTP, opts.GRPC, opts.Telemetry = "127.0.0.1:0", "127.0.0.1:0", b.tel
	b.Server = server.New(opts)
	return b
}

// start serves until the end of the test and returns the HTTP base URL.
func (b *bundle) start(t *testing.T) string {
	t.Helper()
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = b.Shutdown(ctx) // a test that cares has shut down before
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return "http://" + b.HTTPAddr()
}

// clients are the two ways to a server: the same must be seen on both.
func (b *bundle) clients(t *testing.T) map[string]*http.Client {
	t.Helper()
	network := &http.Transport{}
	t.Cleanup(network.CloseIdleConnections)
	return map[string]*http.Client{
		"network":    {Transport: network},
		"in process": {Transport: inproc.RoundTripper(b.Handler())},
	}
}

func (b *bundle) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(b.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// lines are the log records with the message msg.
func (b *bundle) lines(t *testing.T, msg string) []map[string]any {
	t.Helper()
	var out []map[string]any
	for line := range strings.Lines(b.log.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("log line is not JSON: %s", line)
		}
		if m["msg"] == msg {
			out = append(out, m)
		}
	}
	return out
}

// metric is the value of a counter, or the count of a histogram, with exactly
// these labels; -1 when there is none.
func (b *bundle) metric(t *testing.T, name string, labels prometheus.Labels) float64 {
	t.Helper()
	families, err := b.tel.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			same := f.GetName() == name && len(m.Label) == len(labels)
			for _, l := range m.Label {
				same = same && labels[l.GetName()] == l.GetValue()
			}
			switch {
			case !same:
			case m.Counter != nil:
				return m.Counter.GetValue()
			default:
				return float64(m.Histogram.GetSampleCount())
			}
		}
	}
	return -1
}

type answer struct {
	status int
	header http.Header
	body   string
}

func do(t *testing.T, c *http.Client, method, url string, body io.Reader, header ...string) answer {
	t.Helper()
	a, err := try(t.Context(), c, method, url, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return a
}

func try(ctx context.Context, c *http.Client, method, url string, body io.Reader, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(data)}, err
}

// problem checks that a is one and returns it.
func (a answer) problem(t *testing.T, status int) server.Problem {
	t.Helper()
	var p server.Problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("answer %d %q %q is no problem+json", a.status, a.header.Get("Content-Type"), a.body)
	}
	if a.status != status || p.Status != status || p.Type != "about:blank" || p.Title != http.StatusText(status) || len(p.TraceID) != 32 {
		t.Errorf("got status %d and %+v, want %d with type, title and trace_id", a.status, p, status)
	}
	return p
}

func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	waittest.Until(tb, what, ok)
}

// buffer is a bytes.Buffer for concurrent use.
type buffer = waittest.Buffer

// echoServer is a gRPC service: Say is unary, Watch streams both ways.
type echoServer interface {
	say(ctx context.Context, text string) (string, error)
	watch(grpc.ServerStream) error
}

type echo struct {
	onSay   func(context.Context, string) (string, error)
	onWatch func(grpc.ServerStream) error
}

func (e echo) say(ctx context.Context, s string) (string, error) { return e.onSay(ctx, s) }
func (e echo) watch(ss grpc.ServerStream) error                  { return e.onWatch(ss) }

const (
	sayMethod   = "/test.v1.Echo/Say"
	watchMethod = "/test.v1.Echo/Watch"
)

var echoDesc = grpc.ServiceDesc{
	ServiceName: "test.v1.Echo",
	HandlerType: (*echoServer)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Say", Handler: func(srv any, ctx context.Context, dec func(any) error, ic grpc.UnaryServerInterceptor) (any, error) {
		in := &wrapperspb.StringValue{}
		if err := dec(in); err != nil {
			return nil, err
		}
		handle := func(ctx context.Context, req any) (any, error) {
			out, err := srv.(echoServer).say(ctx, req.(*wrapperspb.StringValue).Value)
			return wrapperspb.String(out), err
		}
		if ic == nil {
			return nil, errors.New("no interceptor")
		}
		return ic(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: sayMethod}, handle)
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Watch", ServerStreams: true, ClientStreams: true, Handler: func(srv any, ss grpc.ServerStream) error {
		return srv.(echoServer).watch(ss)
	}}},
}

var watchDesc = &grpc.StreamDesc{StreamName: "Watch", ServerStreams: true, ClientStreams: true}

func say(ctx context.Context, c grpc.ClientConnInterface, s string) (string, error) {
	out := &wrapperspb.StringValue{}
	err := c.Invoke(ctx, sayMethod, wrapperspb.String(s), out)
	return out.Value, err
}
