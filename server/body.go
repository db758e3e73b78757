package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Each bodyStep bytes of a request's body must arrive within bodyTime, and before the deadline of
// the request. Each time they do the deadline starts again, so that an upload may last as long as
// it makes progress.
const (
	bodyTime = 30 * time.Second
	bodyStep = 64 << 10
)

// MaxBody limits the request's body to n bytes for h, instead of to Options.MaxBody, which the
// setting max_body sets. Negative means no limit. If MaxBody is nested, the innermost one counts.
// Outside of a Server it works as http.MaxBytesHandler.
func MaxBody(n int64, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := h
		if x := exchangeOf(r.Context()); x != nil {
			x.maxBody = n
		} else if n >= 0 {
			h = http.MaxBytesHandler(h, n)
		}
		h.ServeHTTP(w, r)
	})
}

// bodyProblem returns the problem to send instead of an error status of the handler, if the handler
// failed because the client's body could not be read.
func (x *exchange) bodyProblem(status int) (p Problem, ok bool) {
	if status < 400 {
		return p, false
	}
	switch p.Status = x.fault(); p.Status {
	case http.StatusRequestEntityTooLarge:
		p.Detail = fmt.Sprintf("the request body is larger than the %d bytes that max_body allows for %s",
			x.maxBody, cmp.Or(x.route(), x.req.URL.Path))
	case http.StatusRequestTimeout:
		p.Detail = "the request body did not come in time"
	case http.StatusBadRequest:
		p.Detail = "the request body is malformed or ended before it was complete"
		if status < 500 {
			return p, false // the handler's own status says more
		}
	}
	return p, p.Status != 0 && status != p.Status
}

// fault returns the status for what is wrong with the body; 0: nothing. When a connection fails
// net/http ends the context of the request, and then lets Read return. A handler that forwards the
// body in another goroutine may answer in between, so fault looks at what Read is about to return.
func (x *exchange) fault() int {
	switch b := &x.body; {
	case !b.reading.Load() || x.bodyFault.Load() != 0:
	case errors.Is(x.limit.Err(), context.DeadlineExceeded):
		return http.StatusRequestTimeout
	case b.conn != nil:
		return int(b.conn.fault.Load())
	}
	return int(x.bodyFault.Load()) // Read stores it before it stops reading
}

// blame records the status for a body that could not be read.
func (x *exchange) blame(err error) {
	fault := http.StatusBadRequest
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, http.ErrBodyReadAfterClose):
		return
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(x.limit.Err(), context.DeadlineExceeded):
		fault = http.StatusRequestTimeout
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		fault = http.StatusRequestEntityTooLarge
	}
	x.bodyFault.Store(int32(fault))
}

// bodyDeadline returns the time by which the next part of the body must arrive.
func (x *exchange) bodyDeadline(now time.Time) time.Time {
	at := now.Add(bodyTime)
	if limit, ok := x.limit.Deadline(); ok && !x.ownDeadline && limit.Before(at) {
		return limit
	}
	return at
}

// limitBody bounds the size of the body and the time it takes to arrive.
func (x *exchange) limitBody() {
	if x.req.Body == nil || x.req.Body == http.NoBody {
		return
	}
	x.body.ReadCloser, x.body.raw, x.body.x = x.req.Body, x.req.Body, x
	x.req.Body = &x.body
}

// How long, and for how many bytes, a connection is kept open for the rest of a body that the
// handler did not read. net/http does this for up to smallRest, without a time limit.
const (
	lingerTime = 2 * time.Second
	lingerMost = 64 << 20
	smallRest  = 256 << 10
)

// linger discards what the client still sends after the answer. Closing the connection at once
// would reset it, and a client that sends its whole request before it reads would not see the
// answer.
func (x *exchange) linger() {
	b, fault := &x.body, x.bodyFault.Load()
	if b.conn == nil || !b.mu.TryLock() { // somebody still reads
		return
	}
	defer b.mu.Unlock()
	if b.raw == nil || b.whole || x.streaming || fault != 0 && fault != http.StatusRequestEntityTooLarge {
		return
	}
	rc := http.NewResponseController(x.ResponseWriter)
	if rc.SetReadDeadline(time.Now().Add(lingerTime)) != nil || x.req.Header["Expect"] != nil {
		return // the client waits for "100 Continue" before it sends the body
	}
	if fault == 0 && x.req.ContentLength-b.read < smallRest || rc.Flush() != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, b.raw, lingerMost)
}

// body is the body of a request as the handler reads it.
type body struct {
	io.ReadCloser
	raw     io.ReadCloser // without a limit
	conn    *conn         // nil within the process, and for a connection that requests share
	x       *exchange
	mu      sync.Mutex // held by Read; Close waits for it, as that of net/http does
	started bool
	whole   bool // it was read to its end
	closed  bool
	reading atomic.Bool
	read    int64
	step    int64 // how much must be read for more time
}

// Close leaves a connection's body open for linger. net/http closes it in the end.
func (b *body) Close() error {
	if b.conn == nil {
		return b.ReadCloser.Close()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

func (b *body) Read(p []byte) (int, error) {
	x := b.x
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	if !b.started {
		b.started = true
		if err := b.start(); err != nil {
			return 0, err
		}
	}
	b.reading.Store(true)
	x.slot.Pause() // the client may be slow
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		x.blame(err)
	}
	b.reading.Store(false)
	b.read += int64(n)
	if err == nil {
		x.slot.Resume(time.Time{})
		if b.read >= b.step {
			b.moreTime()
		}
		return n, nil
	}
	x.slot.Resume(time.Now())
	b.whole = errors.Is(err, io.EOF)
	if b.conn != nil && b.whole {
		b.conn.spare(time.Time{}, 0) // the whole request has arrived
	}
	if x.readTimed && errors.Is(err, io.EOF) {
		// Otherwise the deadline would cut the connection while the handler still works: net/http
		// goes on reading to see the client leave.
		_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(time.Time{})
	}
	return n, err
}

func (b *body) start() error {
	x := b.x
	if x.maxBody >= 0 {
		if x.req.ContentLength > x.maxBody {
			x.bodyFault.Store(http.StatusRequestEntityTooLarge)
			return &http.MaxBytesError{Limit: x.maxBody}
		}
		// net/http's own writer can close the connection after a body that was not read whole.
		b.ReadCloser = http.MaxBytesReader(x.ResponseWriter, b.ReadCloser, x.maxBody)
	}
	if !x.ownReadDeadline && !x.streaming {
		// A writer without deadlines has no connection that could be slow.
		x.readTimed = http.NewResponseController(x.ResponseWriter).SetReadDeadline(x.bodyDeadline(x.start)) == nil
	}
	b.step = bodyStep
	return nil
}

// moreTime extends the deadlines of a body that makes progress.
func (b *body) moreTime() {
	x := b.x
	b.step = b.read + bodyStep
	if x.streaming {
		return
	}
	now := time.Now()
	if x.allowed > 0 && !x.ownDeadline {
		x.limit.Move(now.Add(x.allowed))
	}
	if x.readTimed && !x.ownReadDeadline {
		_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(x.bodyDeadline(now))
	}
}
