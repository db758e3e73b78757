package h1

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// maxBody is how long a request's body may be that we send. Head and body go out in one write, and
// the socket buffers of the two ends take as much: a server that answers without reading the body
// cannot make us wait.
const maxBody = 32 << 10

// message is a request as it goes over the wire.
type message struct {
	b      []byte
	length int  // of the body
	replay bool // the server may see it twice
	trace  *httptrace.ClientTrace
}

// A Change is how a call differs from its request, which then need not be copied. The zero value
// leaves it as it is.
type Change struct {
	Host   string        // where to connect; default that of the URL. The server is told the request's
	TLS    bool          // also if the URL says http
	Header [5]Field      // stand for the request's fields of those names
	Body   io.ReadCloser // stands for the request's, if it has one and this is not nil
}

// A Field is a line of a header. Its name is canonical, its value valid; without a name it is none.
type Field struct{ Name, Value string }

// sets reports whether the field is one of c's.
func (c *Change) sets(name string) bool {
	h := &c.Header
	return name == h[0].Name || name == h[1].Name || name == h[2].Name || name == h[3].Name || name == h[4].Name
}

// encode writes the head of req. It reports false if the request is not lean, or not valid: then
// net/http has to say so.
func (m *message) encode(req *http.Request, change *Change) bool {
	u := req.URL
	if u == nil || u.Host == "" || u.Opaque != "" || (u.Scheme != "http" && u.Scheme != "https") || !leanBody(req) || req.Header == nil ||
		req.Close || req.Trailer != nil || req.TransferEncoding != nil || req.Cancel != nil { //nolint:staticcheck // net/http still minds Cancel
		return false
	}
	method := cmp.Or(req.Method, http.MethodGet)
	announce := req.ContentLength > 0
	m.length, m.replay = int(req.ContentLength), false
	switch method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		announce = true
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		m.replay = true
	case http.MethodDelete:
	default:
		return false
	}
	path, host := cmp.Or(u.EscapedPath(), "/"), cmp.Or(req.Host, u.Host)
	if path[0] != '/' && path != "*" || !visible(path) || !visible(u.RawQuery) || !httpguts.ValidHostHeader(host) || strings.Contains(host, "%") {
		return false
	}
	m.b = append(m.b[:0], method...)
	m.b = append(m.b, ' ')
	m.b = append(m.b, path...)
	if u.ForceQuery || u.RawQuery != "" {
		m.b = append(m.b, '?')
		m.b = append(m.b, u.RawQuery...)
	}
	m.b = append(m.b, " HTTP/1.1\r\n"...)
	m.field("Host", host)
	if agent, ok := req.Header["User-Agent"]; !ok {
		m.field("User-Agent", "Go-http-client/1.1") // as net/http
	} else if len(agent) > 0 && agent[0] != "" {
		m.field("User-Agent", agent[0])
	}
	if announce {
		m.b = append(m.b, "Content-Length: "...)
		m.b = strconv.AppendInt(m.b, req.ContentLength, 10)
		m.b = append(m.b, "\r\n"...)
	}
	for _, f := range change.Header {
		if f.Name != "" {
			m.field(f.Name, f.Value)
		}
	}
	return m.header(req.Header, change)
}

// visible reports whether s can stand in the request line.
func visible(s string) bool {
	return httpguts.ValidHeaderFieldValue(s) && !strings.ContainsAny(s, " \t")
}

// leanBody reports whether there is no body, or one of known and small length.
func leanBody(req *http.Request) bool {
	if req.Body == nil || req.Body == http.NoBody {
		return req.ContentLength == 0
	}
	return req.ContentLength > 0 && req.ContentLength <= maxBody
}

func (m *message) field(name, value string) {
	m.b = append(m.b, name...)
	m.b = append(m.b, ": "...)
	m.b = append(m.b, textproto.TrimString(value)...)
	m.b = append(m.b, "\r\n"...)
}

// header writes the fields that change leaves and the empty line behind them.
func (m *message) header(h http.Header, change *Change) bool {
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) || textproto.CanonicalMIMEHeaderKey(name) != name ||
			slices.ContainsFunc(values, func(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }) {
			return false
		}
		if change.sets(name) {
			continue
		}
		switch name {
		case "Connection", "Expect", "Keep-Alive", "Proxy-Connection", "Trailer", "Transfer-Encoding", "Upgrade":
			return false
		case "Host", "Content-Length", "User-Agent": // written already; the first two from the request
			continue
		case "Idempotency-Key", "X-Idempotency-Key":
			m.replay = true
		}
		for _, v := range values {
			m.field(name, v)
		}
	}
	m.b = append(m.b, "\r\n"...)
	return true
}

// load reads the body behind the head, and closes it. It does so before there is a connection: a
// body that is slow or broken off costs its own caller time, and no server.
func (m *message) load(ctx context.Context, body io.ReadCloser) error {
	if m.length == 0 || ctx.Err() != nil {
		if body != nil {
			_ = body.Close() // http.NoBody, or not needed
		}
		return context.Cause(ctx)
	}
	at := len(m.b)
	m.b = slices.Grow(m.b, m.length+1)
	n, err := io.ReadFull(body, m.b[at:at+m.length+1]) // a byte more than may come
	m.b = m.b[:at+n]
	switch e := body.Close(); {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ErrBody, context.Cause(ctx))
	case err == nil:
		return fmt.Errorf("%w: longer than its ContentLength of %d", ErrBody, m.length)
	case n < m.length || !errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %d bytes of its ContentLength of %d: %w", ErrBody, n, m.length, err)
	case e != nil:
		return fmt.Errorf("%w: %w", ErrBody, e)
	}
	return nil
}
