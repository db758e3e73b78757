package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/kaptar/kaptar/internal/deadline"
	"github.com/kaptar/kaptar/internal/dependency"
	"github.com/kaptar/kaptar/internal/h1"
	"github.com/kaptar/kaptar/internal/inproc"
	"github.com/kaptar/kaptar/internal/limit"
	"github.com/kaptar/kaptar/internal/wanted"
	"github.com/kaptar/kaptar/telemetry"
)

type httpCall struct {
	call
	req    *http.Request      // the caller's: read, never written
	sent   bool               // an inner transport has the body, and closes it
	scope  *deadline.Limit    // of the attempt; nil for the caller's context
	abort  context.CancelFunc // of one of two attempts at the same time; nil for none
	limit  *deadline.Limit    // the call's own deadline; nil for none but the caller's
	upload *upload            // the body of the attempt; nil for none

	// What most calls need once is kept here, so that it costs no allocation of its own.
	body    body
	first   deadline.Limit // of the first attempt, like the next
	sending upload
}

// RoundTrip makes an HTTP call under the policies of its target, which is req.URL.Host. It does not
// modify req, and always closes its body. Errors wrap the cause: ErrOpen, ErrNoInstances,
// context.DeadlineExceeded, context.Canceled or the network's error. A response is returned
// whatever its status is. Its body must be read to the end or closed; until then the call is in
// progress, and its deadline applies. A redirect from another host to a service is not followed.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	t.once.Do(t.start)
	return t.client.RoundTrip(req)
}

// engine is the HTTP face inside the middleware of Options.Client.
type engine struct{ t *Transport }

func (e engine) RoundTrip(req *http.Request) (*http.Response, error) {
	c, err := e.t.newHTTPCall(req)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	var h *hedge
	if c.tg.hedges != nil && c.again {
		h = c.tg.hedges.of(cmp.Or(req.Method, http.MethodGet), req.URL.Path)
	}
	for {
		var resp *http.Response
		if h != nil && c.attempts == 0 {
			resp, err = c.hedged(h)
		} else {
			resp, err = c.try()
		}
		pause, ok := c.shouldRetry(resp, err)
		if !ok {
			if h != nil && err == nil && resp.StatusCode < 500 {
				h.took(e.t.now() - c.began)
			}
			return c.finish(resp, err)
		}
		if resp != nil {
			c.discard(resp)
		}
		if err := c.wait(pause); err != nil {
			return c.finish(nil, err)
		}
	}
}

func (t *Transport) newHTTPCall(req *http.Request) (*httpCall, error) {
	if req.URL == nil || req.URL.Host == "" || (req.URL.Scheme != "http" && req.URL.Scheme != "https") {
		return nil, fmt.Errorf("transport: url %q: expected http://service/… or https://host/…", shown(req.URL))
	}
	if err := strayed(req); err != nil {
		return nil, err
	}
	tg, err := t.target(req.URL.Host, req.URL.Scheme == "https")
	if err != nil {
		return nil, err
	}
	c := &httpCall{req: req, call: call{t: t, tg: tg, ctx: req.Context(), again: repeatable(req)}}
	c.identify()
	c.startHTTPSpan()
	c.open(false)
	return c, nil
}

// repeatable reports whether the same request may reach a service twice.
func repeatable(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
	default:
		if len(req.Header["Idempotency-Key"]) == 0 {
			return false
		}
	}
	return noBody(req) || req.GetBody != nil
}

func noBody(req *http.Request) bool { return req.Body == nil || req.Body == http.NoBody }

func (c *httpCall) try() (*http.Response, error) {
	if err := c.begin(); err != nil {
		return nil, err
	}
	return c.send()
}

// send is try for an attempt that has begun.
func (c *httpCall) send() (*http.Response, error) {
	ctx := c.bound()
	body, err := c.outgoingBody()
	if err != nil { // the caller's GetBody failed
		c.record(neutral, 0)
		c.release()
		c.again = false
		return nil, c.tg.fail(codes.Internal, "request body", err)
	}
	resp, err := c.exchange(ctx, body)
	late := c.scope != nil && !c.scope.Unguard() && !c.cancelled()
	if late {
		if err == nil {
			_ = resp.Body.Close()
		}
		resp, err = nil, context.DeadlineExceeded
	}
	took := c.t.now() - c.started
	if err == nil {
		c.lift(resp)
	}
	switch {
	case err != nil:
		out := c.unanswered(late, err)
		c.record(out, took)
		c.release()
		return nil, c.explain(err, out)
	case resp.StatusCode >= 500:
		c.record(c.failed(resp), took)
	case resp.Body == http.NoBody || resp.StatusCode == http.StatusSwitchingProtocols || c.permit.probe:
		// The breaker does not wait for what may be an endless stream.
		c.record(success, took)
	case !c.alone:
		c.in.succeeded(c.t.now(), took)
	}
	return resp, nil
}

// unanswered returns the outcome of an attempt without an answer. late means that the time limit of
// the attempt has ended it.
func (c *httpCall) unanswered(late bool, err error) outcome {
	switch {
	case c.cancelled(), c.upload.broken(), errors.Is(err, h1.ErrBody), !late && c.tooShort(c.t.now()), !wellFormed(c.req), exhausted(err), c.stoodStill():
		return neutral
	case late || errors.Is(c.ctx.Err(), context.DeadlineExceeded) || c.limit != nil && c.limit.Err() != nil:
		if c.upload.waits() { // for the caller, as the target does
			return neutral
		}
	}
	return failure
}

// failed returns the outcome of an answer with status 500 or more.
func (c *httpCall) failed(resp *http.Response) outcome {
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		c.full = resp.Header.Get(limit.Header) != ""
		if c.away = resp.Header.Get(dependency.Header); c.away != "" || c.full {
			return c.answered()
		}
	}
	if c.cancelled() || c.upload.broken() || c.tooShort(c.t.now()) || resp.StatusCode == http.StatusGatewayTimeout && (c.upload.waits() || c.stoodStill()) {
		return neutral
	}
	return failure
}

// bound returns the context of an attempt, with the deadline of the call. While another attempt is
// possible a guard ends it earlier, unless a response comes.
func (c *httpCall) bound() context.Context {
	ctx := c.ctx
	c.scope, c.limit = nil, nil
	now := c.started
	left, ok := c.left(now)
	own := c.tg.set.Retry.AttemptTimeout
	early := own > 0 && (!ok || own < left) && c.mayRepeat(now)
	if early || !c.inherited {
		c.scope = &c.first
		if c.attempts > 1 { // the first attempt's may still be in use
			c.scope = new(deadline.Limit)
		}
		var at time.Time
		if ok && !c.inherited {
			c.limit, at = c.scope, c.t.began.Add(c.deadline)
		}
		ctx = c.scope.Start(ctx, at)
		if early {
			c.until = now + own
			c.scope.Guard(c.t.began.Add(c.until))
		}
	}
	if c.t.opts.TLS != nil {
		ctx = context.WithValue(ctx, calledKey{}, c.tg.service)
	}
	return ctx
}

// lift removes the call's own deadline from a response that is a stream: one of unknown length, or
// an upgraded connection. The caller's context still ends it.
func (c *httpCall) lift(resp *http.Response) {
	if c.limit != nil && (resp.ContentLength < 0 || resp.StatusCode == http.StatusSwitchingProtocols) {
		c.limit.Move(time.Time{})
	}
}

// exchange sends the request of an attempt and returns the answer.
func (c *httpCall) exchange(ctx context.Context, body io.ReadCloser) (*http.Response, error) {
	next, header := c.roundTripper(), c.header()
	switch next := next.(type) {
	case *inproc.Transport:
		return next.Do(ctx, c.req, &h1.Change{Header: header, Body: body})
	case *h1.Transport:
		resp, err := next.Do(ctx, c.req, &h1.Change{Host: c.in.HTTP, TLS: c.t.opts.TLS != nil, Header: header, Body: body})
		if !errors.Is(err, h1.ErrNotLean) {
			return resp, err
		}
	}
	return next.RoundTrip(c.outgoing(ctx, body, header))
}

// outgoing is the caller's request with the context, address, header and body of an attempt.
func (c *httpCall) outgoing(ctx context.Context, body io.ReadCloser, header [5]h1.Field) *http.Request {
	out := c.req.WithContext(ctx)
	if c.local.http == nil && !c.external {
		u := *c.req.URL
		u.Host = c.in.HTTP
		if c.t.opts.TLS != nil {
			u.Scheme = "https"
		}
		out.URL = &u
		out.Host = cmp.Or(out.Host, c.req.URL.Host)
	}
	out.Header = make(http.Header, len(c.req.Header)+len(header))
	for k, v := range c.req.Header {
		out.Header[k] = slices.Clip(v) // who appends gets a copy
	}
	values := make([]string, len(header))
	for i, f := range header {
		if f.Name != "" {
			values[i] = f.Value
			out.Header[f.Name] = values[i : i+1 : i+1]
		}
	}
	if body != nil {
		out.Body = body
	}
	return out
}

// outgoingBody is the request's body for an attempt, nil for none.
func (c *httpCall) outgoingBody() (io.ReadCloser, error) {
	if noBody(c.req) {
		return nil, nil //nolint:nilnil // as in a request
	}
	body, u := c.req.Body, &c.sending
	if c.sent {
		again, err := c.req.GetBody()
		if err != nil {
			return nil, err
		}
		body, u = again, new(upload) // the first attempt's may still be read
	}
	c.sent, c.upload = true, u
	u.start(body, c)
	return u, nil
}

// header returns the headers that an attempt adds: trace, deadline, principal and versions.
func (c *httpCall) header() (h [5]h1.Field) {
	sc := c.spanOf().SpanContext()
	if parent := telemetry.FormatTraceparent(sc); parent != "" {
		h[0] = h1.Field{Name: "Traceparent", Value: parent}
		if state := sc.TraceState(); state.Len() > 0 {
			h[1] = h1.Field{Name: "Tracestate", Value: state.String()}
		}
	}
	if left, ok := c.left(c.started); ok {
		h[2] = h1.Field{Name: deadline.Header, Value: deadline.Format(left - answerTime)}
	}
	principal, versions := c.sends()
	if principal != "" {
		h[3] = h1.Field{Name: PrincipalHeader, Value: principal}
	}
	if versions != "" {
		h[4] = h1.Field{Name: wanted.Header, Value: versions}
	}
	return h
}

func (c *httpCall) roundTripper() http.RoundTripper {
	next := c.t.http
	switch {
	case c.local.http != nil:
		next = c.local.http
	case c.external:
		next = c.t.httpDNS
	}
	if f, ok := c.fault(cmp.Or(c.req.Method, http.MethodGet), c.req.URL.Path); ok {
		return faultyHTTP{f, next}
	}
	return next
}

// release ends an attempt. It must be called once for each.
func (c *httpCall) release() {
	c.in.release()
	if c.scope != nil {
		c.scope.Cancel(nil)
	}
	if c.abort != nil {
		c.abort()
	}
}

// shouldRetry decides whether the attempt is made again, and after what pause.
func (c *httpCall) shouldRetry(resp *http.Response, err error) (time.Duration, bool) {
	// A refusal for overload means that nothing was done yet.
	again := c.again || c.full && (noBody(c.req) || c.req.GetBody != nil)
	if !again || errors.Is(err, ErrOpen) || errors.Is(err, ErrNoInstances) {
		return 0, false
	}
	asked := time.Duration(-1)
	if err == nil {
		switch resp.StatusCode {
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		default:
			return 0, false
		}
		if !c.full { // else another instance may have room now
			asked = retryAfter(resp.Header.Get("Retry-After"))
		}
	}
	return c.repeat(asked)
}

// retryAfter reads the header's two forms; negative means that it says nothing.
func retryAfter(value string) time.Duration {
	if s, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(time.Until(at), 0)
	}
	return -1
}

// discard ends a response that the caller will not see. A short body is read, for keep-alive.
func (c *httpCall) discard(resp *http.Response) {
	if resp.ContentLength >= 0 && resp.ContentLength <= 4<<10 {
		_, _ = io.Copy(io.Discard, resp.Body) // its end is all we want, and Close comes anyway
	}
	_ = resp.Body.Close()
	c.release()
}

// explain turns an inner transport's error into ours.
func (c *httpCall) explain(err error, out outcome) error {
	if c.cancelled() {
		return c.tg.fail(codes.Canceled, "", err)
	}
	failed := c.tg.fail(codes.Unavailable, c.in.ID, err)
	if errors.Is(err, context.DeadlineExceeded) {
		took := (c.t.now() - c.started).Round(time.Millisecond)
		failed = c.tg.fail(codes.DeadlineExceeded, fmt.Sprintf("no answer after %v from %s", took, c.in.ID), err)
	}
	if out == failure {
		failed.away = c.tg.name
	}
	return failed
}
