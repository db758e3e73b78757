package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/deadline"
	"github.com/kaptar/kaptar/internal/dependency"
	"github.com/kaptar/kaptar/internal/inproc"
)

var errBody = errors.New("the client's connection broke")

// badBody brings some bytes and then fails, or waits for ctx without an error.
type badBody struct {
	ctx context.Context
	err error
}

func (b *badBody) Read([]byte) (int, error) {
	if b.ctx != nil {
		<-b.ctx.Done()
		return 0, b.ctx.Err()
	}
	return 0, b.err
}

// lateBody waits for ctx, and is whole then.
type lateBody struct{ ctx context.Context }

func (b *lateBody) Read(p []byte) (int, error) {
	<-b.ctx.Done()
	return copy(p, "x"), io.EOF
}

// answering does what the path says.
func answering(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	switch r.URL.Path {
	case "/silent":
		<-r.Context().Done()
	case "/late": // as package server answers when the deadline has passed
		d, _ := deadline.Parse(r.Header.Get(deadline.Header))
		ctx, cancel := context.WithTimeout(r.Context(), d)
		defer cancel()
		<-ctx.Done()
		w.WriteHeader(http.StatusGatewayTimeout)
	case "/away":
		w.Header().Set(dependency.Header, "bank")
		w.WriteHeader(http.StatusServiceUnavailable)
	case "/503":
		w.WriteHeader(http.StatusServiceUnavailable)
	case "/marked-500": // that is its own failure, whatever it says
		w.Header().Set(dependency.Header, "bank")
		w.WriteHeader(http.StatusInternalServerError)
	case "/reset":
		panic(http.ErrAbortHandler)
	}
}

// overBoth runs check over the network and within the process, with the same handler.
func overBoth(t *testing.T, set Settings, check func(t *testing.T, tr *Transport)) {
	t.Run("network", func(t *testing.T) {
		t.Parallel()
		m := new(discovery.Memory)
		server(t, m, "order-service", "a", answering)
		check(t, over(t, Options{Resolver: m, Default: set}, nil))
	})
	t.Run("process", func(t *testing.T) {
		t.Parallel()
		l := new(Local)
		l.Add("a", http.HandlerFunc(answering), nil)
		check(t, over(t, Options{Resolver: listed("a"), Local: l, Default: set}, nil))
	})
}

// TestOnlyWhatTheTargetDidCounts: ten calls that fail for another reason leave the breaker closed, five
// for its own open it.
func TestOnlyWhatTheTargetDidCounts(t *testing.T) {
	t.Parallel()
	const short = 20 * time.Millisecond
	post := func(ctx context.Context, path string, body io.Reader) *http.Request {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://order-service"+path, body)
		if err != nil {
			t.Fatal(err)
		}
		return req
	}
	for name, tc := range map[string]struct {
		timeout time.Duration // the target's setting
		limit   time.Duration // the deadline from outside
		request func(ctx context.Context) *http.Request
		want    BreakerState
	}{
		"deadline from outside":       {0, short, func(ctx context.Context) *http.Request { return post(ctx, "/silent", nil) }, Closed},
		"504 at such a deadline":      {0, 2 * short, func(ctx context.Context) *http.Request { return post(ctx, "/late", nil) }, Closed},
		"deadline of the settings":    {short, 0, func(ctx context.Context) *http.Request { return post(ctx, "/silent", nil) }, Open},
		"504 at the settings'":        {2 * short, 0, func(ctx context.Context) *http.Request { return post(ctx, "/late", nil) }, Open},
		"a longer one from outside":   {short, time.Minute, func(ctx context.Context) *http.Request { return post(ctx, "/silent", nil) }, Open},
		"broken body":                 {0, 0, func(ctx context.Context) *http.Request { return post(ctx, "/", &badBody{err: errBody}) }, Closed},
		"body that does not come":     {short, 0, func(ctx context.Context) *http.Request { return post(ctx, "/", &badBody{ctx: deadlined(t, 2*short)}) }, Closed},
		"and a deadline from outside": {0, short, func(ctx context.Context) *http.Request { return post(ctx, "/", &badBody{ctx: ctx}) }, Closed},
		"announced, and does not come": {short, 0, func(ctx context.Context) *http.Request {
			return sized(post(ctx, "/", &badBody{ctx: deadlined(t, 2*short)}), 1)
		}, Closed},
		"announced, and comes late": {short, 0, func(ctx context.Context) *http.Request {
			return sized(post(ctx, "/", &lateBody{ctx: deadlined(t, 2*short)}), 1)
		}, Closed},
		"body shorter than announced":  {0, 0, func(ctx context.Context) *http.Request { return sized(post(ctx, "/", strings.NewReader("x")), 10) }, Closed},
		"body longer than announced":   {0, 0, func(ctx context.Context) *http.Request { return sized(post(ctx, "/", strings.NewReader("xxx")), 1) }, Closed},
		"header that cannot be sent":   {0, 0, func(ctx context.Context) *http.Request { return headed(post(ctx, "/", nil), "A", "x\ny") }, Closed},
		"a dependency of the target":   {0, 0, func(ctx context.Context) *http.Request { return post(ctx, "/away", nil) }, Closed},
		"503 without a reason":         {0, 0, func(ctx context.Context) *http.Request { return post(ctx, "/503", nil) }, Open},
		"500 that names a dependency":  {0, 0, func(ctx context.Context) *http.Request { return post(ctx, "/marked-500", nil) }, Open},
		"connection that is reset":     {0, 0, func(ctx context.Context) *http.Request { return post(ctx, "/reset", nil) }, Open},
		"reset, with a deadline ahead": {0, time.Second, func(ctx context.Context) *http.Request { return post(ctx, "/reset", nil) }, Open},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, Settings{Timeout: tc.timeout}, func(t *testing.T, tr *Transport) {
				for range 10 {
					ctx := t.Context()
					if tc.limit > 0 {
						ctx = deadlined(t, tc.limit)
					}
					_, err := send(t, tr, tc.request(ctx))
					if tc.want == Closed && errors.Is(err, ErrOpen) {
						t.Fatalf("a call was refused: %v", err)
					}
				}
				// What says that it is ready gets the next call after a second, and the breaker is half-open then.
				if got := tr.State("order-service"); (got == Closed) != (tc.want == Closed) {
					t.Errorf("after 10 calls the breaker is %s, want %s", got, tc.want)
				}
			})
		})
	}
}

// TestAStandstillIsNobodysFault: who notices a deadline long after it has passed has stood still.
func TestAStandstillIsNobodysFault(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodGet, http.MethodPost} { // with a limit for each attempt, and with one for all
		for late, want := range map[time.Duration]BreakerState{50 * time.Millisecond: Open, 2 * time.Second: Closed} {
			synctest.Test(t, func(t *testing.T) {
				var local Local
				local.Add("a", nil, tardy(late))
				set := Settings{Timeout: 3 * time.Second, Retry: RetrySettings{AttemptTimeout: time.Second, Max: 1}}
				tr := over(t, Options{Resolver: listed("a"), Default: set}, func(r *http.Request) (*http.Response, error) {
					return nil, tardy(late).Invoke(r.Context(), "", nil, nil)
				})
				told := over(t, Options{Resolver: listed("a"), Default: set}, func(r *http.Request) (*http.Response, error) { // a server here stood still as well
					_ = tardy(late).Invoke(r.Context(), "", nil, nil)
					return reply(r, http.StatusGatewayTimeout), nil
				})
				rpc := over(t, Options{Resolver: listed("a"), Local: &local, Default: set}, nil)
				ctx := t.Context()
				if method == http.MethodGet {
					ctx = WithIdempotent(ctx)
				}
				for range 10 {
					_, _ = do(t, tr, method, orders, nil)
					_, _ = do(t, told, method, orders, nil)
					_ = check(ctx, rpc, "")
				}
				for way, tr := range map[string]*Transport{"HTTP": tr, "HTTP with an answer": told, "gRPC": rpc} {
					if got := tr.State("order-service"); got != want {
						t.Errorf("%s over %s, late by %v: the breaker is %s, want %s", method, way, late, got, want)
					}
				}
			})
		}
	}
}

// tardy is a connection whose calls get no answer, and end this long after their deadlines.
type tardy time.Duration

// Invoke sleeps in a synctest bubble.
func (d tardy) Invoke(ctx context.Context, _ string, _, _ any, _ ...grpc.CallOption) error {
	<-ctx.Done()
	time.Sleep(time.Duration(d))
	return status.FromContextError(ctx.Err()).Err()
}

func (tardy) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.ErrUnsupported
}

func deadlined(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func sized(r *http.Request, n int64) *http.Request {
	r.ContentLength, r.GetBody = n, nil
	return r
}

func headed(r *http.Request, name, value string) *http.Request {
	r.Header[name] = []string{value}
	return r
}

// TestWhoseDeadlineItIs: a service gets the rest of its caller's time, which is a little less than the
// settings say, or its own server has chosen a short time.
func TestWhoseDeadlineItIs(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		limit  time.Duration
		chosen bool
		want   BreakerState
	}{
		"nearly the settings' time":   {4900 * time.Millisecond, false, Open},
		"much more than it":           {time.Minute, false, Open},
		"half of it":                  {2500 * time.Millisecond, false, Closed},
		"half, as our own server has": {2500 * time.Millisecond, true, Open},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, between := range []time.Duration{0, time.Second} { // a shorter deadline that the handler sets
				synctest.Test(t, func(t *testing.T) {
					tr := over(t, Options{Resolver: listed("a")}, func(r *http.Request) (*http.Response, error) {
						<-r.Context().Done()
						return nil, r.Context().Err()
					})
					for range 5 {
						var l deadline.Limit
						ctx := l.Start(t.Context(), time.Now().Add(tc.limit))
						l.Choose(tc.chosen)
						if between > 0 {
							var cancel context.CancelFunc
							ctx, cancel = context.WithTimeout(ctx, between)
							defer cancel()
						}
						req, _ := http.NewRequestWithContext(ctx, http.MethodPost, orders, nil)
						if _, err := send(t, tr, req); !errors.Is(err, context.DeadlineExceeded) {
							t.Fatalf("got %v, want a deadline", err)
						}
						l.Cancel(nil)
					}
					want := tc.want
					if between > 0 {
						want = Closed
					}
					if got := tr.State("order-service"); got != want {
						t.Errorf("with %v between: %s, want %s", between, got, want)
					}
				})
			}
		})
	}
}

// overdue is a context whose deadline has passed, but not its timer yet, as on a busy machine.
type overdue struct{ context.Context }

func (o overdue) Deadline() (time.Time, bool) { return time.Now(), true }

// TestOverdue: a call whose time is over when it begins is not made, and not repeated either.
func TestOverdue(t *testing.T) {
	t.Parallel()
	l := new(Local)
	l.Add("a", http.HandlerFunc(answering), refusing{})
	tr := over(t, Options{Resolver: listed("a"), Local: l}, nil)
	ctx := overdue{t.Context()}
	if err := tr.Conn("order-service").Invoke(WithIdempotent(ctx), "/order.v1.OrderService/Get", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("gRPC: got %v, want that the deadline has passed", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, orders, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := send(t, tr, req); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("HTTP: got %v, want that the deadline has passed", err)
	}
}

// TestAMarkedAnswerIsNotRepeated: who tells of a dependency has repeated what there was to repeat.
func TestAMarkedAnswerIsNotRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen, mark, status := 0, "bank", 503
		tr := over(t, Options{Resolver: listed("a")}, func(r *http.Request) (*http.Response, error) {
			seen++
			return reply(r, status, dependency.Header, mark), nil
		})
		for range 20 {
			if got, err := do(t, tr, http.MethodGet, orders, nil); got != 503 || err != nil {
				t.Fatalf("got %d, %v, want the answer", got, err)
			}
		}
		if seen != 20 || tr.State("order-service") != Closed {
			t.Fatalf("20 calls made %d attempts and the breaker %s, want 20 and closed", seen, tr.State("order-service"))
		}
		mark = ""
		for range 5 {
			_, _ = do(t, tr, http.MethodPost, orders, nil)
		}
		time.Sleep(time.Minute)
		mark = "bank" // the target is there again, and that is all its own breaker is about
		_, _ = do(t, tr, http.MethodPost, orders, nil)
		if got := tr.State("order-service"); got != Closed {
			t.Errorf("after a probe that was answered so: %s, want closed", got)
		}
	})
}

// TestWantOfDescriptors on this machine is held against nobody else.
func TestWantOfDescriptors(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("dial tcp: %w", os.NewSyscallError("socket", syscall.EMFILE))
	var l Local
	l.Add("a", nil, failing{status.Error(codes.Unavailable, "connection error: desc = "+err.Error())})
	tr := over(t, Options{Resolver: listed("a"), Local: &l}, func(*http.Request) (*http.Response, error) { return nil, err })
	for range 10 {
		if _, err := do(t, tr, http.MethodPost, orders, nil); !errors.Is(err, syscall.EMFILE) || dependency.Of(err) != "" {
			t.Fatalf("got %v that tells of %q, want the error and nobody", err, dependency.Of(err))
		}
		if err := check(t.Context(), tr, ""); status.Code(err) != codes.Unavailable {
			t.Fatalf("over gRPC: %v", err)
		}
	}
	if got := tr.State("order-service"); got != Closed {
		t.Errorf("the breaker is %s, want closed", got)
	}
}

// failing is a connection whose calls fail.
type failing struct{ error }

func (f failing) Invoke(context.Context, string, any, any, ...grpc.CallOption) error { return f.error }

func (f failing) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, f.error
}

// TestErrorsTellTheDependency: a server passes on what the error of a call says.
func TestErrorsTellTheDependency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // or an attempt of a millisecond may end so late that it tells nothing
		m := listed("refused")
		_ = m.Register(t.Context(), discovery.Instance{ID: "silent", Service: "silent-service", HTTP: "silent:80"})
		tr := over(t, Options{Resolver: m, Targets: map[string]Settings{"silent-service": {Timeout: time.Millisecond}}}, func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "refused:80" {
				return nil, errors.New("connection refused")
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for _, tc := range []struct {
			ctx       context.Context
			url, want string
		}{
			{t.Context(), orders, "order-service"},
			{t.Context(), "http://unknown-service/", "unknown-service"},
			{t.Context(), "http://silent-service/", "silent-service"},
			{deadlined(t, -1), "http://silent-service/", ""},
			{ended, orders, ""},
		} {
			req, _ := http.NewRequestWithContext(tc.ctx, http.MethodPost, tc.url, nil)
			_, err := send(t, tr, req)
			if got := dependency.Of(err); got != tc.want || err == nil {
				t.Errorf("%s: %v tells of %q, want %q", tc.url, err, got, tc.want)
			}
		}
		for range 5 {
			_, _ = do(t, tr, http.MethodPost, orders, nil)
		}
		if _, err := do(t, tr, http.MethodPost, orders, nil); !errors.Is(err, ErrOpen) || dependency.Of(err) != "order-service" {
			t.Errorf("an open breaker: %v tells of %q, want order-service", err, dependency.Of(err))
		}
	})
}

// TestOnlyWhatTheTargetDidCountsOverGRPC is the same over gRPC, unary and in streams.
func TestOnlyWhatTheTargetDidCountsOverGRPC(t *testing.T) {
	t.Parallel()
	h := &health{check: func(ctx context.Context, service string) error {
		switch service {
		case "silent":
			<-ctx.Done()
			return ctx.Err()
		case "away":
			_ = grpc.SetTrailer(ctx, metadata.Pairs(dependency.Trailer, "bank"))
			return status.Error(codes.Unavailable, "the bank is away")
		case "unavailable":
			return status.Error(codes.Unavailable, "no")
		case "answer": // that cannot be marshalled
			return status.Error(codes.Internal, "grpc: error while marshaling: string field contains invalid UTF-8")
		}
		return nil
	}}
	type client = grpc_health_v1.HealthClient
	unary := func(service string, opts ...grpc.CallOption) func(context.Context, client) error {
		return func(ctx context.Context, c client) error {
			_, err := c.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service}, opts...)
			return err
		}
	}
	stream := func(service string, opts ...grpc.CallOption) func(context.Context, client) error {
		return func(ctx context.Context, c client) error {
			s, err := c.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: service}, opts...)
			if err != nil {
				return err
			}
			_, err = s.Recv()
			return err
		}
	}
	for name, tc := range map[string]struct {
		limit time.Duration
		call  func(context.Context, client) error
		want  BreakerState
		tells string
	}{
		"text that is not UTF-8":            {0, unary("\xff"), Closed, ""},
		"request that may not be sent":      {0, unary("long enough", grpc.MaxCallSendMsgSize(1)), Closed, ""},
		"answer that is not accepted":       {0, unary("", grpc.MaxCallRecvMsgSize(1)), Closed, ""},
		"deadline from outside":             {20 * time.Millisecond, unary("silent"), Closed, ""},
		"a dependency of the target":        {0, unary("away"), Closed, "bank"},
		"unavailable":                       {0, unary("unavailable"), Open, "order-service"},
		"answer that cannot be marshalled":  {0, unary("answer"), Open, "order-service"},
		"stream, text that is not UTF-8":    {0, stream("\xff"), Closed, ""},
		"stream, request that is too large": {0, stream("long enough", grpc.MaxCallSendMsgSize(1)), Closed, ""},
		"stream, deadline from outside":     {20 * time.Millisecond, stream("quiet"), Closed, ""},
		"stream, a dependency":              {0, stream("away"), Closed, "bank"},
		"stream, unavailable":               {0, stream("fail"), Open, "order-service"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, where := range []string{"network", "process"} {
				t.Run(where, func(t *testing.T) {
					t.Parallel()
					opts := Options{Resolver: listed("a"), Local: new(Local)}
					if where == "network" {
						address, _ := serve(t, h)
						opts.Resolver = grpcListed(t, address)
					} else {
						ch := inproc.NewChannel(nil, nil)
						grpc_health_v1.RegisterHealthServer(ch, h)
						opts.Local.Add("a", nil, ch)
					}
					tr := over(t, opts, nil)
					c := grpc_health_v1.NewHealthClient(tr.Conn("order-service"))
					for i := range 10 {
						ctx := t.Context()
						if tc.limit > 0 {
							ctx = deadlined(t, tc.limit)
						}
						err := tc.call(ctx, c)
						if err == nil || tc.want == Closed && errors.Is(err, ErrOpen) {
							t.Fatalf("call %d: got %v", i+1, err)
						}
						if got := dependency.Of(err); got != tc.tells {
							t.Fatalf("call %d: %v tells of %q, want %q", i+1, err, got, tc.tells)
						}
					}
					if got := tr.State("order-service"); got != tc.want {
						t.Errorf("after 10 calls the breaker is %s, want %s", got, tc.want)
					}
				})
			}
		})
	}
}
