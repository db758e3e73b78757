package gateway

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
)

// FuzzClean: whatever a header is called, no name that only the system may say is left.
func FuzzClean(f *testing.F) {
	for _, name := range []string{
		"Kaptar-Principal", "kaptar_principal", "X_Forwarded_For", "X-Forwarded-For", "x-forwarded-Host", "Forwarded", "Via", "Grpc-Timeout", "grpc.timeout",
		"Proxy-Authorization", "BAGGAGE", "X-HTTP-Method-Override", "X-Request-Timeout-Ms", "Upgrade", "X-Real_IP", "Content-Type", "\u212aaptar-Principal", "",
	} {
		f.Add(name, "websocket", "GET", false)
		f.Add(name, "h2c", "POST", true)
	}
	f.Fuzz(func(t *testing.T, name, value, method string, trusted bool) {
		h := http.Header{name: {value}, "Content-Type": {"a"}}
		h.Add(name, value)
		clean(h, method, trusted)
		for left := range h {
			flat := strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(left))
			switch {
			case !isPlain(left), hasPrefix(flat, "grpc-", "proxy-"), slices.ContainsFunc(forged, func(n string) bool { return strings.EqualFold(n, flat) }):
				t.Errorf("%q is left", left)
			case strings.HasPrefix(flat, "kaptar-") && !(trusted && flat == "kaptar-principal"):
				t.Errorf("%q is left", left)
			case !trusted && (strings.HasPrefix(flat, "x-forwarded-") || slices.ContainsFunc(forwarding, func(n string) bool { return strings.EqualFold(n, flat) })):
				t.Errorf("%q is left", left)
			}
		}
		if len(h["Content-Type"]) == 0 {
			t.Error("Content-Type is gone")
		}
	})
}

// FuzzPath: a path that is let through is in its simplest form, decoded once or twice.
func FuzzPath(f *testing.F) {
	for _, p := range []string{"/", "/a/b/", "//", "/../a", "/a/./b", "/a/..;x/b", `/a\b`, "/a/%2e%2e/b", "/a%00", "/ä", "/\xff", "/a;b", "/...", "", "*", "/%25%32%65"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if !goodPath(p) {
			return
		}
		for range 2 {
			simple := path.Clean("/" + p)
			if strings.HasSuffix(p, "/") && simple != "/" {
				simple += "/"
			}
			if given := "/" + strings.TrimPrefix(p, "/"); simple != given || strings.ContainsAny(p, "\\\x00\r\n") {
				t.Fatalf("%q is let through, and read as %q", p, simple)
			}
			again, err := url.PathUnescape(p)
			if err != nil {
				return
			}
			p = again
		}
	})
}

// FuzzRequestID: an id that is taken over is a short word, whatever was sent.
func FuzzRequestID(f *testing.F) {
	for _, id := range []string{"abc", "", "a b", "a\nb", strings.Repeat("a", 65), "\x1b[31m", "550e8400-e29b-41d4-a716-446655440000"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		r := &http.Request{Header: http.Header{"X-Request-Id": {id}}}
		if got := requestID(r.WithContext(t.Context())); got != "" && (got != id || len(got) > 64 || !isPlain(got)) {
			t.Errorf("%q becomes %q", id, got)
		}
	})
}
