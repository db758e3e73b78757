package transport

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/kaptar/kaptar/internal/dependency"
	"github.com/kaptar/kaptar/internal/principal"
)

// A Fallback answers a call that its target did not: its breaker is open, it has no instances, it
// did not answer in time, or it failed. err is the reason. The caller gets the fallback's answer
// or, if the fallback returns an error, err. A nil func means no fallback over that protocol.
type Fallback struct {
	HTTP  func(req *http.Request, err error) (*http.Response, error)
	Unary func(ctx context.Context, method string, req, reply any, err error) error // fills reply
}

type fallbackKey struct{}

// WithFallback sets the fallback of calls with the context. It is not called if the caller has
// cancelled, or for streams. Its answers have the header Kaptar-Fallback, are counted in
// client_fallbacks_total, and set kaptar.fallback in the span. Other metrics and the span's status
// show the failure.
func WithFallback(ctx context.Context, f Fallback) context.Context {
	return context.WithValue(ctx, fallbackKey{}, f)
}

const fallbackHeader = "Kaptar-Fallback"

// fallback returns the fallback of a call that failed with err, none if the caller is the cause.
func (c *call) fallback(err error) (f Fallback) {
	if !c.cancelled() && (dependency.Of(err) != "" || errors.Is(err, context.DeadlineExceeded)) {
		f, _ = c.ctx.Value(fallbackKey{}).(Fallback)
	}
	return f
}

func (c *call) noteFallback() {
	c.tg.metrics.inc(c.tg.metrics.fallbacks)
	if c.span.IsRecording() {
		c.span.SetAttributes(fallbackAttr.Bool(true))
	}
}

// insteadOf returns the fallback's answer to a call that got err or a response with an error, or nil.
func (c *httpCall) insteadOf(resp *http.Response, err error) *http.Response {
	if err == nil {
		why := c.tg.fail(codes.Unavailable, c.in.ID, fmt.Errorf("answered %d", resp.StatusCode))
		why.away = c.tg.name
		err = why
	}
	f := c.fallback(err)
	if f.HTTP == nil {
		return nil
	}
	other, failed := f.HTTP(c.req, err)
	if failed != nil || other == nil {
		return nil
	}
	if other.Header == nil {
		other.Header = http.Header{}
	}
	other.Header.Set(fallbackHeader, "true")
	other.Request = c.req
	c.noteFallback()
	return other
}

// insteadOf is the same over gRPC.
func (u *unary) insteadOf(err error, reply any, opts []grpc.CallOption) error {
	f := u.fallback(err)
	if f.Unary == nil || f.Unary(u.ctx, u.method, u.args, reply, err) != nil {
		return err
	}
	for _, o := range opts {
		if h, ok := o.(grpc.HeaderCallOption); ok {
			*h.HeaderAddr = metadata.Join(*h.HeaderAddr, metadata.Pairs(fallbackHeader, "true"))
		}
	}
	u.noteFallback()
	return nil
}

// LastGood keeps good answers in memory and returns the last one while the target fails. It
// replaces the fallback in the context of the calls that it wraps. It keeps answers to GET with
// status 200, a length of up to 64 KiB and no Cache-Control: no-store, and answers to unary gRPC
// calls, 8 MiB in all. An answer is only for the same request with the same headers and principal.
// The zero value is ready to use. It must not be copied, or changed after the first call.
type LastGood struct {
	MaxAge time.Duration // of an answer that is given; default 5 minutes

	mu   sync.Mutex
	kept map[string]kept
	size int
}

type kept struct {
	at     time.Time
	header http.Header
	body   []byte
	size   int
}

const (
	keptAnswer = 64 << 10
	keptInAll  = 8 << 20 // then others make room, at random
)

// Client is middleware for HTTP: wrap the transport of App.Client, or add it to Options.Client.
func (l *LastGood) Client(next http.RoundTripper) http.RoundTripper {
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.Method != http.MethodGet && req.Method != "" {
			return next.RoundTrip(req)
		}
		key, failed := keyOf(req.Context(), req.URL.String(), req.Header), false
		ctx := WithFallback(req.Context(), Fallback{HTTP: func(_ *http.Request, err error) (*http.Response, error) {
			failed = true
			k, ok := l.get(key)
			if !ok {
				return nil, err
			}
			resp := textResponse(req, http.StatusOK, string(k.body))
			resp.Header = k.header.Clone()
			resp.Header.Set("Age", strconv.Itoa(int(time.Since(k.at).Seconds())))
			return resp, nil
		}})
		resp, err := next.RoundTrip(req.WithContext(ctx))
		if err != nil || failed || resp.StatusCode != http.StatusOK || resp.ContentLength < 0 || resp.ContentLength > keptAnswer ||
			strings.Contains(resp.Header.Get("Cache-Control"), "no-store") {
			return resp, err
		}
		body, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return nil, err
		}
		l.keep(key, kept{header: resp.Header.Clone(), body: body})
		resp.Body = io.NopCloser(bytes.NewReader(body))
		return resp, nil
	})
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// Unary is an interceptor for gRPC, for Options.Unary.
func (l *LastGood) Unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	asked, _ := req.(proto.Message)
	answer, ok := reply.(proto.Message)
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(asked)
	if !ok || err != nil { // the call says what is wrong
		return next(ctx, method, req, reply, cc, opts...)
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	key, failed := keyOf(ctx, method+" "+string(wire), md), false
	err = next(WithFallback(ctx, Fallback{Unary: func(_ context.Context, _ string, _, _ any, err error) error {
		failed = true
		if k, ok := l.get(key); ok {
			return proto.Unmarshal(k.body, answer)
		}
		return err
	}}), method, req, reply, cc, opts...)
	if err == nil && !failed {
		if body, bad := proto.Marshal(answer); bad == nil && len(body) <= keptAnswer {
			l.keep(key, kept{body: body})
		}
	}
	return err
}

func (l *LastGood) keep(key string, k kept) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept == nil {
		l.kept = map[string]kept{}
	}
	k.at, k.size = time.Now(), len(key)+len(k.body)+1<<10 // about, with its header
	l.size += k.size - l.kept[key].size
	l.kept[key] = k
	for other, o := range l.kept {
		if l.size <= keptInAll {
			break
		}
		l.size -= o.size
		delete(l.kept, other)
	}
}

func (l *LastGood) get(key string) (kept, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.kept[key]
	return k, ok && time.Since(k.at) <= cmp.Or(l.MaxAge, 5*time.Minute)
}

// keyOf identifies a request by its principal and all headers except those that differ in every
// call.
func keyOf(ctx context.Context, request string, headers map[string][]string) string {
	var b strings.Builder
	b.WriteString(principal.Tag(ctx))
	b.WriteByte(0)
	b.WriteString(request)
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		switch lower := strings.ToLower(name); {
		case lower == "traceparent", lower == "tracestate", lower == "user-agent", lower == "x-request-id", strings.HasPrefix(lower, "x-forwarded-"):
		default:
			fmt.Fprintf(&b, "\x00%s%q", lower, headers[name])
		}
	}
	return b.String()
}
