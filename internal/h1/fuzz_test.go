package h1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// canned is a connection that answers the first request with fixed bytes, and then ends.
type canned struct {
	net.Conn
	mu     sync.Mutex
	asked  chan struct{} // closed by the first write
	answer []byte
	step   int // bytes a read
}

func (c *canned) Read(p []byte) (int, error) {
	<-c.asked
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.answer) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.step)], c.answer)
	c.answer = c.answer[n:]
	return n, nil
}

func (c *canned) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.asked:
	default:
		close(c.asked)
	}
	return len(p), nil
}

func (c *canned) Close() error                { return nil }
func (c *canned) SetDeadline(time.Time) error { return nil }

// FuzzResponse: for any bytes as the answer, ours is net/http's, or an error of ours that has a name.
func FuzzResponse(f *testing.F) {
	for _, b := range behaviours() {
		f.Add([]byte(strings.NewReplacer(shut, "", half, "", reset, "").Replace(strings.Join(b.parts, ""))), byte(len(b.methods)), uint16(7))
	}
	named := []error{errTooLong, errTooManyFields, errBareLF, errStatusLine, errField, errLength, errCoding, errTrailer, errInformational, errChunk}
	f.Fuzz(func(t *testing.T, answer []byte, method byte, step uint16) {
		if len(answer) > 1<<20 {
			return
		}
		dial := func(context.Context, string, string) (net.Conn, error) {
			return &canned{answer: answer, step: int(step) + 1, asked: make(chan struct{})}, nil
		}
		bare := &http.Transport{DialContext: dial, DisableCompression: true, DisableKeepAlives: false}
		defer bare.CloseIdleConnections()
		own := New(&Options{Dial: dial, Next: bare})
		defer own.CloseIdleConnections()
		verb := []string{http.MethodGet, http.MethodHead, http.MethodPost}[method%3]
		got, want := roundTrip(t.Context(), t, own, verb, "http://a/"), roundTrip(t.Context(), t, bare, verb, "http://a/")
		switch {
		case got.err == nil && want.err != nil:
			t.Errorf("%q: net/http refuses this: %v", answer, want.err)
		case got.err == nil && !got.same(want):
			t.Errorf("%q: got %+v\nwant %+v", answer, got, want)
		case got.err != nil && want.err == nil:
			for _, e := range named {
				if errors.Is(got.err, e) {
					return
				}
			}
			t.Errorf("%q: net/http accepts this: %v", answer, got.err)
		}
	})
}

// FuzzRequest: what we write is, to net/http's server, the request that net/http would have sent.
func FuzzRequest(f *testing.F) {
	f.Add("POST", "http://a:80/b/c?d=e#f", "", "A-B", "c d", "hello", int64(5))
	f.Add("GET", "https://[::1]:80//x/../%2f%20", "b", "User-Agent", "", "", int64(0))
	f.Add("", "http://a?", "b:1", "Host", "evil", "", int64(0))
	f.Add("DELETE", "http://a/%zz", "b\r\nX: y", "Content-Length", "7", "x", int64(1))
	f.Add("PUT", "http://u:p@a/ \x7f", "", "Transfer-Encoding", "chunked", "hello", int64(5))
	f.Add("OPTIONS", "http://a/*", "", "X", " \t x\t ", "", int64(0))
	f.Fuzz(func(t *testing.T, method, address, host, name, value, body string, length int64) {
		u, err := url.Parse(address)
		if err != nil {
			return
		}
		request := func() *http.Request {
			r := &http.Request{Method: method, URL: u, Host: host, Header: http.Header{name: {value, value}, "X-More": {""}}, ContentLength: length}
			if body != "" {
				r.Body = io.NopCloser(strings.NewReader(body))
			}
			return r
		}
		m := new(message)
		if req := request(); !m.encode(req, &Change{}) || m.load(req.Context(), req.Body) != nil {
			return
		}
		var theirs bytes.Buffer
		if err := request().Write(&theirs); err != nil {
			t.Fatalf("%q: net/http refuses this: %v", m.b, err)
		}
		got, want := parsed(t, m.b), parsed(t, theirs.Bytes())
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q\ngot  %+v\nwant %+v", m.b, got, want)
		}
	})
}

type sent struct {
	Method, URI, Host, Body string
	Header                  http.Header
	Length                  int64
	Coding                  []string
	Close                   bool
	Left                    int
	Err                     bool
}

func parsed(t *testing.T, text []byte) sent {
	t.Helper()
	br := bufio.NewReader(bytes.NewReader(text))
	r, err := http.ReadRequest(br)
	if err != nil {
		return sent{Err: true}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Errorf("%q: %v", text, err)
	}
	left, _ := io.Copy(io.Discard, br)
	return sent{r.Method, r.RequestURI, r.Host, string(body), r.Header, r.ContentLength, r.TransferEncoding, r.Close, int(left), false}
}
