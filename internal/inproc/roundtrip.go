package inproc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"

	"github.com/kaptar/kaptar/internal/deadline"
	"github.com/kaptar/kaptar/internal/h1"
)

// A Transport is what RoundTripper returns.
type Transport struct{ handler http.Handler }

// RoundTripper returns a transport that serves every request with h, in the process, whatever the
// URL's host. It may be used by several goroutines at once if h may.
//
// The handler runs in a goroutine of its own and sees a request as a server would: RequestURI and
// Host set, a URL without scheme and host, RemoteAddr "in-process", and a context that has the
// deadline of the caller's but none of its values and that ends when the caller's ends, when the
// response's body is closed early, and when the handler returns.
//
// A response of up to 64 KiB arrives whole, with its Content-Length, when the handler returns; with
// the first Flush or past 64 KiB it becomes a stream, and the handler waits when the caller reads
// slowly. Trailers, 1xx responses (through httptrace) and sniffing of the content type work as in
// net/http. Header fields Date and User-Agent are not added. Flush, EnableFullDuplex and Hijack of
// [http.ResponseController] work, deadlines are not supported. After Hijack handler and caller have
// the two ends of a connection in memory; the caller's is the body of the response, if that is 101.
// The deadline does not end the context of a handler that has flushed or hijacked.
//
// When the handler panics, RoundTrip or, if the header is out, reading the body returns an error
// that wraps [io.ErrUnexpectedEOF] and tells the value, or plain io.ErrUnexpectedEOF for
// [http.ErrAbortHandler].
func RoundTripper(h http.Handler) *Transport { return &Transport{handler: h} }

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if ctx := req.Context(); ctx.Err() != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, context.Cause(ctx)
	}
	return t.Do(req.Context(), req, &h1.Change{})
}

// Do is RoundTrip with another context, and with a change to header and body of the request. If
// that context has already ended, the handler may still run, with a context that ends.
func (t *Transport) Do(caller context.Context, req *http.Request, change *h1.Change) (*http.Response, error) {
	ex := &exchange{caller: caller, method: req.Method, header: make(http.Header), length: -1}
	ex.changed.L = &ex.mu
	ex.body = newRequestBody(req, change.Body, ex)
	sreq, err := serverRequest(start(caller, &ex.limit), req, change.Header[:], ex)
	if err != nil {
		ex.release()
		return nil, err
	}
	if tooLarge(sreq) {
		ex.release()
		return refusal(req), nil
	}
	ex.above = deadline.Follow(caller, ex)
	go func() {
		_ = grow(0) // first of all, with nothing on the stack yet
		ex.serve(t.handler, sreq)
	}()
	return ex.await(req)
}

// serve runs the handler and ends the exchange, however the handler ends.
func (ex *exchange) serve(h http.Handler, req *http.Request) {
	returned := false
	defer func() {
		// Without a return and without a panic the goroutine was ended by runtime.Goexit.
		if p := recover(); !returned {
			ex.abort(panicError(req, p))
		} else {
			ex.finish()
		}
		ex.above.Stop()
		ex.release()
	}()
	h.ServeHTTP(responseWriter{ex}, req)
	returned = true
}

func panicError(req *http.Request, p any) error {
	if err, ok := p.(error); p == nil || ok && errors.Is(err, http.ErrAbortHandler) {
		return io.ErrUnexpectedEOF
	}
	return fmt.Errorf("inproc: handler of %s %s panicked: %v: %w", req.Method, req.URL.Path, p, io.ErrUnexpectedEOF)
}

// await waits for the header.
func (ex *exchange) await(req *http.Request) (*http.Response, error) {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	for !ex.committed && ex.err == nil && !ex.hijacked.answered() {
		ex.changed.Wait()
	}
	if err := deadline.Passed(ex.caller); err != nil { // also when the handler has answered just because its own deadline has passed
		return nil, err
	}
	if !ex.committed && !ex.hijacked.answered() || ex.callerErr != nil {
		return nil, ex.err
	}
	if ex.hijacked != nil {
		ex.above.Stop() // from now on the connection is the caller's
		return ex.hijacked.response(ex, req), nil
	}
	res := &ex.response
	*res = newResponse(req, ex.status, ex.sent, responseBody{ex})
	res.ContentLength, res.Close = ex.length, ex.closes
	ex.announceTrailers(res)
	switch {
	case ex.isHead():
		res.Body = http.NoBody
	case !bodyAllowed(ex.status):
		res.Body, res.ContentLength = http.NoBody, 0
	case ex.length == 0:
		res.Body = http.NoBody
	case ex.length < 0:
		res.TransferEncoding = []string{"chunked"}
	}
	if res.Body == http.NoBody {
		ex.done = true
	}
	return res, nil
}

func newResponse(req *http.Request, status int, header http.Header, body io.ReadCloser) http.Response {
	return http.Response{
		Status: statusLine(status), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: body, Request: req,
	}
}

func statusLine(status int) string {
	if status == http.StatusOK {
		return "200 OK" // nearly all of them, and spared an allocation
	}
	return strconv.Itoa(status) + " " + cmp.Or(http.StatusText(status), "status code "+strconv.Itoa(status))
}

// inform delivers a 1xx response to a caller who asked for them.
func (ex *exchange) inform(status int, header http.Header) {
	if t := httptrace.ContextClientTrace(ex.caller); t != nil && t.Got1xxResponse != nil {
		if err := t.Got1xxResponse(status, textproto.MIMEHeader(header.Clone())); err != nil {
			ex.drop(err)
		}
	}
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
