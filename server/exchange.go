package server

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/kaptar/kaptar/internal/deadline"
	"github.com/kaptar/kaptar/internal/limit"
	"github.com/kaptar/kaptar/telemetry"
)

// exchange is one request and its answer. It is the http.ResponseWriter that the handler gets.
type exchange struct {
	http.ResponseWriter
	server *Server
	req    *http.Request // as the chain passes it on; without middleware the mux writes Pattern into it
	named  atomic.Pointer[string]
	span   telemetry.Span
	flight flight
	slot   limit.Slot
	start  time.Time
	head   time.Duration // from the start until the answer became a stream
	method string        // as a label
	bytes  int64
	status int // 0 until the header is written

	limit   *deadline.Limit
	allowed time.Duration // time until the first deadline; not positive when there was none

	body            body
	maxBody         int64
	bodyFault       atomic.Int32 // the status for what is wrong with the body; 0: nothing
	readTimed       bool         // the connection has a read deadline of ours
	ownReadDeadline bool
	ownDeadline     bool // the handler has set the deadline

	streaming bool
	conn      atomic.Pointer[net.Conn] // what the handler has hijacked
	replaced  bool                     // a problem was sent instead of what the handler writes
	unwritten error                    // of a write
}

// setRoute keeps the pattern under which the request is counted.
func (x *exchange) setRoute(pattern string) { x.named.Store(&pattern) }

// route returns the pattern of the request, or "" if none matches.
func (x *exchange) route() string {
	if p := x.named.Load(); p != nil {
		return *p
	}
	if len(x.server.opts.Middleware) == 0 {
		return x.req.Pattern
	}
	return x.server.lookUp(x.req) // the middleware answered it
}

// unrouted reports whether the mux itself answers, because no route matches.
func (x *exchange) unrouted() bool {
	if len(x.server.opts.Middleware) == 0 {
		return x.req.Pattern == ""
	}
	p := x.named.Load()
	return p != nil && *p == ""
}

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader sends the status. It sends a problem instead of the plain text of the mux, and
// instead of the answer of a handler that failed because the client's body could not be read.
func (x *exchange) WriteHeader(status int) {
	if status < 200 && status != http.StatusSwitchingProtocols || x.status != 0 {
		x.ResponseWriter.WriteHeader(status)
		return
	}
	if p, ok := x.bodyProblem(status); ok {
		x.replace(p)
		return
	}
	switch {
	case status == http.StatusNotFound && x.unrouted():
		x.replace(Problem{Status: status, Detail: "no route for " + x.req.URL.Path})
	case status == http.StatusMethodNotAllowed && x.unrouted():
		x.replace(Problem{Status: status, Detail: fmt.Sprintf("%s allows %s, not %s",
			x.req.URL.Path, x.Header().Get("Allow"), x.req.Method)})
	default:
		x.status = status
		if status == http.StatusServiceUnavailable {
			x.hold()
		}
		x.ResponseWriter.WriteHeader(status)
	}
}

// replace sends p and discards what the handler writes.
func (x *exchange) replace(p Problem) {
	x.fail(p)
	x.replaced = true
}

// fail sends p as the answer of the chain itself.
func (x *exchange) fail(p Problem) {
	x.status = p.Status
	WriteProblem(x, x.req, p)
}

// writes begins a write of the handler, and reports whether what it writes goes out.
func (x *exchange) writes() bool {
	x.status = cmp.Or(x.status, http.StatusOK)
	if x.bytes >= largeAnswer {
		x.leave()
	}
	return !x.replaced
}

func (x *exchange) Write(b []byte) (int, error) {
	if !x.writes() {
		return len(b), nil
	}
	n, err := x.ResponseWriter.Write(b)
	x.wrote(int64(n), err)
	return n, err
}

func (x *exchange) wrote(n int64, err error) {
	x.bytes += n
	if err != nil {
		x.unwritten = err
	}
}

// gaveUp reports whether the handler panicked because its answer cannot be written, as huma does:
// the client has left, or its time is over.
func (x *exchange) gaveUp(p any) bool {
	err, ok := p.(error)
	return ok && x.unwritten != nil && errors.Is(err, x.unwritten)
}

// WriteString spares io.WriteString a copy of the text.
func (x *exchange) WriteString(text string) (int, error) {
	if !x.writes() {
		return len(text), nil
	}
	n, err := io.WriteString(x.ResponseWriter, text)
	x.wrote(int64(n), err)
	return n, err
}

// ReadFrom lets io.Copy use sendfile.
func (x *exchange) ReadFrom(src io.Reader) (int64, error) {
	rf, ok := x.ResponseWriter.(io.ReaderFrom)
	if !ok || x.replaced {
		return io.Copy(struct{ io.Writer }{x}, src)
	}
	x.leave()
	n, err := rf.ReadFrom(src)
	if x.status == 0 && (n > 0 || err == nil) {
		x.status = http.StatusOK
	}
	x.bytes += n
	return n, err
}

// ErrStopping is the cause (see context.Cause) of the end of a stream's context when Shutdown has
// begun. It applies to streams over HTTP and gRPC.
var ErrStopping = errors.New("server: the service stops")

// errCut is the cause for calls that had not ended when the time of Shutdown was over.
var errCut = errors.New("server: the time for stopping is over")

// How an answer has ended, for metrics, log and span.
const (
	endFinished   = "finished"    // the handler has returned
	endClientGone = "client_gone" // the client left before that
	endStopping   = "stopping"    // the service stops
	endTimeout    = "timeout"     // its deadline had passed
	endFailed     = "failed"      // the handler has panicked, http.ErrAbortHandler included
)

// stream makes the answer a stream: no deadline ends it any more, but Shutdown does.
func (x *exchange) stream() {
	if x.streaming {
		return
	}
	x.streaming = true
	x.head = time.Since(x.start)
	x.leave()
	if !x.ownDeadline {
		x.limit.Move(time.Time{})
	}
	if x.readTimed { // the client may go on sending for as long as the stream lasts
		_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(time.Time{})
	}
	x.server.flights.stream(&x.flight)
}

func (x *exchange) ending(abort bool) string {
	err := x.req.Context().Err()
	if err == nil {
		if abort {
			return endFailed
		}
		return endFinished
	}
	switch cause := context.Cause(x.req.Context()); {
	case errors.Is(cause, ErrStopping), errors.Is(cause, errCut):
		return endStopping
	case errors.Is(err, context.DeadlineExceeded), x.fault() == http.StatusRequestTimeout:
		return endTimeout
	}
	return endClientGone
}

// Flush is for handlers that look for an http.Flusher.
func (x *exchange) Flush() { _ = x.FlushError() }

// FlushError is what http.ResponseController looks for.
func (x *exchange) FlushError() error {
	x.status = cmp.Or(x.status, http.StatusOK)
	x.stream()
	return http.NewResponseController(x.ResponseWriter).Flush()
}

// Hijack hands the connection to the handler, for example for WebSockets.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err != nil {
		return conn, rw, err
	}
	x.status = cmp.Or(x.status, http.StatusSwitchingProtocols)
	x.conn.Store(&conn)
	x.stream()
	return conn, rw, nil
}

// SetWriteDeadline is what http.ResponseController looks for. It moves the deadline of the
// request with that of the connection; the zero time lifts both. Such a request leaves the limit.
func (x *exchange) SetWriteDeadline(at time.Time) error {
	x.ownDeadline = true
	x.leave()
	x.limit.Move(at)
	if x.readTimed && !x.ownReadDeadline { // the body had no longer than the request
		_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(x.bodyDeadline(time.Now()))
	}
	err := http.NewResponseController(x.ResponseWriter).SetWriteDeadline(at)
	if errors.Is(err, http.ErrNotSupported) {
		return nil // a call within the process: its context is all there is to end
	}
	return err
}

// SetReadDeadline replaces the time that the server gives the body to arrive.
func (x *exchange) SetReadDeadline(at time.Time) error {
	x.ownReadDeadline = true
	return http.NewResponseController(x.ResponseWriter).SetReadDeadline(at)
}

// cut breaks the connection of a handler that ignores the end of its context.
func (x *exchange) cut() {
	if c := x.conn.Load(); c != nil {
		_ = (*c).Close() // the handler's next read or write fails
		return
	}
	past := time.Unix(1, 0)
	rc := http.NewResponseController(x.ResponseWriter)
	_, _ = rc.SetReadDeadline(past), rc.SetWriteDeadline(past) // within the process there is none
}
