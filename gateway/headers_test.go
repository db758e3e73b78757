package gateway_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/gateway"
)

// outside is a request with headers that a stranger may send.
type outside struct {
	name   string
	lines  string // of the header
	status int
	gone   []string // names that the service did not see
	saw    []string // lines that it saw
}

func fromOutside() []outside {
	return []outside{
		{"nothing", "", 200, []string{"Authorization"}, []string{"X-Forwarded-For: 127.0.0.2", "X-Forwarded-Host: <host>", "X-Forwarded-Proto: http"}},
		{"internal token", "Kaptar-Principal: x\r\n", 200, nil, nil},
		{"internal token in small letters", "kaptar-principal: x\r\n", 200, nil, nil},
		{"internal token, underscored", "Kaptar_Principal: x\r\n", 200, []string{"Kaptar_Principal", "Kaptar_principal"}, nil},
		{"internal token twice", "Kaptar-Principal: x\r\nKaptar-Principal: y\r\n", 200, nil, nil},
		{"mark of overload", "Kaptar-Overload: queue_full\r\n", 200, []string{"Kaptar-Overload"}, nil},
		{"mark of a dependency", "Kaptar-Dependency: bank\r\n", 200, []string{"Kaptar-Dependency"}, nil},
		{"anything of the system's", "Kaptar-New: x\r\nKAPTAR-OLD: y\r\n", 200, []string{"Kaptar-New", "Kaptar-Old"}, nil},
		{"versions of services", "Kaptar-Version: user-service=v2\r\n", 200, []string{"Kaptar-Version"}, nil},
		{"deadline that has passed", "X-Request-Timeout-Ms: 0\r\n", 200, nil, nil},
		{"deadline of a day", "X-Request-Timeout-Ms: 86400000\r\n", 200, nil, nil},
		{"deadline, underscored", "X_Request_Timeout_Ms: 0\r\n", 200, []string{"X_request_timeout_ms", "X_Request_Timeout_Ms"}, nil},
		{"client's address", "X-Forwarded-For: 10.0.0.1\r\n", 200, nil, []string{"X-Forwarded-For: 127.0.0.2"}},
		{"client's address twice", "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\n", 200, nil, []string{"X-Forwarded-For: 127.0.0.2"}},
		{"client's address, underscored", "X_Forwarded_For: 10.0.0.1\r\n", 200, []string{"X_forwarded_for", "X_Forwarded_For"}, []string{"X-Forwarded-For: 127.0.0.2"}},
		{"client's address, half underscored", "X-Forwarded_For: 10.0.0.1\r\n", 200, []string{"X-Forwarded_for", "X-Forwarded_For"}, []string{"X-Forwarded-For: 127.0.0.2"}},
		{"client's address with a dot", "X.Forwarded.For: 10.0.0.1\r\n", 200, []string{"X.forwarded.for", "X.Forwarded.For"}, nil},
		{"host and scheme", "X-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n", 200, nil, []string{"X-Forwarded-Host: <host>", "X-Forwarded-Proto: http"}},
		{"port and prefix", "X-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /admin\r\nX-Forwarded-User: root\r\n", 200, []string{"X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-User"}, nil},
		{"Forwarded", "Forwarded: for=10.0.0.1\r\n", 200, []string{"Forwarded"}, nil},
		{"other names of the client", "X-Real-IP: 1\r\nX-Client-IP: 1\r\nTrue-Client-IP: 1\r\nCF-Connecting-IP: 1\r\nX-Cluster-Client-IP: 1\r\n", 200, []string{"X-Real-Ip", "X-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "X-Cluster-Client-Ip"}, nil},
		{"Via", "Via: 1.1 evil\r\n", 200, []string{"Via"}, nil},
		{"another method", "X-HTTP-Method-Override: DELETE\r\nX-HTTP-Method: DELETE\r\nX-Method-Override: DELETE\r\n", 200, []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"}, nil},
		{"another path", "X-Original-URL: /metrics\r\nX-Rewrite-URL: /metrics\r\nX-Original-Host: evil\r\n", 200, []string{"X-Original-Url", "X-Rewrite-Url", "X-Original-Host"}, nil},
		{"baggage", "Baggage: user=1\r\n", 200, []string{"Baggage"}, nil},
		{"gRPC's", "grpc-timeout: 1n\r\nGrpc-Encoding: gzip\r\ngrpc-previous-rpc-attempts: 9\r\n", 200, []string{"Grpc-Timeout", "Grpc-Encoding", "Grpc-Previous-Rpc-Attempts"}, nil},
		{"a proxy's", "Proxy-Authorization: Basic x\r\nProxy-Connection: close\r\nProxy: http://evil\r\n", 200, []string{"Proxy-Authorization", "Proxy-Connection"}, nil},
		{"for one hop", "Keep-Alive: timeout=1\r\nTE: trailers\r\nConnection: Keep-Alive, close\r\n", 200, []string{"Keep-Alive", "Connection"}, []string{"Te: trailers"}},
		{"named in Connection", "Connection: close, X-Own\r\nX-Own: a\r\n", 200, []string{"X-Own", "Connection"}, nil},
		{"forwarding named in Connection", "Connection: close, X-Forwarded-For, X-Request-Id, Kaptar-Principal\r\n", 200, nil, []string{"X-Forwarded-For: 127.0.0.2"}},
		{"a key", "X-Api-Key: robot's\r\n", 200, []string{"X-Api-Key", "Authorization"}, nil},
		{"a wrong key", "X-Api-Key: x\r\n", 401, nil, nil},
		{"a password", "Authorization: Basic YTpi\r\n", 401, nil, nil},
		{"a token of nobody's", "Authorization: Bearer a.b.c\r\n", 401, nil, nil},
		{"a key and a token", "X-Api-Key: robot's\r\nAuthorization: Bearer a.b.c\r\n", 400, nil, nil},
		{"cookies", "Cookie: a=b\r\n", 200, []string{"Cookie"}, nil},
		{"two credentials", "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", 400, nil, nil},
		{"two keys", "X-Api-Key: a\r\nX-Api-Key: b\r\n", 400, nil, nil},
		{"two types", "Content-Type: text/plain\r\nContent-Type: application/json\r\n", 400, nil, nil},
		{"two keys of one order", "Idempotency-Key: a\r\nIdempotency-Key: b\r\n", 400, nil, nil},
		{"two origins", "Origin: http://<host>\r\nOrigin: http://evil\r\n", 400, nil, nil},
		{"upgrade to HTTP/2", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings\r\n", 200, []string{"Upgrade", "Http2-Settings", "Connection"}, nil},
		{"upgrade to anything", "Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n", 200, []string{"Upgrade", "Connection"}, nil},
		{"two upgrades", "Upgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n", 200, []string{"Upgrade", "Connection"}, nil},
		{"upgrades in a list", "Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n", 200, []string{"Upgrade", "Connection"}, nil},
		{"names that are no words", "X~A: 1\r\nX!B: 1\r\nX'C: 1\r\nX|D: 1\r\n", 200, []string{"X~a", "X!b", "X'c", "X|d"}, nil},
		{"trace and its state", "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nTracestate: a=b\r\n", 200, []string{"Tracestate"}, nil},
		{"state without a trace", "Tracestate: a=b\r\n", 200, []string{"Tracestate"}, nil},
		{"a request id", "X-Request-ID: Ab-9\r\n", 200, nil, []string{"X-Request-Id: Ab-9"}},
		{"what is nobody's business", "Accept: a\r\nIdempotency-Key: k\r\nIf-None-Match: \"x\"\r\nX-Own: a\r\nX-Own: b\r\n", 200, nil, []string{"Accept: a", "Idempotency-Key: k", "If-None-Match: \"x\"", "X-Own: a", "X-Own: b"}},
		{"page of another origin", "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n", 200, nil, nil}, // GET changes nothing
	}
}

// robot are the settings for a machine whose key is "robot's".
var robot = map[string]string{
	"auth.keys.robot.sha256": "3b3478ac33f8d04f243b17615e6df276efcadb10de56cadf7b424a0b485e263c", "auth.keys.robot.scopes": "users:read",
}

func TestHeadersFromOutside(t *testing.T) {
	inBoth(t, func(t *testing.T, shape string) {
		s := open(t, shape, robot, nil, nil)
		if n := len(fromOutside()); n < 30 {
			t.Errorf("there are %d cases, want 30", n)
		}
		for _, c := range fromOutside() {
			answers := s.send("GET /v1/users/1 HTTP/1.1\r\nHost: <host>\r\n" + c.lines + "\r\n" + last)
			seen, _ := s.take()
			if len(answers) == 0 || answers[0].Status != c.status || (len(seen) > 0) != (c.status == 200) && seen[0].RequestURI != "/v1/users/last" {
				t.Errorf("%s: got %v and the service saw %v, want %d", c.name, answers, targets(seen), c.status)
				continue
			}
			if c.status == 200 {
				s.checkSeen(c, seen[0].Header)
			}
			s.wellAfter(c.name)
		}
	})
}

func (s *site) checkSeen(c outside, h http.Header) {
	s.t.Helper()
	for _, name := range append(c.gone, "X-Request-Timeout-Ms") {
		if v := h[name]; name == "X-Request-Timeout-Ms" {
			if len(v) != 1 || len(v[0]) != 5 { // our own fifteen seconds
				s.t.Errorf("%s: the service's time is %v ms, want what is left of our 15 s", c.name, v)
			}
		} else if len(v) > 0 {
			s.t.Errorf("%s: the service saw %s: %q", c.name, name, v)
		}
	}
	if token := h["Kaptar-Principal"]; len(token) != 1 || strings.Count(token[0], ".") != 2 {
		s.t.Errorf("%s: the service saw the internal tokens %q, want one of the gateway's", c.name, token)
	}
	for _, line := range c.saw {
		name, value, _ := strings.Cut(strings.ReplaceAll(line, "<host>", s.addr), ": ")
		if !slices.Contains(h[name], value) {
			s.t.Errorf("%s: the service saw %s: %q, want %s", c.name, name, h[name], value)
		}
	}
	if len(h["X-Forwarded-For"]) != 1 || len(h["Traceparent"]) != 1 || strings.Contains(h["Traceparent"][0], "4bf92f3577b34da6a3ce929d0e0e4736") {
		s.t.Errorf("%s: the service saw %v and %v, want one address and a trace of ours", c.name, h["X-Forwarded-For"], h["Traceparent"])
	}
}

// TestFromProxy: what one of our proxies says of a request counts, what its client says does not.
func TestFromProxy(t *testing.T) {
	t.Parallel()
	s := open(t, together, map[string]string{"services.gateway.forwarded_from": "127.0.0.0/8", "services.gateway.trace_from": "127.0.0.0/8"}, nil, nil)
	answers := s.send("GET /v1/users/1 HTTP/1.1\r\nHost: <host>\r\nConnection: close\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\nX-Forwarded-Proto: https\r\n" +
		"X-Forwarded-Host: shop.example\r\nX-Real-IP: 10.0.0.1\r\nKaptar-Overload: x\r\nX_Real_IP: y\r\nX-Request-Timeout-Ms: 1\r\n" +
		"Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n")
	seen, _ := s.take()
	if len(answers) != 1 || len(seen) != 1 {
		t.Fatalf("got %v, and the service saw %v", answers, targets(seen))
	}
	for name, want := range map[string]string{
		"X-Forwarded-For": "10.0.0.1, 10.0.0.2, 127.0.0.2", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example", "X-Real-Ip": "10.0.0.1", "Kaptar-Overload": "",
	} {
		if got := strings.Join(seen[0].Header[name], ", "); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if p := seen[0].Header.Get("Traceparent"); !strings.Contains(p, "4bf92f3577b34da6a3ce929d0e0e4736") {
		t.Errorf("Traceparent is %s, want the proxy's trace", p)
	}
	if got := answers[0].Header.Get("Strict-Transport-Security"); got == "" {
		t.Error("no Strict-Transport-Security behind a proxy that serves TLS")
	}
	for host, want := range map[string]int{"shop.example": 200, "shop.example, inner": 200, "evil.example": 403} { // the page's own origin, behind a proxy that changes Host
		if a := s.sys.Do(http.MethodPost, "gateway", "/v1/users/1", "", "Origin", friend, "X-Forwarded-Host", host); a.Status != want {
			t.Errorf("a page of %s where the proxy was asked for %s: %d, want %d", friend, host, a.Status, want)
		}
	}
	for _, path := range []string{"/metrics", "/livez", "/readyz"} {
		if a := s.sys.Do(http.MethodGet, "gateway", path, ""); a.Status != http.StatusNotFound {
			t.Errorf("%s by way of a proxy on this machine: %d, want 404", path, a.Status)
		}
	}
}

// TestAdmin: what the gateway says of itself nobody outside can read, however the path is spelled.
func TestAdmin(t *testing.T) {
	t.Parallel()
	s := open(t, together, map[string]string{"services.gateway.admin_from": "127.0.0.1"}, nil, nil)
	for _, path := range []string{"/metrics", "/livez", "/readyz"} {
		for _, spelled := range []string{path, "/%" + fmt.Sprintf("%x", path[1]) + path[2:], "http://gateway" + path, path + "?x=1"} {
			for _, method := range []string{"GET", "HEAD", "POST"} {
				answers := s.send(method + " " + spelled + " HTTP/1.1\r\nHost: <host>\r\nConnection: close\r\n\r\n")
				if got := s.statuses(answers); !same(got, []int{404}) || strings.Contains(answers[0].Body, "# HELP") {
					t.Errorf("%s %s: %v, want 404", method, spelled, got)
				}
			}
		}
		if a := s.sys.Do(http.MethodGet, "gateway", path, ""); a.Status != http.StatusOK {
			t.Errorf("%s for those who run it: %d, want 200", path, a.Status)
		}
		if a := s.sys.Do(http.MethodGet, "gateway", path, "", "X-Forwarded-For", "1.2.3.4"); a.Status != http.StatusNotFound {
			t.Errorf("%s by way of a proxy: %d, want 404", path, a.Status)
		}
	}
}

// TestAnswers: what services tell each other stays inside, and browsers are told to be careful.
func TestAnswers(t *testing.T) {
	t.Parallel()
	s := open(t, together, nil, nil, nil)
	inner := s.sys.Do(http.MethodGet, "gateway", "/v1/users/1?answer=Server:nginx&answer=X-Powered-By:a&answer=Via:b&answer=Kaptar-Dependency:c&answer=Kaptar-Overload:d"+
		"&answer=Access-Control-Allow-Origin:*&answer=X-Request-Id:e&answer=X-Own:f&answer=Referrer-Policy:same-origin&answer=Cache-Control:max-age%3D60", "", "Cookie", "a=b", "X-Request-Id", "abc")
	for name, want := range map[string]string{
		"Server": "", "X-Powered-By": "", "Via": "", "Kaptar-Dependency": "", "Kaptar-Overload": "", "Access-Control-Allow-Origin": "", "X-Own": "f", "X-Request-Id": "abc",
		"Referrer-Policy": "same-origin", "Cache-Control": "max-age=60", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
		"Cross-Origin-Opener-Policy": "same-origin", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Strict-Transport-Security": "", "Vary": "",
	} {
		if got := strings.Join(inner.Header[name], ", "); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for what, header := range map[string]string{"a cookie": "Cookie", "a key": "X-Api-Key", "a token": "Authorization"} {
		if got := s.sys.Do(http.MethodGet, "gateway", "/v1/users/1", "", header, "x").Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("Cache-Control of an answer to a request with %s is %q, want no-store", what, got)
		}
	}
	for _, path := range []string{"/v1/orders/1", "/nowhere", "/v1/users/..", "/openapi.json"} { // 503, 404, 400, 200
		a := s.sys.Do(http.MethodGet, "gateway", path, "")
		if a.Header.Get("X-Content-Type-Options") != "nosniff" || a.Header.Get("X-Frame-Options") != "DENY" || len(a.Header.Get("X-Request-Id")) != 32 || a.Header.Get("Kaptar-Dependency") != "" {
			t.Errorf("GET %s: %d %v, want the headers of every answer", path, a.Status, a.Header)
		}
	}
	for _, bad := range []string{"", "a b", "a\tb", "ä", "<script>", "a_b", "a.b", strings.Repeat("a", 65)} {
		if got := s.sys.Do(http.MethodGet, "gateway", "/v1/users/1", "", "X-Request-Id", bad).Header.Get("X-Request-Id"); len(got) != 32 {
			t.Errorf("for the request id %q the answer has %q, want one of the gateway's", bad, got)
		}
	}
	s.take()
	good := strings.Repeat("a", 64)
	if got := s.sys.Do(http.MethodGet, "gateway", "/v1/users/1", "", "X-Request-Id", good).Header.Get("X-Request-Id"); got != good {
		t.Errorf("for a good request id the answer has %q", got)
	}
	if seen, _ := s.take(); len(seen) != 1 || seen[0].Header.Get("X-Request-Id") != good {
		t.Error("the service does not see the request id")
	}
}

const friend = "https://shop.example"

// TestOtherOrigins: pages of origins that the settings name may call, those of others may not.
func TestOtherOrigins(t *testing.T) {
	t.Parallel()
	s := open(t, together, map[string]string{"services.gateway.cors_origins": friend + ",http://localhost:3000"}, nil, nil)
	const own = "http://gateway" // as kaptartest calls it
	for _, c := range []struct {
		name, method, origin string
		header               []string
		status               int
		allow                string
		reached              bool
	}{
		{"preflight of a friend", "OPTIONS", friend, []string{"Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "authorization, content-type"}, 204, friend, false},
		{"preflight of another friend", "OPTIONS", "http://localhost:3000", []string{"Access-Control-Request-Method", "PUT"}, 204, "http://localhost:3000", false},
		{"preflight of a stranger", "OPTIONS", "https://evil.example", []string{"Access-Control-Request-Method", "PUT"}, 403, "", false},
		{"preflight of null", "OPTIONS", "null", []string{"Access-Control-Request-Method", "PUT"}, 403, "", false},
		{"preflight of a name that begins alike", "OPTIONS", friend + ".evil.example", []string{"Access-Control-Request-Method", "PUT"}, 403, "", false},
		{"preflight of a name that ends alike", "OPTIONS", "https://evil-shop.example", []string{"Access-Control-Request-Method", "PUT"}, 403, "", false},
		{"preflight of another scheme", "OPTIONS", "http://shop.example", []string{"Access-Control-Request-Method", "PUT"}, 403, "", false},
		{"preflight of another port", "OPTIONS", friend + ":444", []string{"Access-Control-Request-Method", "PUT"}, 403, "", false},
		{"preflight of another case", "OPTIONS", "https://SHOP.example", []string{"Access-Control-Request-Method", "PUT"}, 403, "", false},
		{"OPTIONS that asks for nothing", "OPTIONS", friend, nil, 200, friend, true},
		{"a friend reads", "GET", friend, []string{"Sec-Fetch-Site", "cross-site"}, 200, friend, true},
		{"a friend writes", "POST", friend, []string{"Sec-Fetch-Site", "cross-site"}, 200, friend, true},
		{"a stranger reads what it cannot see", "GET", "https://evil.example", []string{"Sec-Fetch-Site", "cross-site"}, 200, "", true},
		{"a stranger writes", "POST", "https://evil.example", []string{"Sec-Fetch-Site", "cross-site"}, 403, "", false},
		{"a stranger writes from an old browser", "POST", "https://evil.example", nil, 403, "", false},
		{"a stranger writes from nowhere", "POST", "null", nil, 403, "", false},
		{"a stranger writes without an origin", "POST", "", []string{"Sec-Fetch-Site", "cross-site"}, 403, "", false},
		{"a stranger deletes", "DELETE", "https://evil.example", nil, 403, "", false},
		{"another site of the same domain writes", "POST", "http://evil.127.0.0.1", []string{"Sec-Fetch-Site", "same-site"}, 403, "", false},
		{"its own page writes", "POST", own, []string{"Sec-Fetch-Site", "same-origin"}, 200, "", true},
		{"its own page writes from an old browser", "POST", own, nil, 200, "", true},
		{"no browser writes", "POST", "", nil, 200, "", true},
		{"a friend's WebSocket", "GET", friend, []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-Fetch-Site", "cross-site"}, 200, friend, true},
		{"a stranger's WebSocket", "GET", "https://evil.example", []string{"Connection", "Upgrade", "Upgrade", "websocket"}, 403, "", false},
		{"a stranger's WebSocket from a new browser", "GET", "https://evil.example", []string{"Connection", "Upgrade", "Upgrade", "WebSocket", "Sec-Fetch-Site", "cross-site"}, 403, "", false},
		{"its own WebSocket", "GET", own, []string{"Connection", "Upgrade", "Upgrade", "websocket"}, 200, "", true},
		{"no browser's WebSocket", "GET", "", []string{"Connection", "Upgrade", "Upgrade", "websocket"}, 200, "", true},
	} {
		header := c.header
		if c.origin != "" {
			header = append(header, "Origin", c.origin)
		}
		a := s.sys.Do(c.method, "gateway", "/v1/users/1", "", header...)
		seen, _ := s.take()
		if a.Status != c.status || a.Header.Get("Access-Control-Allow-Origin") != c.allow || (len(seen) > 0) != c.reached {
			t.Errorf("%s: got %d %q and the service saw %v, want %d %q", c.name, a.Status, a.Header.Get("Access-Control-Allow-Origin"), targets(seen), c.status, c.allow)
		}
		if vary := strings.Join(a.Header["Vary"], ", "); !strings.Contains(vary, "Origin") || a.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: Vary %q, want Origin and no credentials: %v", c.name, vary, a.Header)
		}
		if a.Status == 204 && (a.Header.Get("Access-Control-Max-Age") != "7200" || !strings.Contains(a.Header.Get("Access-Control-Allow-Methods"), "PUT") ||
			len(c.header) > 2 && a.Header.Get("Access-Control-Allow-Headers") != c.header[3]) {
			t.Errorf("%s: %v", c.name, a.Header)
		}
	}
}

func TestOptionsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		opts gateway.Options
		want string
	}{
		{gateway.Options{Settings: &gateway.Settings{CORSOrigins: []string{"*"}}}, "cors_origins"},
		{gateway.Options{Settings: &gateway.Settings{CORSOrigins: []string{"null"}}}, "cors_origins"},
		{gateway.Options{Settings: &gateway.Settings{CORSOrigins: []string{"shop.example"}}}, "cors_origins"},
		{gateway.Options{Settings: &gateway.Settings{CORSOrigins: []string{friend + "/"}}}, "cors_origins"},
		{gateway.Options{Routes: []gateway.Route{{Resource: "a/b", Service: "user-service"}}}, `route "a/b"`},
		{gateway.Options{Routes: []gateway.Route{{Resource: "{x}", Service: "user-service"}}}, `route "{x}"`},
		{gateway.Options{Routes: []gateway.Route{{Resource: "", Service: "user-service"}}}, `route ""`},
		{gateway.Options{Routes: []gateway.Route{{Resource: "users"}}}, `service ""`},
	} {
		if err := refusal(t, c.opts); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "gateway: ") {
			t.Errorf("%+v: got %v, want an error about %s", c.opts, err, c.want)
		}
	}
}

// TestTesters: whoever testers_from names chooses the versions that its requests get, nobody else
// does, and what services say among themselves does not come from outside.
func TestTesters(t *testing.T) {
	inBoth(t, func(t *testing.T, shape string) {
		for _, tt := range []struct{ from, lines, want string }{
			{"", "Kaptar-Version: user-service=v2\r\n", ""},
			{"none", "Kaptar-Version: user-service=v2\r\n", ""},
			{"10.0.0.0/8", "Kaptar-Version: user-service=v2\r\n", ""},
			{"10.0.0.0/8", "Kaptar-Version: user-service=v2\r\nX-Forwarded-For: 10.0.0.1\r\n", ""},
			{"127.0.0.0/8", "kaptar-version:user-service=v2,order-service=v3\r\n", "user-service=v2, order-service=v3"},
			{"127.0.0.0/8", "Kaptar-Version: user-service=v2\r\nKaptar-Version: order-service=v3\r\n", ""},
			{"127.0.0.0/8", "Kaptar_Version: user-service=v2\r\n", ""},
			{"127.0.0.0/8", "Kaptar-Version: user-service=v2;\r\n", ""},
			{"127.0.0.0/8", "Kaptar-Version: user-service=v2\r\nConnection: close, Kaptar-Version\r\n", "user-service=v2"},
			{"127.0.0.0/8", "", ""},
		} {
			s := open(t, shape, map[string]string{"services.gateway.testers_from": tt.from}, nil, nil)
			answers := s.send("GET /v1/users/1 HTTP/1.1\r\nHost: <host>\r\nConnection: close\r\n" + tt.lines + "\r\n")
			seen, _ := s.take()
			if len(answers) != 1 || answers[0].Status != 200 || len(seen) != 1 {
				t.Fatalf("%q from %q: got %v, and the service saw %v", tt.lines, tt.from, answers, targets(seen))
			}
			if got := strings.Join(seen[0].Header["Kaptar-Version"], "|"); got != tt.want {
				t.Errorf("%q with testers_from %q: the service saw %q, want %q", tt.lines, tt.from, got, tt.want)
			}
		}
	})
}
