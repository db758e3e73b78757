package inproc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"google.golang.org/grpc/test/bufconn"
)

// hijacked are the two ends of the connection that a handler has taken over.
type hijacked struct {
	handler, caller net.Conn
	raw             *http.Response // what the handler wrote on the connection itself
}

var errBegun = errors.New("inproc: hijack after the response has begun")

// Hijack implements [http.Hijacker]. The handler may have sent 101 before, or writes a response of
// its own on the connection.
func (w responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	ex := w.ex
	ex.mu.Lock()
	defer ex.mu.Unlock()
	switch {
	case ex.hijacked != nil:
		return nil, nil, http.ErrHijacked
	case ex.err != nil:
		return nil, nil, ex.writeError()
	case ex.sent != nil && ex.status != http.StatusSwitchingProtocols:
		return nil, nil, errBegun
	}
	h, err := connect()
	if err != nil {
		return nil, nil, err
	}
	ex.hijacked = h
	ex.lift()
	if ex.sent == nil {
		go ex.readRaw()
	} else {
		ex.committed = true
		ex.changed.Broadcast()
	}
	return h.handler, bufio.NewReadWriter(bufio.NewReader(h.handler), bufio.NewWriter(h.handler)), nil
}

func connect() (*hijacked, error) {
	l := bufconn.Listen(bufferSize)
	h := new(hijacked)
	var dialed sync.WaitGroup
	dialed.Go(func() { h.caller, _ = l.Dial() }) // fails only without the Accept below
	var err error
	if h.handler, err = l.Accept(); err != nil {
		return nil, fmt.Errorf("inproc: hijack: %w", err)
	}
	dialed.Wait()
	return h, nil
}

// readRaw waits for the response that the handler writes on its connection.
func (ex *exchange) readRaw() {
	r := bufio.NewReader(ex.hijacked.caller)
	res, err := http.ReadResponse(r, &http.Request{Method: ex.method})
	ex.mu.Lock()
	defer ex.mu.Unlock()
	defer ex.changed.Broadcast()
	switch {
	case err != nil && ex.err == nil:
		ex.err = fmt.Errorf("inproc: response on a hijacked connection: %w", err)
	case err == nil && res.StatusCode == http.StatusSwitchingProtocols:
		res.Body = upgraded{ex.hijacked.caller, r}
		ex.hijacked.raw = res
	case err == nil:
		res.Body = rawBody{res.Body, ex.hijacked.caller}
		ex.hijacked.raw = res
	}
}

// answered reports whether the handler has written a response on its connection.
func (h *hijacked) answered() bool { return h != nil && h.raw != nil }

// response is what the caller gets.
func (h *hijacked) response(ex *exchange, req *http.Request) *http.Response {
	if h.raw != nil {
		h.raw.Request = req
		return h.raw
	}
	ex.response = newResponse(req, ex.status, ex.sent, upgraded{h.caller, h.caller})
	return &ex.response
}

// upgraded is the body of a response with status 101: the caller's end of the connection.
type upgraded struct {
	net.Conn
	r io.Reader // may hold what was read too early
}

func (u upgraded) Read(p []byte) (int, error) { return u.r.Read(p) }

// rawBody is the body of any other response on a hijacked connection.
type rawBody struct {
	io.ReadCloser
	conn net.Conn
}

func (b rawBody) Close() error { return errors.Join(b.ReadCloser.Close(), b.conn.Close()) }
