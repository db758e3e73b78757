package h1

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxBody is how long a request's body may be that we send. Head and body go out in one write,
	// and the socket buffers of both ends take as much: a server that answers without reading the
	// body cannot make us wait.
	maxBody = 32 << 10
	// userAgent is what net/http calls itself when a request does not say otherwise.
	userAgent = "Go-http-client/1.1"
)

// message is a request as it goes over the wire.
type message struct {
	b      []byte
	length int  // of the body
	replay bool // the server may see it twice
}

// encode writes the head of req. It reports false if the request is not lean, or not valid: then
// net/http has to say so.
func (m *message) encode(req *http.Request) bool {
	u := req.URL
	if u == nil || u.Host == "" || u.Opaque != "" || (u.Scheme != "http" && u.Scheme != "https") || !leanBody(req) ||
		req.Close || req.Trailer != nil || len(req.TransferEncoding) > 0 || req.Cancel != nil { //nolint:staticcheck // net/http still minds Cancel
		return false
	}
	m.b, m.length = append(m.b[:0], cmpMethod(req.Method)...), int(req.ContentLength)
	m.b = append(m.b, ' ')
	announce := m.length > 0
	switch req.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		announce, m.replay = true, false
	case http.MethodDelete:
		m.replay = false
	case "", http.MethodGet, http.MethodHead, http.MethodOptions:
		m.replay = true
	default:
		return false
	}
	path, host := u.EscapedPath(), req.Host
	if path == "" {
		path = "/"
	}
	if host == "" {
		host = u.Host
	}
	if path[0] != '/' && path != "*" || !visible(path) || !visible(u.RawQuery) || !plainHost(host) || !plainHost(u.Host) {
		return false
	}
	m.b = append(m.b, path...)
	if u.ForceQuery || u.RawQuery != "" {
		m.b = append(m.b, '?')
		m.b = append(m.b, u.RawQuery...)
	}
	m.b = append(m.b, " HTTP/1.1\r\nHost: "...)
	m.b = append(m.b, host...)
	m.b = append(m.b, "\r\n"...)
	if announce {
		m.b = append(m.b, "Content-Length: "...)
		m.b = strconv.AppendInt(m.b, req.ContentLength, 10)
		m.b = append(m.b, "\r\n"...)
	}
	return m.header(req.Header)
}

func cmpMethod(method string) string {
	if method == "" {
		return http.MethodGet
	}
	return method
}

// leanBody reports whether there is no body, or one of known and small length.
func leanBody(req *http.Request) bool {
	if req.Body == nil || req.Body == http.NoBody {
		return req.ContentLength == 0
	}
	return req.ContentLength > 0 && req.ContentLength <= maxBody
}

// header writes the fields and the empty line behind them.
func (m *message) header(h http.Header) bool {
	agent := false
	for name, values := range h {
		if token, canonical := fieldName(name); !token || !canonical {
			return false
		}
		for i, v := range values {
			if !fieldValue(v) {
				return false
			}
			if name == "User-Agent" && (i > 0 || v == "") {
				agent = true
				continue
			}
			if name == "Host" || name == "Content-Length" { // the request's fields say it
				continue
			}
			m.b = append(m.b, name...)
			m.b = append(m.b, ": "...)
			m.b = append(m.b, textproto.TrimString(v)...)
			m.b = append(m.b, "\r\n"...)
		}
		switch name {
		case "Connection", "Expect", "Keep-Alive", "Proxy-Connection", "Trailer", "Transfer-Encoding", "Upgrade":
			return false
		case "Idempotency-Key", "X-Idempotency-Key":
			m.replay = true
		case "User-Agent":
			agent = true
		}
	}
	if h == nil {
		return false
	}
	if !agent {
		m.b = append(m.b, "User-Agent: "+userAgent+"\r\n"...)
	}
	m.b = append(m.b, "\r\n"...)
	return true
}

// load reads the body behind the head, and closes it. It does so before there is a connection: a
// body that is slow or broken off costs its own caller time, and no server.
func (m *message) load(req *http.Request) error {
	ctx := req.Context()
	if ctx.Err() != nil {
		if req.Body != nil {
			_ = req.Body.Close() // the context's error says more
		}
		return context.Cause(ctx)
	}
	if m.length == 0 {
		return nil
	}
	at := len(m.b)
	m.b = slices.Grow(m.b, m.length+1)
	n, err := readAll(req.Body, m.b[at:at+m.length+1]) // a byte more than may come
	if e := req.Body.Close(); err == nil {
		err = e
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ErrBody, cause(ctx, err))
	case err != nil:
		return fmt.Errorf("%w: %w", ErrBody, err)
	case n > m.length:
		return fmt.Errorf("%w: longer than its ContentLength of %d", ErrBody, m.length)
	case n < m.length:
		return fmt.Errorf("%w: %d bytes of its ContentLength of %d", ErrBody, n, m.length)
	}
	m.b = m.b[:at+m.length]
	return nil
}

// readAll reads until the end of r or of p.
func readAll(r io.Reader, p []byte) (n int, err error) {
	for idle := 0; n < len(p) && idle < 100; idle++ {
		k, err := r.Read(p[n:])
		if n += k; k > 0 {
			idle = 0
		}
		if err == io.EOF { //nolint:errorlint // as the contract of io.Reader says
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.ErrNoProgress
	}
	return n, nil
}

// visible reports whether s can stand in the request line.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// plainHost reports whether s is a host that needs neither punycode nor cleaning.
func plainHost(s string) bool {
	for i := range len(s) {
		if c := s[i]; !alphanumeric(c) && !strings.ContainsRune(".-_:[]", rune(c)) {
			return false
		}
	}
	return s != ""
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
