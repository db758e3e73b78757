package inproc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"

	"github.com/kaptar/kaptar/internal/h1"
)

var errNoURL = errors.New("inproc: request without URL")

// serverRequest returns the request as a server would have read it from the wire: it shares nothing
// with req but the source of the body. more replaces the fields of the same names.
func serverRequest(ctx context.Context, req *http.Request, more []h1.Field, ex *exchange) (*http.Request, error) {
	if req.URL == nil {
		return nil, errNoURL
	}
	header, err := serverHeader(req, more)
	if err != nil {
		return nil, err
	}
	uri := req.URL.RequestURI()
	body, u := ex.body, &ex.url
	*u = url.URL{Path: req.URL.Path, RawQuery: req.URL.RawQuery, ForceQuery: req.URL.ForceQuery}
	if req.URL.Opaque != "" || req.URL.RawPath != "" || !strings.HasPrefix(req.URL.Path, "/") {
		if u, err = url.ParseRequestURI(uri); err != nil {
			return nil, fmt.Errorf("inproc: request URI %q: %w", uri, err)
		}
	}
	method := cmp.Or(req.Method, http.MethodGet)
	if !httpguts.ValidHeaderFieldName(method) {
		return nil, fmt.Errorf("inproc: method %q is not a token", method)
	}
	host := cmp.Or(req.Host, req.URL.Host)
	if !httpguts.ValidHostHeader(host) {
		host = ""
	}
	sreq := http.Request{ // WithContext copies it
		Method: method, URL: u, RequestURI: uri, Host: host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		RemoteAddr: address{}.String(),
		Body:       http.NoBody,
	}
	if body != nil {
		sreq.Body, sreq.ContentLength = body, body.length
		if body.length < 0 {
			sreq.TransferEncoding = []string{"chunked"}
		}
		if len(req.Trailer) > 0 {
			sreq.Trailer = make(http.Header, len(req.Trailer))
			for k := range req.Trailer {
				sreq.Trailer[http.CanonicalHeaderKey(k)] = nil
			}
			body.trailer = sreq.Trailer
		}
	}
	return sreq.WithContext(ctx), nil
}

// serverHeader returns the header of req as a server would have read it, without what net/http's
// client would not send. It refuses what that client refuses.
func serverHeader(req *http.Request, more []h1.Field) (http.Header, error) {
	for k, vv := range req.Header {
		if !httpguts.ValidHeaderFieldName(k) {
			return nil, fmt.Errorf("inproc: header name %q is not a token", k)
		}
		for _, v := range vv {
			if !httpguts.ValidHeaderFieldValue(v) {
				// The value may be a secret: only its name is told.
				return nil, fmt.Errorf("inproc: value of header %q has a control character", k)
			}
		}
	}
	header := received(req.Header, more)
	for _, k := range [...]string{"Host", "Content-Length", "Transfer-Encoding", "Trailer"} {
		delete(header, k)
	}
	switch {
	case req.ContentLength > 0 && req.Body != nil:
		header["Content-Length"] = []string{strconv.FormatInt(req.ContentLength, 10)}
	case noBody(req):
		switch req.Method {
		case http.MethodPost, http.MethodPut, http.MethodPatch:
			header["Content-Length"] = []string{"0"}
		}
	}
	return header, nil
}

func noBody(req *http.Request) bool { return req.Body == nil || req.Body == http.NoBody }

// requestBody is the caller's body, cut to the announced length and closed once.
type requestBody struct {
	source   io.ReadCloser
	client   *http.Request // whose Trailer is filled when source ends
	length   int64         // announced length, -1 when unknown
	read     int64
	trailer  http.Header // the handler's; nil when none was announced
	exchange *exchange   // to be dropped when source fails
	closed   atomic.Bool
}

// newRequestBody returns nil when req has no body.
func newRequestBody(req *http.Request, source io.ReadCloser, ex *exchange) *requestBody {
	if noBody(req) {
		return nil
	}
	length := req.ContentLength
	if length <= 0 {
		length = -1
	}
	return &requestBody{source: cmp.Or(source, req.Body), client: req, length: length, exchange: ex}
}

func (b *requestBody) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.length >= 0 {
		p = p[:min(int64(len(p)), b.length-b.read)]
		if len(p) == 0 && b.read == b.length {
			b.end()
			return 0, io.EOF
		}
	}
	n, err := b.source.Read(p)
	b.read += int64(n)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF) && (b.length < 0 || b.read == b.length):
		b.end()
	case b.closed.Load():
		err = http.ErrBodyReadAfterClose
	default:
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("inproc: request body of %d bytes, Content-Length is %d", b.read, b.length)
		}
		b.exchange.drop(err)
		err = io.ErrUnexpectedEOF // all that a server would learn
	}
	return n, err
}

// end hands the caller's trailers to the handler.
func (b *requestBody) end() {
	if b.trailer != nil {
		for k, v := range b.client.Trailer {
			b.trailer[http.CanonicalHeaderKey(k)] = slices.Clone(v)
		}
		b.trailer = nil
	}
}

// Close makes further reads fail. It may be called at the same time as Read and more than once.
func (b *requestBody) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	return b.source.Close()
}

// maxHeader is how many bytes of header a request may have: what the HTTP server of package server
// takes, and what net/http adds to that.
const maxHeader = 64<<10 + 4<<10

// received returns a copy of h as the other side would have read it from the wire: with canonical
// keys, values in one line and trimmed, and without fields that have no value or a name that cannot
// be sent. more replaces the fields of the same names.
func received(h http.Header, more []h1.Field) http.Header {
	n := len(more)
	for _, v := range h {
		n += len(v)
	}
	values := make([]string, 0, n)
	out := make(http.Header, len(h)+len(more)+1)
	odd := false // a field comes under two names, or another than its own
	for k, v := range h {
		if len(v) == 0 || strings.HasPrefix(k, http.TrailerPrefix) {
			continue
		}
		if http.CanonicalHeaderKey(k) != k || !httpguts.ValidHeaderFieldName(k) {
			odd = true
			continue
		}
		first := len(values)
		for _, s := range v {
			values = append(values, oneLine(s))
		}
		out[k] = values[first:len(values):len(values)]
	}
	if odd {
		clear(out)
		for _, k := range slices.Sorted(maps.Keys(h)) { // the order in which net/http sends them
			if !httpguts.ValidHeaderFieldName(k) {
				continue
			}
			for _, s := range h[k] {
				out.Add(k, oneLine(s))
			}
		}
	}
	for _, f := range more {
		if f.Name != "" {
			values = append(values, f.Value)
			out[f.Name] = values[len(values)-1:]
		}
	}
	return out
}

var newlines = strings.NewReplacer("\n", " ", "\r", " ")

func oneLine(s string) string {
	if strings.ContainsAny(s, "\r\n") {
		s = newlines.Replace(s)
	}
	return textproto.TrimString(s)
}

// tooLarge reports whether a server would refuse the request for the size of its header.
func tooLarge(req *http.Request) bool {
	n := len(req.RequestURI)
	for k, v := range req.Header {
		for _, s := range v {
			n += len(k) + len(s) + len(": \r\n")
		}
	}
	return n > maxHeader
}

// refusal is the answer of net/http's server then.
func refusal(req *http.Request) *http.Response {
	const status = http.StatusRequestHeaderFieldsTooLarge
	res := newResponse(req, status, http.Header{"Content-Type": {"text/plain; charset=utf-8"}},
		io.NopCloser(strings.NewReader(statusLine(status))))
	res.Close, res.ContentLength = true, -1
	return &res
}
