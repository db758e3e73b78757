package transport

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	otelcodes "go.opentelemetry.io/otel/codes"

	"github.com/kaptar/kaptar/internal/deadline"
	"github.com/kaptar/kaptar/telemetry"
)

// body is the body of a response that the caller has. The call ends with it, or with its Close.
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

// uploadStep is how much of a request's body must go out for the call's own deadline to begin anew.
// The server counts alike, so that an upload may be long as long as it moves.
const uploadStep = 64 << 10

type upload struct {
	io.ReadCloser
	c     *httpCall
	limit *deadline.Limit
	step  int
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if u.step += n; u.step >= uploadStep {
		u.step = 0
		u.limit.Move(time.Now().Add(u.c.deadline - u.c.began))
	}
	return n, err
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
	broken := err != io.EOF && c.ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled)
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
