package server

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// ErrStopping is what context.Cause returns for the context of a stream, over HTTP or gRPC, that
// has ended because Shutdown has begun.
var ErrStopping = errors.New("server: the service stops")

// errCut is the cause for calls that Shutdown did not wait for any longer.
var errCut = errors.New("server: the time for stopping is over")

// How an answer has ended, for metrics, log and span.
const (
	endFinished   = "finished"    // the handler has returned
	endClientGone = "client_gone" // the client did not wait for that
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
	if !x.ownDeadline {
		x.limit.Move(time.Time{})
	}
	if x.readTimed { // the client may go on sending for as long as the stream lasts
		_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(time.Time{})
	}
	x.server.flights.stream(&x.flight)
}

// ending says how the answer has ended.
func (x *exchange) ending(abort bool) string {
	ctx := x.req.Context()
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, ErrStopping), errors.Is(cause, errCut):
		return endStopping
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return endTimeout
	case ctx.Err() != nil:
		return endClientGone
	case abort:
		return endFailed
	}
	return endFinished
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
// request with that of the connection; the zero time lifts both.
func (x *exchange) SetWriteDeadline(at time.Time) error {
	x.ownDeadline = true
	x.limit.Move(at)
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

// cut takes the connection from a handler that does not mind its context.
func (x *exchange) cut() {
	if c := x.conn.Load(); c != nil {
		_ = (*c).Close() // its handler is told by the error of what it does next
		return
	}
	past := time.Unix(1, 0)
	rc := http.NewResponseController(x.ResponseWriter)
	_, _ = rc.SetReadDeadline(past), rc.SetWriteDeadline(past) // within the process there is none
}
