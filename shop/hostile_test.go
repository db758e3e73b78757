package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// An attack is something that a user can do to the gateway. It is made several times at once.
type attack struct {
	name string
	// request is what is sent, with <user>, <host> and <auth> filled in; or do does it itself.
	request string
	do      func(ctx context.Context, v victim) error
	end     string // "half": the client sends no more; "close": it goes away; "": it waits for the answer
	times   int    // 8 when 0
	slow    bool   // it is answered at the deadline only
	status  []int  // of the answers; empty: whatever is not an error of the server
}

// A victim is whom the attacks are made on, and in whose name.
type victim struct{ host, user, auth string }

// form is the head of a request with headers, and its body.
func form(line string, body string, headers ...string) string {
	return line + " HTTP/1.1\r\nHost: <host>\r\nConnection: close\r\nContent-Type: application/json\r\n<auth>\r\n" +
		strings.Join(append(headers, ""), "\r\n") + "\r\n" + body
}

func sized(line, body string, headers ...string) string {
	return form(line, body, append(headers, fmt.Sprintf("Content-Length: %d", len(body)))...)
}

const (
	anOrder  = `{"user_id":<user>,"items":[{"sku":"hostile","quantity":1}]}`
	aLogin   = `{"username":"victim","password":"wrong horse"}`
	anUpload = "POST /v1/orders"
	chunked  = "Transfer-Encoding: chunked"
)

func attacks() []attack {
	var all []attack
	for _, ms := range []string{"1", "5", "0", "-5", "86400000", "99999999999999999999", "soon", ""} {
		header := "X-Request-Timeout-Ms: " + ms
		all = append(all,
			attack{name: "order with deadline " + ms, request: sized(anUpload, anOrder, header), status: []int{201}},
			attack{name: "login with deadline " + ms, request: sized("POST /v1/login", aLogin, header), status: []int{401, 429, 503}}) // 503: no turn for its hash within 2 s
	}
	for _, bad := range []string{"ZZ\r\n", "-1\r\n", "FFFFFFFFFFFFFFFFFFFF\r\n", "5\r\nhello world", "5;" + strings.Repeat("x", 8000) + "\r\n", "\r\n"} {
		all = append(all, attack{name: fmt.Sprintf("chunk %.20q", bad), request: form(anUpload, bad, chunked), end: "half", status: []int{400}})
	}
	for _, path := range []string{"/v1/stock/%00", "/v1/stock/%ff", "/v1/stock/a%00b", "/v1/stock/tea?x=%00", "/v1/users/%ff", "/v1/orders/1/%00", "/v1/payments/%fe"} {
		all = append(all, attack{name: path, request: form("GET "+path, "")})
	}
	all = append(all, edgeAttacks()...)
	big := strings.Repeat("x", 11<<20)
	return append(all,
		attack{name: "a few bytes and silence", request: form(anUpload, "hello", "Content-Length: 100"), slow: true, status: []int{408}},
		attack{name: "a chunk and silence", request: form(anUpload, "5\r\nhello\r\n", chunked), slow: true, status: []int{408}},
		attack{name: "no body", request: form(anUpload, "", chunked), slow: true, status: []int{408}},
		attack{name: "no body after a promise", request: form("POST /v1/login", "", "Content-Length: 10", "Expect: 100-continue"), slow: true},
		attack{name: "body cut off", request: form(anUpload, "hello", "Content-Length: 100"), end: "half", status: []int{400}},
		attack{name: "gone in the body", request: form(anUpload, "hello", "Content-Length: 100"), end: "close"},
		attack{name: "gone before the answer", request: sized(anUpload, anOrder, "Idempotency-Key: gone"), end: "close"},
		attack{name: "gone before the login", request: sized("POST /v1/login", aLogin), end: "close"},
		attack{name: "body too large", request: sized(anUpload, big), status: []int{413}},
		attack{name: "chunked body too large", request: form(anUpload, "B00000\r\n"+big+"\r\n0\r\n\r\n", chunked), status: []int{413}},
		attack{name: "length and chunks", request: form(anUpload, "0\r\n\r\n", "Content-Length: 5", chunked)},
		attack{name: "two lengths", request: form(anUpload, "hello", "Content-Length: 5", "Content-Length: 6")},
		attack{name: "key that is no text", request: sized(anUpload, anOrder, "Idempotency-Key: \xff\xfe"), status: []int{400}},
		attack{name: "sku with a NUL", request: sized(anUpload, `{"user_id":<user>,"items":[{"sku":"t\u0000a","quantity":1}]}`), status: []int{400}},
		attack{name: "name with a NUL", request: sized("POST /v1/login", `{"username":"a\u0000","password":"x"}`), status: []int{400}},
		attack{name: "sku that is no text", request: sized(anUpload, "{\"user_id\":<user>,\"items\":[{\"sku\":\"\xff\",\"quantity\":1}]}")},
		attack{name: "no JSON", request: sized(anUpload, "{"), status: []int{400}},
		attack{name: "numbers beyond all", request: sized(anUpload, `{"user_id":1e999,"items":[]}`), status: []int{400}},
		attack{name: "huge header", request: form("GET /v1/stock/tea", "", "X-Huge: "+strings.Repeat("x", 200<<10)), status: []int{431}},
		attack{name: "many headers", request: form("GET /v1/stock/tea", "", strings.Split(strings.Repeat("A: 1\n", 900)+"A: 1", "\n")...)},
		attack{name: "long path", request: form("GET /v1/stock/"+strings.Repeat("x", 50<<10), "")},
		attack{name: "upgrade that nobody offers", request: strings.Replace(form("GET /v1/stock/tea", "", "Upgrade: websocket"), "Connection: close", "Connection: Upgrade, close", 1)},
		attack{name: "answer's mark in the request", request: form("GET /v1/users/999999", "", "Kaptar-Dependency: x"), status: []int{403}},
		attack{name: "streams whose body does not come", do: http2(anUpload, true, 0), times: 100, slow: true, status: []int{408}},
		attack{name: "streams that are reset", do: http2(anUpload, true, 50*time.Millisecond), times: 100},
		attack{name: "streams that are reset before the answer", do: http2("POST /v1/login", false, 5*time.Millisecond), times: 20},
		attack{name: "logins all at once", request: sized("POST /v1/login", aLogin), times: 400, status: []int{401, 429, 503}},
	)
}

// http2 makes a request in a stream of HTTP/2, and gives it up after limit unless that is 0.
func http2(line string, pending bool, limit time.Duration) func(context.Context, victim) error {
	method, path, _ := strings.Cut(line, " ")
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	return func(ctx context.Context, v victim) error {
		if limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
		}
		var body io.Reader = strings.NewReader(aLogin)
		if pending {
			r, w := io.Pipe()
			defer w.Close()
			body = r
		}
		req, err := http.NewRequestWithContext(ctx, method, "http://"+v.host+path, body)
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		name, value, _ := strings.Cut(v.auth, ": ")
		req.Header.Set(name, value)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			if limit > 0 {
				return nil
			}
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode >= 500 || pending && limit == 0 && resp.StatusCode != http.StatusRequestTimeout {
			return fmt.Errorf("answered with %d", resp.StatusCode)
		}
		return nil
	}
}

// once makes the attack one time.
func (a attack) once(ctx context.Context, v victim) error {
	if a.do != nil {
		return a.do(ctx, v)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", v.host)
	if err != nil {
		return err
	}
	defer conn.Close()
	sent := make(chan struct{})
	go func() { // the answer may come before all is sent
		defer close(sent)
		text := strings.NewReplacer("<host>", v.host, "<user>", v.user, "<auth>", v.auth).Replace(a.request)
		if strings.Contains(a.request, "<user>") { // its length has changed
			head, body, _ := strings.Cut(text, "\r\n\r\n")
			_, was, _ := strings.Cut(a.request, "\r\n\r\n")
			text = strings.Replace(head, fmt.Sprintf("Content-Length: %d", len(was)), fmt.Sprintf("Content-Length: %d", len(body)), 1) + "\r\n\r\n" + body
		}
		_, _ = io.WriteString(conn, text) // it may be refused before its end
		if a.end == "half" {
			_ = conn.(*net.TCPConn).CloseWrite()
		}
	}()
	if a.end == "close" {
		<-sent
		return nil
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if len(a.status) == 0 {
		if resp.StatusCode >= 500 && resp.StatusCode != http.StatusNotImplemented {
			return fmt.Errorf("answered with %d %s", resp.StatusCode, body)
		}
		return nil
	}
	if slices.Contains(a.status, resp.StatusCode) {
		return nil
	}
	return fmt.Errorf("answered with %d %s, want %v", resp.StatusCode, body, a.status)
}

// hostile: whatever a client does through the gateway, no breaker opens, and others are served.
func hostile(t *testing.T, s *site) {
	c := s.as(t)
	s.stockUp(t, "hostile", 1000)
	id := c.signUp("victim")
	auth, err := c.as(id).credential()
	if err != nil {
		t.Fatal(err)
	}
	v := victim{s.in.HTTP("gateway"), fmt.Sprint(id), auth}
	var slow []attack
	for _, a := range attacks() {
		if a.slow {
			slow = append(slow, a)
			continue
		}
		s.attack(t, v, a)
	}
	s.attack(t, v, slow...) // they wait together
	placed, problem := c.orders(id)
	if problem != "" {
		t.Fatal(problem)
	}
	for _, o := range placed { // some are right, and whether one was accepted that nobody waited for is not known
		s.note(entry{o.ID, id, "hostile", 1, o.TotalCents, "confirmed"})
	}
	s.audit(t)
}

// attack makes the attacks at once and looks what they have done.
func (s *site) attack(t *testing.T, v victim, all ...attack) {
	t.Helper()
	var running sync.WaitGroup
	for _, a := range all {
		var told sync.Once
		times := a.times
		if times == 0 {
			times = 8
		}
		for range times {
			running.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				if err := a.once(ctx, v); err != nil {
					told.Do(func() { t.Errorf("%s: %v", a.name, err) })
				}
			})
		}
	}
	running.Wait()
	what := all[0].name
	c := s.as(t)
	for _, service := range serviceNames() {
		for line := range strings.Lines(c.call(http.MethodGet, service, "/metrics", "").body) {
			if strings.HasPrefix(line, "breaker_state{") && !strings.HasSuffix(line, " 0\n") {
				t.Errorf("%s: %s has %s", what, service, line)
			}
		}
	}
	for _, path := range []string{"/v1/stock/tea", "/v1/users/" + v.user, "/v1/orders/" + v.user} {
		eventually(t, func() string { // services may be busy for a moment with what nobody waits for, and say 503 with Retry-After
			if a := c.call(http.MethodGet, "gateway", path, ""); a.status != http.StatusOK {
				return fmt.Sprintf("%s: then GET %s: %d %s, want 200", what, path, a.status, a.body)
			}
			return ""
		})
	}
}
