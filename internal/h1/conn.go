package h1

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"syscall"
	"time"
)

// conn is a connection to a server. One call at a time uses it, on the caller's goroutine.
type conn struct {
	socket socket
	rw     io.ReadWriter // the socket, or TLS over it
	tls    *tls.ConnectionState
	pool   *pool
	host   *host
	idleAt time.Duration // on the pool's clock; zero before the first time

	buf   []byte // buf[r:w] is what was read, and not used yet
	r, w  int
	heard bool // something has come since the request went out
}

// bufferSize is what an idle connection holds; a longer head makes it grow for the time being.
const bufferSize = 4 << 10

func newConn(p *pool, h *host, raw net.Conn) *conn {
	c := &conn{pool: p, host: h, buf: make([]byte, bufferSize)}
	c.rw, c.socket.Conn = &c.socket, raw
	if sc, ok := raw.(syscall.Conn); ok {
		if sys, err := sc.SyscallConn(); err == nil {
			c.socket.peek = peeker(sys)
		}
	}
	return c
}

// alive reports whether a connection that was idle can be used: it is open, and nothing has come
// that nobody asked for. Such bytes would be taken for the answer to the next request.
func (c *conn) alive() bool {
	c.socket.quick = true
	err := c.fill(bufferSize)
	c.socket.quick = false
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// exchange sends a request and reads the answer. After an error the connection must be closed;
// again then says that the request may be made over another one.
func (c *conn) exchange(ctx context.Context, req *http.Request, m *message) (resp *http.Response, again bool, err error) {
	c.socket.begin(ctx)
	sent := c.socket.sent
	c.heard = false
	_, failed := c.rw.Write(m.b)
	// A server may answer and close before it has read all: the answer counts, not our write.
	if failed == nil || (ctx.Err() == nil && c.socket.sent > sent) {
		resp, err = c.answer(req, m.trace, failed == nil)
	}
	switch {
	case resp != nil:
		return resp, false, nil
	case ctx.Err() != nil: // whatever else went wrong because of it
		return nil, false, context.Cause(ctx)
	case failed != nil:
		err = failed
	}
	again = c.idleAt > 0 && !c.heard && (m.replay || c.socket.sent == sent) && !errors.Is(err, context.DeadlineExceeded)
	return nil, again, fmt.Errorf("h1: %s: %w", c.host.key.address(), err)
}

// answer reads the final response to req.
func (c *conn) answer(req *http.Request, trace *httptrace.ClientTrace, sent bool) (*http.Response, error) {
	for left := maxHead; ; {
		size, fields, err := c.head(left)
		if err != nil {
			return nil, err
		}
		left -= size
		a := new(answer)
		text := string(c.buf[c.r:c.w]) // a short body as well
		if err := a.parse(text[:size], fields); err != nil {
			return nil, err
		}
		c.r += size
		if a.StatusCode >= 200 {
			if err := a.frame(req.Method); err != nil {
				return nil, err
			}
			a.Request, a.TLS = req, c.tls
			c.body(a, text[size:], sent)
			return &a.Response, nil
		}
		if a.StatusCode == http.StatusSwitchingProtocols || a.Header["Content-Length"] != nil || a.Header["Transfer-Encoding"] != nil {
			return nil, errInformational
		}
		if trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(a.StatusCode, textproto.MIMEHeader(a.Header)); err != nil {
				return nil, err
			}
		}
	}
}

// fill reads more, into a buffer of at most limit bytes.
func (c *conn) fill(limit int) error {
	switch {
	case c.r == c.w:
		c.r, c.w = 0, 0
	case c.w == len(c.buf) && c.r > 0:
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	case c.w == len(c.buf):
		if len(c.buf) >= limit {
			return errTooLong
		}
		c.buf = append(c.buf, make([]byte, min(len(c.buf), limit-len(c.buf)))...)
	}
	n, err := c.rw.Read(c.buf[c.w:])
	c.w += n
	if n > 0 {
		c.heard = true
		return nil // an error comes again
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// line returns the length of the line that begins off bytes from here, with its CRLF. It must end
// less than limit bytes from here.
func (c *conn) line(off, limit int) (int, error) {
	for from := off; ; {
		if i := bytes.IndexByte(c.buf[c.r+from:c.w], '\n'); i >= 0 {
			end := from + i + 1
			if end-off < 2 || c.buf[c.r+end-2] != '\r' {
				return 0, errBareLF
			}
			if end > limit {
				return 0, errTooLong
			}
			return end - off, nil
		}
		if from = c.w - c.r; from >= limit {
			return 0, errTooLong
		}
		if err := c.fill(limit); err != nil {
			if err == io.EOF && c.w > c.r { //nolint:errorlint // as io.Reader says
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
}

// head returns the length of the lines from here up to and with an empty one, and how many are
// before that.
func (c *conn) head(limit int) (size, lines int, err error) {
	for {
		n, err := c.line(size, limit)
		if err != nil {
			return 0, 0, err
		}
		size += n
		if n == 2 {
			return size, lines, nil
		}
		if lines++; lines > maxFields+1 {
			return 0, 0, errTooManyFields
		}
	}
}

// release ends a call whose answer was read to its end.
func (c *conn) release(reuse bool) {
	if ok := c.socket.end(); !ok || !reuse || c.r < c.w {
		c.close()
		return
	}
	if len(c.buf) > bufferSize {
		c.buf = make([]byte, bufferSize)
	}
	if !c.pool.put(c) {
		c.close()
	}
}

// close may be called once by whoever has the connection.
func (c *conn) close() {
	_ = c.socket.Close() // nothing is expected of it any more
	c.pool.forget(c.host)
}
