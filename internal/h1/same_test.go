package h1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// scripted is a server that answers the first request of its first connection with raw bytes, each
// part in a write of its own, and all others with "ok". A part may be one of the words below.
type scripted struct {
	listener net.Listener
	parts    []string
	conns    atomic.Int32
	done     chan struct{} // closed when all parts are out

	// asked is closed when the client's Write of the first request has returned. net/http takes an answer
	// before that for an early one, and gives the connection up 50 ms later.
	asked chan struct{}
	wrote func() // closes it
}

// telling tells that a Write has returned.
type telling struct {
	net.Conn
	wrote func()
}

func (c telling) Write(b []byte) (int, error) {
	defer c.wrote()
	return c.Conn.Write(b)
}

const (
	shut  = "\x00shut"  // closes the connection
	half  = "\x00half"  // closes the sending side only
	reset = "\x00reset" // breaks the connection off
)

func newScripted(t *testing.T, parts ...string) *scripted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	s := &scripted{listener: l, parts: parts, done: make(chan struct{}), asked: make(chan struct{})}
	s.wrote = sync.OnceFunc(func() { close(s.asked) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c.(*net.TCPConn), s.conns.Add(1) == 1)
		}
	}()
	return s
}

func (s *scripted) serve(c *net.TCPConn, first bool) {
	defer c.Close()
	for br := bufio.NewReader(c); ; first = false {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		if !first {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			continue
		}
		<-s.asked
		if s.play(c); slices.Contains(s.parts, shut) || slices.Contains(s.parts, reset) {
			return
		}
	}
}

func (s *scripted) play(c *net.TCPConn) {
	defer close(s.done)
	for _, part := range s.parts {
		switch part {
		case shut:
			_ = c.Close()
		case half:
			_ = c.CloseWrite()
		case reset:
			_ = c.SetLinger(0)
			_ = c.Close()
		default:
			_, _ = io.WriteString(c, part)
		}
	}
}

// seen is what a caller sees of an answer.
type seen struct {
	Status, Proto string
	Code, Minor   int
	Header        http.Header
	Trailer       http.Header
	Length        int64
	Coding        []string
	Close         bool
	Uncompressed  bool
	Body          string
	err           error
	reused        bool // by a second call
}

func (s seen) same(other seen) bool {
	s.err, other.err = nil, nil
	s.reused, other.reused = false, false
	return reflect.DeepEqual(s, other)
}

// see makes a call and reads the answer; then a second one, to see whether the connection is used.
func see(t *testing.T, rt http.RoundTripper, method string, parts []string) seen {
	t.Helper()
	srv := newScripted(t, parts...)
	url := "http://" + srv.listener.Addr().String() + "/x"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // the end of a call that hangs, of which there is none
	defer cancel()
	_, ours := rt.(*Transport)
	if ours {
		srv.wrote()
	} else {
		rt.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, address)
			return telling{c, srv.wrote}, err
		}
	}
	s := roundTrip(ctx, t, rt, method, url)
	<-srv.done               // and so it has arrived
	second := http.MethodGet // net/http may see too late that the connection is of no use, and try again
	if ours {
		second = http.MethodPost // which makes us look
	}
	if again := roundTrip(ctx, t, rt, second, url); ours && (again.err != nil || again.Body != "ok") {
		t.Errorf("the second call: %v, body %q", again.err, again.Body)
	}
	s.reused = srv.conns.Load() == 1
	return s
}

func roundTrip(ctx context.Context, t *testing.T, rt http.RoundTripper, method, url string) (s seen) {
	t.Helper()
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader("hello")
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return seen{err: err}
	}
	if resp.Request != req {
		t.Errorf("Request is another one")
	}
	data, err := io.ReadAll(resp.Body)
	if e := resp.Body.Close(); e != nil {
		t.Errorf("Close: %v", e)
	}
	return seen{
		Status: resp.Status, Proto: resp.Proto, Code: resp.StatusCode, Minor: resp.ProtoMinor, Header: resp.Header, Trailer: resp.Trailer,
		Length: resp.ContentLength, Coding: resp.TransferEncoding, Close: resp.Close, Uncompressed: resp.Uncompressed, Body: string(data), err: err,
	}
}

func compare(t *testing.T, method string, parts []string, stricter error, once bool) {
	t.Helper()
	next := &http.Transport{DisableCompression: true}
	bare := next.Clone()
	defer bare.CloseIdleConnections()
	own := New(patient(next))
	defer own.CloseIdleConnections()
	got, want := see(t, own, method, parts), see(t, bare, method, parts)
	switch {
	case stricter != nil && !errors.Is(got.err, stricter):
		t.Errorf("error %v, want %v", got.err, stricter)
	case stricter != nil && want.err != nil:
		t.Errorf("net/http is as strict: %v", want.err)
	case stricter == nil && (got.err == nil) != (want.err == nil):
		t.Errorf("error %v, net/http %v", got.err, want.err)
	case stricter == nil && got.err == nil && !got.same(want):
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if stricter == nil && !once && got.reused != want.reused || got.reused && (once || got.err != nil) {
		t.Errorf("connection used again: %v, net/http %v", got.reused, want.reused)
	}
}

// TestSameAsNetHTTP drives both clients with the same servers.
func TestSameAsNetHTTP(t *testing.T) {
	t.Parallel()
	n := 0
	for _, b := range behaviours() {
		methods := b.methods
		if methods == "" {
			methods = "GET"
		}
		for method := range strings.FieldsSeq(methods) {
			for cut, parts := range map[string][]string{"whole": b.parts, "by bytes": bytewise(b.parts)} {
				n++
				t.Run(method+" "+b.name+" "+cut, func(t *testing.T) {
					t.Parallel()
					compare(t, method, parts, b.stricter, b.once)
				})
			}
		}
	}
	if n < 300 {
		t.Errorf("%d behaviours, want 300", n)
	}
}

func bytewise(parts []string) (out []string) {
	for _, p := range parts {
		if strings.HasPrefix(p, "\x00") || len(p) > 500 {
			out = append(out, p)
			continue
		}
		for i := range len(p) {
			out = append(out, p[i:i+1])
		}
	}
	return out
}

// TestCutOff breaks good answers off after every byte.
func TestCutOff(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nT: v\r\n\r\n",
		"early":   "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
		"endless": "HTTP/1.0 200 OK\r\n\r\nhello",
	} {
		for i := range len(text) {
			for _, end := range []string{shut, reset} {
				if end == reset && i > 0 && i%5 != 0 {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d%q", name, i, end), func(t *testing.T) {
					t.Parallel()
					parts := []string{text[:i], end}
					if end == reset { // what arrived before may be lost, or not: all we want is no hang
						if got := see(t, New(patient(nil)), http.MethodGet, parts); got.reused {
							t.Error("used again")
						}
						return
					}
					compare(t, http.MethodGet, parts, nil, true)
				})
			}
		}
	}
}
