package server_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/internal/inproc"
	"github.com/kaptar/kaptar/server"
)

// dump writes a header as it is, without what the network adds on its own.
func dump(h http.Header) string {
	h = maps.Clone(h)
	for _, k := range []string{"Date", "User-Agent"} { // documented in internal/inproc
		delete(h, k)
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(h)) {
		if v := fmt.Sprintf("%q", h[k]); len(v) > 1000 {
			fmt.Fprintf(&b, "%s=%d bytes ", k, len(v)) // so that the answer has a length
		} else {
			fmt.Fprintf(&b, "%s=%s ", k, v)
		}
	}
	return b.String()
}

// TestSameWithinTheProcess sends the same requests over the network and within the process: what
// the handler sees and what the caller gets must not differ.
func TestSameWithinTheProcess(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.HandleFunc("/saw/", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s path=%q raw=%q query=%q force=%v uri=%q host=%q len=%d te=%v body=%q err=%v trailer=%s header=%s",
			r.Method, r.Proto, r.URL.Path, r.URL.RawPath, r.URL.RawQuery, r.URL.ForceQuery, r.RequestURI, r.Host,
			r.ContentLength, r.TransferEncoding, body, err, dump(r.Trailer), dump(r.Header))
	})
	answers := map[string]func(w http.ResponseWriter){
		"lower": func(w http.ResponseWriter) {
			w.Header()["x-lower"] = []string{"1"}
			w.Header()["X-Lower"] = []string{"2"}
		},
		"newline": func(w http.ResponseWriter) { w.Header()["X-A"] = []string{"a\r\nX-B: b", " spaces\t", "", "tab\there"} },
		"badname": func(w http.ResponseWriter) { w.Header()["X Bad"] = []string{"1"}; w.Header()[""] = []string{"2"} },
		"latin":   func(w http.ResponseWriter) { w.Header().Set("X-A", "caf\xe9 ä") },
		"204":     func(w http.ResponseWriter) { w.WriteHeader(204) },
		"304":     func(w http.ResponseWriter) { w.Header().Set("Etag", "x"); w.WriteHeader(304) },
		"999":     func(w http.ResponseWriter) { w.WriteHeader(999) },
		"close":   func(w http.ResponseWriter) { w.Header().Set("Connection", "close"); _, _ = io.WriteString(w, "abc") },
		"nosniff": func(w http.ResponseWriter) { w.Header()["Content-Type"] = nil; _, _ = io.WriteString(w, "<html>") },
		"sniff":   func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>") },
		"empty":   func(http.ResponseWriter) {},
		"trailer": func(w http.ResponseWriter) {
			w.Header().Set("Trailer", "x-t")
			_, _ = io.WriteString(w, "abc")
			w.Header().Set("X-T", "1")
		},
		"largehead": func(w http.ResponseWriter) { w.Header().Set("X-A", strings.Repeat("x", 70<<10)) },
	}
	for name, f := range answers {
		b.HandleFunc("/answer/"+name, func(w http.ResponseWriter, _ *http.Request) { f(w) })
	}
	base := b.start(t)
	network := &http.Transport{DisableCompression: true}
	t.Cleanup(network.CloseIdleConnections)
	ways := []http.RoundTripper{network, inproc.RoundTripper(b.Handler())}

	type request struct {
		method, url string
		edit        func(r *http.Request)
	}
	plain := func(*http.Request) {}
	set := func(key string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[key] = values }
	}
	body := func(s string, length int64) func(*http.Request) {
		return func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(s)), length
		}
	}
	requests := map[string]request{
		"plain":              {"GET", "/saw/x", plain},
		"no method":          {"", "/saw/x", plain},
		"odd method":         {"brew", "/saw/x", plain},
		"bad method":         {"B AD", "/saw/x", plain},
		"query":              {"GET", "/saw/x?a=1;b=2&c=%zz", plain},
		"empty query":        {"GET", "/saw/x?", plain},
		"escaped":            {"GET", "/saw/%2f%c3%bc%20x", plain},
		"unicode":            {"GET", "/saw/ü x", plain},
		"no utf-8":           {"GET", "/saw/%ff%00", plain},
		"dots":               {"GET", "/saw/../saw/x", plain},
		"slashes":            {"GET", "//saw//x", plain},
		"no route":           {"GET", "/nowhere", plain},
		"host":               {"GET", "/saw/x", func(r *http.Request) { r.Host = "other.example" }},
		"odd host":           {"GET", "/saw/x", func(r *http.Request) { r.Host = "a b" }},
		"opaque":             {"GET", "/saw/x", func(r *http.Request) { r.URL.Opaque = "//" + r.URL.Host + "/saw/opaque%2f" }},
		"userinfo":           {"GET", "/saw/x", func(r *http.Request) { r.URL.User = url.UserPassword("a", "b") }},
		"lower-case key":     {"GET", "/saw/x", set("x-lower", "1")},
		"two spellings":      {"GET", "/saw/x", func(r *http.Request) { r.Header["x-a"] = []string{"1"}; r.Header["X-A"] = []string{"2"} }},
		"odd key":            {"GET", "/saw/x", set("x_under.score", "1")},
		"bad key":            {"GET", "/saw/x", set("x a", "1")},
		"empty key":          {"GET", "/saw/x", set("", "1")},
		"spaces":             {"GET", "/saw/x", set("X-A", "  a  b\t", "", " ")},
		"several":            {"GET", "/saw/x", set("X-A", "1", "2", "1")},
		"no values":          {"GET", "/saw/x", set("X-A")},
		"latin":              {"GET", "/saw/x", set("X-A", "caf\xe9", "ü")},
		"newline":            {"GET", "/saw/x", set("X-A", "a\r\nX-B: b")},
		"NUL":                {"GET", "/saw/x", set("X-A", "a\x00b")},
		"hop by hop":         {"GET", "/saw/x", func(r *http.Request) { r.Header.Set("Te", "trailers"); r.Header.Set("Keep-Alive", "5") }},
		"forbidden":          {"GET", "/saw/x", func(r *http.Request) { r.Header.Set("Host", "evil"); r.Header.Set("Content-Length", "7") }},
		"large header":       {"GET", "/saw/x", set("X-A", strings.Repeat("x", 60<<10))},
		"too large a header": {"GET", "/saw/x", set("X-A", strings.Repeat("x", 80<<10))},
		"too many headers":   {"GET", "/saw/x", set("X-A", slices.Repeat([]string{"0123456789"}, 6000)...)},
		"body":               {"POST", "/saw/x", body("hello", 5)},
		"body of any length": {"POST", "/saw/x", body("hello", -1)},
		"body with GET":      {"GET", "/saw/x", body("hello", 5)},
		"empty body":         {"POST", "/saw/x", func(r *http.Request) { r.Body = http.NoBody }},
		"no body":            {"POST", "/saw/x", plain},
		"unknown empty body": {"PUT", "/saw/x", body("", -1)},
		"trailer":            {"POST", "/saw/x", func(r *http.Request) { body("hello", -1)(r); r.Trailer = http.Header{"X-T": {"1"}} }},
		"user agent":         {"GET", "/saw/x", set("User-Agent", "mine")},
	}
	for name := range answers {
		requests["answer "+name] = request{"GET", "/answer/" + name, plain}
		requests["head "+name] = request{"HEAD", "/answer/" + name, plain}
	}
	for name, req := range requests {
		var got [2]string
		for i, rt := range ways {
			r, err := http.NewRequestWithContext(t.Context(), "GET", base+req.url, nil)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			r.Method = req.method
			req.edit(r)
			resp, err := rt.RoundTrip(r)
			if err != nil {
				got[i] = "error"
				continue
			}
			data, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			data = []byte(untraced(string(data)))
			if err != nil {
				err = errors.New("error")
			}
			got[i] = fmt.Sprintf("%s close=%v len=%d te=%v trailer=%s header=%s\n  %s %v",
				resp.Status, resp.Close, resp.ContentLength, resp.TransferEncoding, dump(resp.Trailer), dump(resp.Header), short(string(data)), err)
		}
		if got[0] != got[1] {
			t.Errorf("%s:\nnetwork    %s\nin process %s", name, short(got[0]), short(got[1]))
		}
	}
}

// untraced makes the trace ids of problems equal.
func untraced(s string) string {
	if i := strings.Index(s, `"trace_id":"`); i >= 0 {
		return s[:i] + s[i+len(`"trace_id":"`)+32:]
	}
	return s
}

func short(s string) string {
	if len(s) > 900 {
		return fmt.Sprintf("%s… %d bytes", s[:900], len(s))
	}
	return s
}
