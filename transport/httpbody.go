package transport

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	otelcodes "go.opentelemetry.io/otel/codes"
	"golang.org/x/net/http/httpguts"

	"github.com/kaptar/kaptar/internal/deadline"
	"github.com/kaptar/kaptar/telemetry"
)

// body is the body of a response. The call ends at its end, or with its Close.
type body struct {
	io.ReadCloser
	c     *httpCall
	ended atomic.Bool
}

// upgraded is the body of a response with status 101, which net/http also lets the caller write to.
type upgraded struct {
	*body
	io.Writer
}

// uploadStep is how much of a request's body must be sent for the call's own deadline to start
// again, as in package server, so that an upload may last as long as it makes progress.
const uploadStep = 64 << 10

// upload is the body of a request that is being sent. It knows whether the call waits for the
// caller.
type upload struct {
	io.ReadCloser
	c       *httpCall
	limit   *deadline.Limit // nil when the call has no deadline of its own
	length  int64           // as announced; -1 when unknown
	read    int64
	step    int
	reading atomic.Bool
	bad     atomic.Bool // the caller's body failed
	closed  atomic.Bool // the inner transport wants no more of it
	stuck   atomic.Bool // and was waiting for it
}

func (u *upload) start(body io.ReadCloser, c *httpCall) {
	u.ReadCloser, u.c, u.limit, u.length = body, c, c.limit, c.req.ContentLength
	if u.length == 0 { // there is a body: net/http takes it for one of unknown length
		u.length = -1
	}
}

func (u *upload) Read(p []byte) (int, error) {
	u.reading.Store(true)
	n, err := u.ReadCloser.Read(p)
	u.reading.Store(false)
	u.read += int64(n)
	if u.length >= 0 && u.read > u.length || err == io.EOF && u.read < u.length || err != nil && err != io.EOF && !u.closed.Load() {
		u.bad.Store(true)
	}
	if u.step += n; u.limit != nil && u.step >= uploadStep {
		u.step = 0
		u.limit.Move(time.Now().Add(u.c.deadline - u.c.began))
	}
	return n, err
}

func (u *upload) Close() error {
	if u.reading.Load() {
		u.stuck.Store(true)
	}
	u.closed.Store(true)
	return u.ReadCloser.Close()
}

// broken reports whether the caller's body failed, or has another length than it said.
func (u *upload) broken() bool { return u != nil && u.bad.Load() }

// waits reports whether the caller has yet to bring the next part.
func (u *upload) waits() bool { return u != nil && (u.reading.Load() || u.stuck.Load()) }

func (c *httpCall) finish(resp *http.Response, err error) (*http.Response, error) {
	took := c.t.now() - c.began
	if err != nil {
		if !c.sent {
			closeBody(c.req)
		}
		why := reason(err)
		c.counts().answered(overHTTP, 0, why, took)
		other := c.insteadOf(nil, err)
		c.endHTTPSpan(why, err)
		if other != nil {
			return other, nil
		}
		return nil, err
	}
	c.counts().http(resp.StatusCode, took)
	c.endHTTPHead(resp.StatusCode)
	if resp.StatusCode >= http.StatusInternalServerError {
		if other := c.insteadOf(resp, nil); other != nil {
			c.discard(resp)
			c.span.End()
			return other, nil
		}
	}
	resp.Request = c.req
	c.wrap(resp)
	return resp, nil
}

// wrap lets the call end with the response's body.
func (c *httpCall) wrap(resp *http.Response) {
	if resp.Body == http.NoBody {
		c.release()
		c.span.End()
		return
	}
	b := &c.body
	b.ReadCloser, b.c = resp.Body, c
	resp.Body = b
	if w, ok := b.ReadCloser.(io.Writer); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = upgraded{b, w}
	}
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.end(err)
	}
	return n, err
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.end(io.EOF)
	return err
}

// end ends the call, the first time. A response that breaks off is a failure of the target. One
// that is cut by the deadline is not: it may be a stream that was never meant to end.
func (b *body) end(err error) {
	if b.ended.Swap(true) {
		return
	}
	c := b.c
	broken := err != io.EOF && c.ctx.Err() == nil && !c.upload.broken() && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled)
	switch {
	case c.recorded:
	case broken:
		c.record(failure, c.t.now()-c.started)
	default:
		c.record(success, 0)
	}
	if broken && c.span.IsRecording() {
		c.span.SetAttributes(telemetry.ErrorType.String(reason(err)))
		c.span.SetStatus(otelcodes.Error, err.Error())
	}
	c.release()
	c.span.End()
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close() // the caller's own error, which it can see itself
	}
}

// wellFormed reports whether the request can be sent at all. Inner transports refuse others.
func wellFormed(req *http.Request) bool {
	for name, values := range req.Header {
		if !httpguts.ValidHeaderFieldName(name) || slices.ContainsFunc(values, func(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }) {
			return false
		}
	}
	return req.Method == "" || httpguts.ValidHeaderFieldName(req.Method)
}
