package inproc

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/kaptar/kaptar/internal/deadline"
)

const (
	bufferSize = 64 << 10 // bytes that a handler may be ahead of its caller
	chunkSize  = 4 << 10  // bytes that a started stream keeps back until a Flush, as net/http does
	sniffSize  = 512
)

// An exchange is one request and its response: the handler writes, the caller reads.
type exchange struct {
	caller context.Context
	method string
	limit  deadline.Limit     // of the handler's context
	above  deadline.Following // of the caller's context
	body   *requestBody       // nil when there is none

	header http.Header // the handler's own

	// What each side gets is kept here, so that it costs no allocation of its own.
	url      url.URL
	response http.Response

	mu        sync.Mutex
	changed   sync.Cond
	sent      http.Header // what the caller gets; nil before WriteHeader
	room      [1]string   // for its Content-Length
	trailers  []string    // announced
	typed     bool        // the handler has said something about the type of the content
	closes    bool        // it wants the connection closed
	status    int
	length    int64 // of the body, -1 when unknown
	written   int64
	committed bool   // the caller has the header
	buf       []byte // written, not yet read
	off       int    // where in buf the caller reads on
	shown     int    // up to where the caller may read
	err       error  // no more can be written; io.EOF after a good end
	callerErr error  // why the caller gets nothing any more, not even what is in buf
	read      int64
	done      bool // the caller has read all: from now on its context has no hold on the handler's
	trailer   http.Header
	arrived   *http.Response // whose Trailer is filled at the end
	hijacked  *hijacked      // nil before Hijack
}

func (ex *exchange) isHead() bool { return ex.method == http.MethodHead }

// release ends what the exchange holds on the handler's side.
func (ex *exchange) release() {
	ex.limit.Cancel(nil)
	if ex.body != nil {
		_ = ex.body.Close()
	}
}

// drop ends the exchange for both sides: the caller gets err, and nothing that was not read yet.
func (ex *exchange) drop(err error) {
	if ex.fail(err) {
		ex.release()
	}
}

// Ended is told that the caller's context has ended, and with it the exchange.
func (ex *exchange) Ended() {
	if ex.fail(context.Cause(ex.caller)) {
		endLike(ex.caller, &ex.limit)
		ex.release()
	}
}

func (ex *exchange) fail(err error) bool {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if ex.done || ex.callerErr != nil {
		return false
	}
	ex.callerErr, ex.err = err, err
	if ex.hijacked != nil {
		_ = ex.hijacked.caller.Close()
	}
	ex.buf, ex.off, ex.shown = nil, 0, 0
	ex.changed.Broadcast()
	return true
}

// abort ends the response after a panic: what was not shown to the caller yet is lost.
func (ex *exchange) abort(err error) {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if ex.err == nil {
		ex.err = err
	}
	if ex.hijacked != nil {
		_ = ex.hijacked.handler.Close()
	}
	ex.changed.Broadcast()
}

// finish ends the response after the handler's return.
func (ex *exchange) finish() {
	defer ex.changed.Broadcast() // after the unlock: who wakes can go on at once
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if ex.err != nil || ex.hijacked != nil {
		return
	}
	ex.writeHeader(http.StatusOK)
	ex.trailer = ex.collectTrailers()
	ex.commit(true)
	ex.shown = len(ex.buf)
	ex.err = io.EOF
	if ex.length > ex.written && !ex.isHead() && bodyAllowed(ex.status) {
		ex.err = io.ErrUnexpectedEOF
	}
}

// writeHeader takes the status and a copy of the header, once.
func (ex *exchange) writeHeader(status int) {
	if ex.sent != nil {
		return
	}
	ex.status = status
	ex.sent = received(ex.header, nil)
	_, ex.typed = ex.header["Content-Type"]
	if v := ex.sent["Connection"]; len(v) > 0 && httpguts.HeaderValuesContainsToken(v, "close") {
		ex.closes = true
		delete(ex.sent, "Connection")
	}
	if !ex.isHead() {
		ex.takeTrailers()
	}
	delete(ex.sent, "Transfer-Encoding")
	if v := ex.sent.Get("Content-Length"); v != "" {
		if n, err := strconv.ParseInt(v, 10, 64); err == nil && n >= 0 {
			ex.length = n
		} else {
			delete(ex.sent, "Content-Length")
		}
	}
}

// takeTrailers reads which trailers the header announces.
func (ex *exchange) takeTrailers() {
	for _, v := range ex.sent["Trailer"] {
		for k := range strings.SplitSeq(v, ",") {
			if k = http.CanonicalHeaderKey(strings.TrimSpace(k)); k != "" {
				ex.trailers = append(ex.trailers, k)
				delete(ex.sent, k)
			}
		}
	}
	delete(ex.sent, "Trailer")
}

// commit lets the caller have the header; final says that all of the body is in buf.
func (ex *exchange) commit(final bool) {
	if ex.committed {
		return
	}
	if !ex.typed && len(ex.buf) > 0 && ex.sent.Get("Content-Encoding") == "" {
		ex.sent["Content-Type"] = []string{http.DetectContentType(ex.buf[:min(len(ex.buf), sniffSize)])}
	}
	whole := final && ex.length < 0 && len(ex.trailer) == 0 && len(ex.trailers) == 0 && len(ex.sent["Trailer"]) == 0
	if whole && bodyAllowed(ex.status) && (!ex.isHead() || len(ex.buf) > 0) {
		ex.length = int64(len(ex.buf))
		ex.room[0] = strconv.Itoa(len(ex.buf))
		ex.sent["Content-Length"] = ex.room[:]
	}
	ex.committed = true
}

// announceTrailers gives res the keys; their values come when the body has been read.
func (ex *exchange) announceTrailers(res *http.Response) {
	ex.arrived = res
	if len(ex.trailers) == 0 {
		return
	}
	res.Trailer = make(http.Header, len(ex.trailers))
	for _, k := range ex.trailers {
		res.Trailer[k] = nil
	}
}

// collectTrailers copies the announced trailers and those with [http.TrailerPrefix] from the
// handler's header.
func (ex *exchange) collectTrailers() (t http.Header) {
	set := func(k string, v []string) {
		if t == nil {
			t = make(http.Header)
		}
		t[k] = slices.Clone(v)
	}
	for _, k := range ex.trailers {
		if v, ok := ex.header[k]; ok {
			set(k, v)
		}
	}
	for k, v := range ex.header {
		if name, ok := strings.CutPrefix(k, http.TrailerPrefix); ok {
			set(http.CanonicalHeaderKey(name), v)
		}
	}
	return t
}

// address is the network address of both ends of a call that stays in the process.
type address struct{}

// Network is that of the address which callers and handlers see of each other.
const Network = "inproc"

func (address) Network() string { return Network }
func (address) String() string  { return "in-process" }

// start starts the limit of a handler and returns its context: it has the deadline of the caller's,
// but none of its values.
func start(caller context.Context, limit *deadline.Limit) context.Context {
	at, _ := caller.Deadline()
	return limit.Start(context.Background(), at)
}

// endLike ends the context of a handler for the reason for which the caller's has ended.
func endLike(caller context.Context, limit *deadline.Limit) {
	if _, timed := limit.Deadline(); timed && errors.Is(caller.Err(), context.DeadlineExceeded) {
		limit.Move(time.Now())
	} else {
		limit.Cancel(nil)
	}
}
