package gateway

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/telemetry"
	"github.com/kaptar/kaptar/transport"
)

const (
	maxURL  = 8 << 10 // bytes of the request's target
	maxHost = 255     // characters of a name, RFC 1035 §2.3.4
	maxID   = 64      // characters of a request id
)

// methods are those that are forwarded.
var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
}

// single are headers that must not come twice: some programs use the first, others the last.
var single = []string{"Authorization", "Content-Type", "Idempotency-Key", "Origin", "X-Api-Key"}

// check returns a problem if r is too large or if two programs could read it differently, and
// otherwise the zero Problem.
func (g *gateway) check(r *http.Request) (p server.Problem) {
	switch target := r.RequestURI; {
	case !slices.Contains(methods, r.Method):
		return server.Problem{Status: http.StatusMethodNotAllowed, Detail: "the method must be one of " + strings.Join(methods, ", ")}
	case !goodHost(r.Host):
		return server.Problem{Status: http.StatusBadRequest, Detail: "the host is not a name or an address"}
	case len(target) > maxURL:
		return server.Problem{Status: http.StatusRequestURITooLong, Detail: fmt.Sprintf("the URL is longer than %d bytes", maxURL)}
	case strings.ContainsAny(target, "# ") || r.ProtoMajor > 1 && !strings.HasPrefix(target, "/") || !goodPath(r.URL.Path):
		return server.Problem{Status: http.StatusBadRequest, Detail: "the path must be UTF-8 without control characters, " +
			"backslashes, empty parts, and parts that are . or .., encoded ones included"}
	}
	if n := r.Header["Content-Length"]; r.ProtoMajor > 1 && len(n) > 0 && (len(n) > 1 || n[0] != strconv.FormatInt(r.ContentLength, 10)) {
		return server.Problem{Status: http.StatusBadRequest, Detail: "Content-Length is not the length of the body"}
	}
	size := 0
	for name, values := range r.Header {
		if len(values) > 1 && slices.Contains(single, name) {
			return server.Problem{Status: http.StatusBadRequest, Detail: name + " comes more than once"}
		}
		for _, v := range values {
			size += len(name) + len(v) + 32 // as RFC 9113 §10.5.1 counts
		}
	}
	if limit := g.set.MaxHeader; size > int(limit) {
		return server.Problem{Status: http.StatusRequestHeaderFieldsTooLarge,
			Detail: fmt.Sprintf("the header is larger than the %d bytes that max_header allows", limit)}
	}
	return server.Problem{}
}

// goodPath reports whether a decoded path has a single meaning, even if it is decoded once more.
func goodPath(path string) bool {
	for range 2 {
		if !utf8.ValidString(path) || strings.ContainsFunc(path, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\\' }) {
			return false
		}
		rest, more := strings.TrimPrefix(path, "/"), true
		for more {
			var part string
			part, rest, more = strings.Cut(rest, "/")
			part, _, _ = strings.Cut(part, ";") // a parameter of the part, as in ..;x
			if part == "." || part == ".." || part == "" && more {
				return false
			}
		}
		again, err := url.PathUnescape(path)
		if err != nil || again == path {
			break
		}
		path = again
	}
	return true
}

// goodHost reports whether host is a name or an address, with or without a port, or "" (HTTP/1.0).
func goodHost(host string) bool {
	return len(host) <= maxHost && !strings.ContainsFunc(host, func(c rune) bool {
		return !isAlphanumeric(c) && !strings.ContainsRune("-._:[]", c)
	})
}

func isAlphanumeric(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isPlain reports whether text is letters, digits and dashes.
func isPlain(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return !isAlphanumeric(c) && c != '-' })
}

// requestID returns the id that r has, if it is well-formed, or that of its trace.
func requestID(r *http.Request) string {
	if v := r.Header["X-Request-Id"]; len(v) == 1 && v[0] != "" && len(v[0]) <= maxID && isPlain(v[0]) {
		return v[0]
	}
	return telemetry.TraceID(r.Context())
}

// forged are headers that no outside client has a reason to send, by their canonical names.
var forged = []string{
	"X-Request-Timeout-Ms", "Baggage", "Http2-Settings",
	"X-Http-Method", "X-Http-Method-Override", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url", "X-Original-Host",
}

// forwarding are headers about the path of a request, which only proxies may set.
var forwarding = []string{"Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip"}

// clean removes the headers that a caller must not set. trusted is true for a proxy of
// Settings.ForwardedFrom.
func clean(h http.Header, method string, trusted bool) {
	for key := range h {
		name := http.CanonicalHeaderKey(key)
		switch {
		case !isPlain(name), slices.Contains(forged, name), hasPrefix(name, "Grpc-", "Proxy-"):
		case hasPrefix(name, "Kaptar-"):
			if trusted && key == transport.PrincipalHeader {
				continue // package auth looks whether it is good
			}
		case hasPrefix(name, "X-Forwarded-"), slices.Contains(forwarding, name):
			if trusted {
				continue
			}
		case name == "Upgrade":
			if method == http.MethodGet && len(h[key]) == 1 && strings.EqualFold(h[key][0], "websocket") {
				continue
			}
		default:
			continue
		}
		delete(h, key)
	}
}

func hasPrefix(name string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}
