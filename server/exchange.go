package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// bodyTime is how long a request body may take to arrive.
const bodyTime = 30 * time.Second

// exchange is one request and its answer on the way through the chain. It is
// the http.ResponseWriter of the handler.
type exchange struct {
	http.ResponseWriter
	server *Server
	req    *http.Request // as the mux gets it, and writes Pattern into
	base   context.Context
	span   trace.Span
	flight flight
	start  time.Time
	method string // as a label
	bytes  int64
	status int // 0 until the header is written

	byCaller  bool // the caller set the deadline
	streaming bool
	tooLarge  bool // the body is larger than allowed
	replaced  bool // a problem was sent instead of what the handler writes
}

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader sends the status, or a problem where the mux or a handler that
// could not read its body has only plain text.
func (x *exchange) WriteHeader(status int) {
	if status < 200 && status != http.StatusSwitchingProtocols || x.status != 0 {
		x.ResponseWriter.WriteHeader(status)
		return
	}
	switch {
	case x.tooLarge && status >= 400 && status != http.StatusRequestEntityTooLarge:
		x.replace(x.tooLargeProblem())
	case x.req.Pattern == "" && status == http.StatusNotFound:
		x.replace(Problem{Status: status, Detail: "no route for " + x.req.URL.Path})
	case x.req.Pattern == "" && status == http.StatusMethodNotAllowed:
		x.replace(Problem{Status: status, Detail: fmt.Sprintf("%s allows %s, not %s",
			x.req.URL.Path, x.Header().Get("Allow"), x.req.Method)})
	default:
		x.status = status
		x.ResponseWriter.WriteHeader(status)
	}
}

// replace sends p and swallows what the handler writes.
func (x *exchange) replace(p Problem) {
	x.fail(p)
	x.replaced = true
}

// fail sends p as the answer of the chain itself.
func (x *exchange) fail(p Problem) {
	x.status = p.Status
	WriteProblem(counting{x}, x.req, p)
}

func (x *exchange) tooLargeProblem() Problem {
	return Problem{Status: http.StatusRequestEntityTooLarge,
		Detail: fmt.Sprintf("the request body is larger than %d bytes", x.server.opts.MaxBody)}
}

func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	if x.replaced {
		return len(b), nil
	}
	n, err := x.ResponseWriter.Write(b)
	x.bytes += int64(n)
	return n, err
}

// ReadFrom keeps sendfile within reach of io.Copy.
func (x *exchange) ReadFrom(src io.Reader) (int64, error) {
	rf, ok := x.ResponseWriter.(io.ReaderFrom)
	if !ok || x.replaced {
		return io.Copy(struct{ io.Writer }{x}, src)
	}
	if x.status == 0 {
		x.status = http.StatusOK
	}
	n, err := rf.ReadFrom(src)
	x.bytes += n
	return n, err
}

// Flush is for handlers that look for an http.Flusher.
func (x *exchange) Flush() { _ = x.FlushError() }

// FlushError is what http.ResponseController looks for.
func (x *exchange) FlushError() error {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	return http.NewResponseController(x.ResponseWriter).Flush()
}

// Hijack hands the connection to the handler, for example for WebSockets.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err == nil && x.status == 0 {
		x.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}

// counting writes past the rules of exchange, yet counts.
type counting struct{ x *exchange }

func (c counting) Header() http.Header    { return c.x.ResponseWriter.Header() }
func (c counting) WriteHeader(status int) { c.x.ResponseWriter.WriteHeader(status) }
func (c counting) Write(b []byte) (int, error) {
	n, err := c.x.ResponseWriter.Write(b)
	c.x.bytes += int64(n)
	return n, err
}

// limitBody bounds the size of the body and the time it takes to arrive.
func (x *exchange) limitBody() {
	if x.req.Body == nil || x.req.Body == http.NoBody {
		return
	}
	b := &body{ReadCloser: x.req.Body, x: x}
	if x.server.opts.MaxBody >= 0 {
		// The writer beneath ours, as it knows how to close the connection
		// after a body that was not read to its end.
		b.ReadCloser = http.MaxBytesReader(x.ResponseWriter, x.req.Body, x.server.opts.MaxBody)
	}
	x.req.Body = b
}

type body struct {
	io.ReadCloser
	x     *exchange
	timed bool
}

func (b *body) Read(p []byte) (int, error) {
	if !b.timed && !b.x.streaming {
		b.timed = true
		// A writer without deadlines is not a connection that could be slow.
		_ = http.NewResponseController(b.x.ResponseWriter).SetReadDeadline(b.x.start.Add(bodyTime))
	}
	n, err := b.ReadCloser.Read(p)
	if err == nil {
		return n, nil
	}
	if b.timed && errors.Is(err, io.EOF) {
		// Otherwise the deadline would cut the connection while the handler
		// still works: net/http goes on reading to see the client leave.
		_ = http.NewResponseController(b.x.ResponseWriter).SetReadDeadline(time.Time{})
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		b.x.tooLarge = true
	}
	return n, err
}
