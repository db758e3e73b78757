package inproc

import (
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// maxHeader is how many bytes of header a request may have: what the HTTP server of package server
// takes, and what net/http adds to that.
const maxHeader = 64<<10 + 4<<10

// received returns a copy of h as the other side would have read it from the wire: with canonical
// keys, values in one line and without the space around them, and without fields that have no
// value or a name that cannot be sent.
func received(h http.Header) http.Header {
	n := 0
	for _, v := range h {
		n += len(v)
	}
	values := make([]string, 0, n)
	out := make(http.Header, len(h)+1)
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
	if !odd {
		return out
	}
	clear(out)
	for _, k := range slices.Sorted(maps.Keys(h)) { // the order in which net/http sends them
		if !httpguts.ValidHeaderFieldName(k) {
			continue
		}
		for _, s := range h[k] {
			out.Add(k, oneLine(s))
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

// refusal is what net/http's server then answers.
func refusal(req *http.Request) *http.Response {
	const status = http.StatusRequestHeaderFieldsTooLarge
	res := newResponse(req, status, http.Header{"Content-Type": {"text/plain; charset=utf-8"}},
		io.NopCloser(strings.NewReader(statusLine(status))))
	res.Close, res.ContentLength = true, -1
	return res
}
