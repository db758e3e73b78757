package gateway_test

import (
	"fmt"
	"strings"
	"testing"
)

// last is the request that stands behind each case on the same connection: whether it is served, as
// what, or read as a body tells how the case was framed.
const last = "GET /v1/users/last HTTP/1.1\r\nHost: <host>\r\nConnection: close\r\n\r\n"

const (
	get  = "GET /v1/users/1 HTTP/1.1\r\nHost: <host>\r\n"
	post = "POST /v1/users/1 HTTP/1.1\r\nHost: <host>\r\n"
)

type framing struct {
	name, raw string
	status    []int    // of all answers, in order
	seen      []string // by the service
}

var (
	refused = []int{400}
	both    = []int{200, 200}
	onlyGet = []string{"GET /v1/users/1", "GET /v1/users/last"}
	onePost = []string{"POST /v1/users/1", "GET /v1/users/last"}
	broken  = []string{"POST /v1/users/1"} // perhaps, as its body does not end
)

// framings are requests whose length or end two programs could see at different places, and lines
// that are none.
func framings() []framing {
	return []framing{
		{"length and chunks", post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", refused, nil},
		{"chunks and length", post + "transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n", refused, nil},
		{"chunks and length 0", post + "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", refused, nil},
		{"GET with length and chunks", get + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", refused, nil},
		{"two lengths", post + "Content-Length: 0\r\nContent-Length: 60\r\n\r\n", refused, nil},
		{"one length twice", post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", both, onePost},
		{"list of lengths", post + "Content-Length: 0, 60\r\n\r\n", refused, nil},
		{"list of one length", post + "Content-Length: 5, 5\r\n\r\nhello", refused, nil},
		{"length with a plus", post + "Content-Length: +5\r\n\r\nhello", refused, nil},
		{"negative length", post + "Content-Length: -5\r\n\r\nhello", refused, nil},
		{"length in hexadecimal", post + "Content-Length: 0x5\r\n\r\nhello", refused, nil},
		{"length with a comma", post + "Content-Length: 5,\r\n\r\nhello", refused, nil},
		{"empty length", post + "Content-Length:\r\n\r\nhello", refused, nil},
		{"length beyond all", post + "Content-Length: 99999999999999999999\r\n\r\nhello", refused, nil},
		{"length with spaces around", post + "Content-Length: \t 5 \t\r\n\r\nhello", both, onePost},
		{"length in an underscore's clothes", post + "Content_Length: 100\r\nContent-Length: 5\r\n\r\nhello", both, onePost},
		{"GET with a body", get + "Content-Length: 5\r\n\r\nhello", both, onlyGet},
		{"chunks", post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", both, onePost},
		{"chunks in capitals", post + "Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n", both, onePost},
		{"chunks twice", post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", []int{501}, nil},
		{"chunks in two fields", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{501}, nil},
		{"chunks and identity", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", []int{501}, nil},
		{"identity", post + "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", []int{501}, nil},
		{"gzip and chunks", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", []int{501}, nil},
		{"almost chunked", post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", []int{501}, nil},
		{"chunked in quotes", post + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", []int{501}, nil},
		{"chunked behind a vertical tab", post + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", refused, nil},
		{"empty encoding", post + "Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello", []int{501}, nil},
		{"space before the colon", post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", refused, nil},
		{"tab before the colon", post + "Content-Length\t: 5\r\n\r\nhello", refused, nil},
		{"folded encoding", post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", refused, nil},
		{"folded length", post + "X-A: b\r\n Content-Length: 60\r\n\r\n", refused, nil},
		{"folded by a tab", get + "X-A: b\r\n\tContent-Length: 60\r\n\r\n", refused, nil},
		{"space before the first field", "GET /v1/users/1 HTTP/1.1\r\n Host: <host>\r\n\r\n", refused, nil},
		{"LF alone after a field", post + "X-A: b\nContent-Length: 60\r\n\r\n", refused, nil},
		{"LF alone everywhere", "GET /v1/users/1 HTTP/1.1\nHost: <host>\n\n", refused, nil},
		{"CR alone in a value", get + "X-A: b\rContent-Length: 60\r\n\r\n", refused, nil},
		{"NUL in a value", get + "X-A: b\x00c\r\n\r\n", refused, nil},
		{"NUL in a name", get + "X-\x00A: b\r\n\r\n", refused, nil},
		{"field without a colon", get + "X-A\r\n\r\n", refused, nil},
		{"field without a name", get + ": b\r\n\r\n", refused, nil},
		{"name with a space", get + "X A: b\r\n\r\n", refused, nil},
		{"name that is not ASCII", get + "X-\xc3\xa4: b\r\n\r\n", refused, nil},
		{"chunks of HTTP/1.0", "POST /v1/users/1 HTTP/1.0\r\nHost: <host>\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n", refused, nil},
		{"size in hexadecimal notation", post + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", refused, broken},
		{"size with a plus", post + "Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", refused, broken},
		{"negative size", post + "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", refused, broken},
		{"size beyond all", post + "Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", refused, broken},
		{"no size", post + "Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n", refused, broken},
		{"LF alone after a size", post + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", refused, broken},
		{"LF alone in an extension", post + "Transfer-Encoding: chunked\r\n\r\n5;\nhello\r\n0\r\n\r\n", refused, broken},
		{"LF alone after a chunk", post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", refused, broken},
		{"chunk longer than its size", post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n", refused, broken},
		{"extension without end", post + "Transfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("x", 8<<10) + "\r\nhello\r\n0\r\n\r\n", refused, broken},
		{"trailer that is a length", post + "Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\nContent-Length: 60\r\n\r\n", refused, nil},
		{"trailer that is an encoding", post + "Transfer-Encoding: chunked\r\nTrailer: Transfer-Encoding\r\n\r\n0\r\nTransfer-Encoding: x\r\n\r\n", refused, nil},
		{"HTTP/0.9", "GET /v1/users/1\r\n\r\n", refused, nil},
		{"HTTP/2.0 in a line", "GET /v1/users/1 HTTP/2.0\r\nHost: <host>\r\n\r\n", []int{505}, nil},
		{"HTTP/1.1 in small letters", "GET /v1/users/1 http/1.1\r\nHost: <host>\r\n\r\n", refused, nil},
		{"no version number", "GET /v1/users/1 HTTP/1.\r\nHost: <host>\r\n\r\n", refused, nil},
		{"two spaces", "GET  /v1/users/1 HTTP/1.1\r\nHost: <host>\r\n\r\n", refused, nil},
		{"tabs for spaces", "GET\t/v1/users/1\tHTTP/1.1\r\nHost: <host>\r\n\r\n", refused, nil},
		{"a space in the path", "GET /v1/users/1 2 HTTP/1.1\r\nHost: <host>\r\n\r\n", refused, nil},
		{"line without end", "GET /v1/users/" + strings.Repeat("x", 100<<10) + " HTTP/1.1\r\nHost: <host>\r\n\r\n", []int{431}, nil},
		{"header without end", get + "X-A: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", []int{431}, nil},
		{"large header", get + "X-A: " + strings.Repeat("x", 40<<10) + "\r\n\r\n", []int{431, 200}, []string{"GET /v1/users/last"}},
		{"many fields", get + strings.Repeat("X-A: b\r\n", 1000) + "\r\n", []int{431, 200}, []string{"GET /v1/users/last"}},
		{"no host", "GET /v1/users/1 HTTP/1.1\r\n\r\n", refused, nil},
		{"two hosts", get + "Host: <host>\r\n\r\n", refused, nil},
		{"host with a space", "GET /v1/users/1 HTTP/1.1\r\nHost: a b\r\n\r\n", refused, nil},
		{"expects what nobody does", post + "Expect: miracles\r\nContent-Length: 5\r\n\r\nhello", []int{417}, nil},
		{"expects to go on", post + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", both, onePost},
	}
}

func TestFraming(t *testing.T) {
	inBoth(t, func(t *testing.T, shape string) {
		s := open(t, shape, map[string]string{"services.gateway.rate_limit": "1000"}, nil, nil)
		if n := len(framings()); n < 50 {
			t.Errorf("there are %d cases, want 50", n)
		}
		for i, f := range framings() {
			mark := fmt.Sprintf("?case=%d", i) // a broken one may come to the service after its end
			got := s.statuses(s.send(strings.Replace(f.raw, "/v1/users/1 HTTP/1.", "/v1/users/1"+mark+" HTTP/1.", 1) + last))
			all, bodies := s.take()
			var seen []string
			for _, target := range targets(all) {
				if target = strings.TrimSuffix(target, mark); !strings.Contains(target, "?case=") {
					seen = append(seen, target)
				}
			}
			if !same(got, f.status) || !same(seen, f.seen) && !(same(f.seen, broken) && len(seen) == 0) {
				t.Errorf("%s: got %v and the service saw %q, want %v and %q", f.name, got, seen, f.status, f.seen)
			}
			for i, b := range bodies {
				if b != "" && b != "hello" {
					t.Errorf("%s: the body of %s was %.60q", f.name, targets(all)[i], b)
				}
			}
			s.wellAfter(f.name)
		}
	})
}

// spelling is one request by its method, target and host.
type spelling struct {
	method, target, host string
	status               int
	seen                 string // what the service saw; "": nothing
}

func spellings() (all []spelling) {
	long := "/v1/users/" + strings.Repeat("x", 8<<10)
	for _, target := range []string{
		"//v1/users/1", "/v1//users/1", "/v1/users//1", "/v1/users/./1", "/v1/users/../orders/1", "/v1/users/..", "/v1/users/.", "/..", "/../metrics",
		"/v1/users/%2e/1", "/v1/users/%2e%2e/1", "/v1/users/%2E%2E%2Fmetrics", "/v1/users/.%2e/1", "/v1/users/%252e%252e/1", "/v1/users/%252e%252e%252fmetrics",
		"/v1/users/..;/1", "/v1/users/..;a=b/1", "/v1/users/%2e%2e%3b/1", `/v1/users/..\1`, `/v1/users\1`, "/v1/users/..%5c1", "/v1/users/%5C", "/v1/users/%255c",
		"/v1/users/%00", "/v1/users/a%00b", "/v1/users/%2500", "/v1/users/%0d%0aX:%20y", "/v1/users/%7f", "/v1/users/%1b", "/v1/users/%ff", "/v1/users/%c0%ae%c0%ae/1",
		"/v1/users/1#x", "/v1/users/%zz", "/v1/users/%", "v1/users/1", `\v1\users\1`, "/v1/users/a%2F%2Fb", "/v1/users%2F..%2F1",
	} {
		all = append(all, spelling{"GET", target, "", 400, ""})
	}
	for _, target := range []string{
		"/v1%2Fusers/1", "/v1/users%2F1", "/V1/users/1", "/v1/Users/1", "/v1/users;x/1", "/v2/users/1", "/secrets", "/debug/pprof/", "/debug/vars",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/user.v1.UserService/GetUser", "/grpc.health.v1.Health/Check", "/v1/metrics", "/metrics/", "/livez/",
		"/%6detrics/", "/v1/livez", "/user-service/metrics", "http://user-service/metrics/",
	} {
		all = append(all, spelling{"GET", target, "", 404, ""})
	}
	for _, method := range []string{"TRACE", "TRACK", "CONNECT", "get", "Get", "PROPFIND", "PURGE", "M-SEARCH", "DEBUG"} {
		all = append(all, spelling{method, "/v1/users/1", "", 405, ""})
	}
	for _, host := range []string{"a,b", "a/b", "a@b", "a%00b", "a\\b", "a'b", "a?b", "a#b", strings.Repeat("a", 256)} {
		all = append(all, spelling{"GET", "/v1/users/1", host, 400, ""})
	}
	return append(all,
		spelling{"CONNECT", "user-service:80", "", 405, ""},
		spelling{"OPTIONS", "*", "", 200, ""},
		spelling{"G(T", "/v1/users/1", "", 400, ""},
		spelling{"GET", "/v1/users/..%2f..%2fmetrics", "", 400, ""},
		spelling{"GET", long, "", 414, ""},
		spelling{"GET", "/v1/users/1?q=" + long, "", 414, ""},
		spelling{"GET", "http://elsewhere/v1/users/1", "", 200, "GET elsewhere/v1/users/1"},
		spelling{"GET", "http://a@b/v1/users/1", "", 200, "GET b/v1/users/1"},
		spelling{"GET", "http://elsewhere", "", 307, ""}, // to /
		spelling{"GET", "http://elsewhere//v1/users/1", "", 400, ""},
		spelling{"GET", "http:///v1/users/1", "a", 200, "GET a/v1/users/1"},
		spelling{"GET", "http://[::1/v1/users/1", "", 400, ""},
		spelling{"GET", "?x", "", 400, ""},
		spelling{"GET", "*", "", 400, ""},
		spelling{"GET", "ftp://elsewhere/v1/users/1", "", 200, "GET elsewhere/v1/users/1"},
		spelling{"GET", "/v1/users/a%2Fb", "a.example:80", 200, "GET a.example:80/v1/users/a%2Fb"},
		spelling{"GET", "/v1/users/100%25", "[::1]:80", 200, "GET [::1]:80/v1/users/100%25"},
		spelling{"GET", "/users/%C3%A4?q=%00&r=../..", "a", 200, "GET a/users/%C3%A4?q=%00&r=../.."},
		spelling{"GET", "/users/...", "a", 200, "GET a/users/..."},
		spelling{"GET", "/users/", "a", 200, "GET a/users/"},
		spelling{"DELETE", "/users", "a", 200, "DELETE a/users"},
	)
}

func TestSpellings(t *testing.T) {
	inBoth(t, func(t *testing.T, shape string) {
		s := open(t, shape, nil, nil, nil)
		for _, c := range spellings() {
			host := c.host
			if host == "" {
				host = "<host>"
			}
			what := fmt.Sprintf("%s %.60s of %.60s", c.method, c.target, host)
			raw := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", c.method, c.target, host)
			got := s.statuses(s.send(raw))
			seen, _ := s.take()
			saw := ""
			for _, r := range seen {
				saw += r.Method + " " + r.Host + r.RequestURI
			}
			if !same(got, []int{c.status}) || saw != c.seen {
				t.Errorf("%s: got %v and the service saw %q, want %d and %q", what, got, saw, c.status, c.seen)
			}
			s.wellAfter(what)
		}
	})
}
