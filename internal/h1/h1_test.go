package h1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// over returns a transport whose connections are pipes to serve.
func over(t *testing.T, serve func(c net.Conn)) *Transport {
	t.Helper()
	tr := New(&Options{
		Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go serve(theirs)
			return ours, nil
		},
		Next: roundTripperFunc(func(r *http.Request) (*http.Response, error) {
			t.Errorf("%s %s: not lean", r.Method, r.URL)
			return nil, errors.ErrUnsupported
		}),
	})
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// patient are options without the bounds of connecting that a busy machine exceeds.
func patient(next http.RoundTripper) *Options {
	return &Options{Next: next, Dial: new(net.Dialer).DialContext, HandshakeTimeout: time.Minute}
}

// request reads one from c.
func request(c net.Conn) (*http.Request, string, error) {
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(req.Body)
	return req, string(body), err
}

func fetch(ctx context.Context, tr http.RoundTripper, method, url, body string, header ...string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return string(data), err
}

type closing struct {
	io.Reader
	err    error
	closed int
}

func (c *closing) Close() error {
	c.closed++
	return c.err
}

// TestBodyAtFault: an error of the caller's body is told as such, and no server sees such a request.
func TestBodyAtFault(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, tt := range map[string]struct {
		body io.Reader
		end  error
		want error
	}{
		"shorter":       {strings.NewReader("hell"), nil, ErrBody},
		"longer":        {strings.NewReader("hello!"), nil, ErrBody},
		"much longer":   {strings.NewReader(strings.Repeat("x", 100_000)), nil, ErrBody},
		"broken":        {io.MultiReader(strings.NewReader("he"), iotest.ErrReader(broken)), nil, broken},
		"broken at end": {io.MultiReader(strings.NewReader("hello"), iotest.ErrReader(broken)), nil, broken},
		"cut off":       {iotest.ErrReader(io.ErrUnexpectedEOF), nil, io.ErrUnexpectedEOF},
		"close":         {strings.NewReader("hello"), broken, broken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := over(t, func(net.Conn) { t.Error("dialled") })
			body := &closing{Reader: tt.body, err: tt.end}
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://a/", body)
			req.ContentLength = 5
			_, err := tr.RoundTrip(req)
			if !errors.Is(err, ErrBody) || !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if body.closed != 1 {
				t.Errorf("closed %d times", body.closed)
			}
		})
	}
}

// TestContextEndsWithBody: who is late with the body is to blame, not the server.
func TestContextEndsWithBody(t *testing.T) {
	t.Parallel()
	tr := over(t, func(net.Conn) { t.Error("dialled") })
	ctx, cancel := context.WithCancel(t.Context())
	body := &closing{Reader: io.MultiReader(strings.NewReader("he"), readerFunc(func() { cancel() }), strings.NewReader("llo"))}
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://a/", body)
	req.ContentLength = 5
	if _, err := tr.RoundTrip(req); !errors.Is(err, ErrBody) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := tr.RoundTrip(req); errors.Is(err, ErrBody) || !errors.Is(err, context.Canceled) || body.closed != 2 {
		t.Errorf("ended before: got %v, closed %d times", err, body.closed)
	}
}

type readerFunc func()

func (f readerFunc) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// TestStale: a connection that the server closes as the next request arrives.
func TestStale(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		method string
		header []string
		again  bool
	}{
		"GET":                        {http.MethodGet, nil, true},
		"HEAD":                       {http.MethodHead, nil, true},
		"POST":                       {http.MethodPost, nil, false},
		"PUT":                        {http.MethodPut, nil, false},
		"DELETE":                     {http.MethodDelete, nil, false},
		"POST with Idempotency-Key":  {http.MethodPost, []string{"Idempotency-Key", "1"}, true},
		"PATCH with Idempotency-Key": {http.MethodPatch, []string{"X-Idempotency-Key", "1"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var conns atomic.Int32
			tr := over(t, func(c net.Conn) {
				defer c.Close()
				first := conns.Add(1) == 1
				for n := 1; !first || n < 2; n++ {
					_, body, err := request(c)
					if err != nil {
						return
					}
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Body: %s\r\nContent-Length: 0\r\n\r\n", body)
				}
				_, _, _ = request(c) // and closes
			})
			if _, err := fetch(t.Context(), tr, http.MethodGet, "http://a/", ""); err != nil {
				t.Fatal(err)
			}
			_, err := fetch(t.Context(), tr, tt.method, "http://a/", "body", tt.header...)
			if (err == nil) != tt.again || (conns.Load() == 2) != tt.again {
				t.Errorf("got %v over %d connections", err, conns.Load())
			}
			if err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("got %v, want EOF", err)
			}
		})
	}
}

// TestStaleOnce: a server that closes every connection is not asked for ever, nor after it said a word.
func TestStaleOnce(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{"silent": "", "half a word": "HTTP/1.1 2", "informed": "HTTP/1.1 103 Early Hints\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var conns atomic.Int32
			tr := over(t, func(c net.Conn) {
				defer c.Close()
				if conns.Add(1) == 1 {
					_, _, _ = request(c)
					_, _ = io.WriteString(c, ok+"Content-Length: 0\r\n\r\n")
				}
				_, _, _ = request(c)
				_, _ = io.WriteString(c, answer)
			})
			_, _ = fetch(t.Context(), tr, http.MethodGet, "http://a/", "")
			if _, err := fetch(t.Context(), tr, http.MethodGet, "http://a/", ""); err == nil {
				t.Error("no error")
			}
			if want := int32(1); answer == "" && conns.Load() != 2 || answer != "" && conns.Load() != want {
				t.Errorf("%d connections", conns.Load())
			}
		})
	}
}

// TestEarlyAnswer: the server answers and closes before it has read the body.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closed := make(chan int)
	go func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 100))
			_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
			_ = c.Close() // with data unread: the client gets a reset
			closed <- n
		}
	}()
	tr := New(patient(nil))
	defer tr.CloseIdleConnections()
	for n := range 20 {
		got, err := fetch(t.Context(), tr, http.MethodPost, "http://"+l.Addr().String(), strings.Repeat("x", maxBody))
		if err != nil || got != "no" {
			t.Errorf("got %q, %v", got, err)
		}
		if conns := <-closed; conns != n+1 {
			t.Errorf("%d connections after %d calls", conns, n+1)
		}
	}
}

// TestHandedOver: what is not lean goes to Next as it is.
func TestHandedOver(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(r *http.Request){
		"method":             func(r *http.Request) { r.Method = "PURGE" },
		"CONNECT":            func(r *http.Request) { r.Method = http.MethodConnect },
		"TRACE":              func(r *http.Request) { r.Method = http.MethodTrace },
		"bad method":         func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\nX:" },
		"unknown length":     func(r *http.Request) { r.ContentLength = -1 },
		"length not set":     func(r *http.Request) { r.ContentLength = 0 },
		"long body":          func(r *http.Request) { r.ContentLength = maxBody + 1 },
		"length, no body":    func(r *http.Request) { r.Body = nil },
		"close":              func(r *http.Request) { r.Close = true },
		"trailer":            func(r *http.Request) { r.Trailer = http.Header{"A": nil} },
		"coding":             func(r *http.Request) { r.TransferEncoding = []string{"chunked"} },
		"upgrade":            func(r *http.Request) { r.Header.Set("Upgrade", "websocket") },
		"connection":         func(r *http.Request) { r.Header.Set("Connection", "close") },
		"expect":             func(r *http.Request) { r.Header.Set("Expect", "100-continue") },
		"coding in header":   func(r *http.Request) { r.Header.Set("Transfer-Encoding", "chunked") },
		"no header":          func(r *http.Request) { r.Header = nil },
		"lower case":         func(r *http.Request) { r.Header["content-length"] = []string{"7"} },
		"CR LF in a value":   func(r *http.Request) { r.Header["A"] = []string{"b\r\nC: d"} },
		"LF in the agent":    func(r *http.Request) { r.Header["User-Agent"] = []string{"b\nC: d"} },
		"LF in a length":     func(r *http.Request) { r.Header["Content-Length"] = []string{"5\nC: d"} },
		"colon in a name":    func(r *http.Request) { r.Header["A:b"] = []string{"c"} },
		"empty name":         func(r *http.Request) { r.Header[""] = []string{"c"} },
		"blank in the query": func(r *http.Request) { r.URL.RawQuery = "a b" },
		"CR in the query":    func(r *http.Request) { r.URL.RawQuery = "a\rb" },
		"opaque":             func(r *http.Request) { r.URL.Opaque = "//x/y" },
		"relative path":      func(r *http.Request) { r.URL.Path = "x" },
		"blank in the host":  func(r *http.Request) { r.Host = "a b" },
		"CR LF in the host":  func(r *http.Request) { r.Host = "a\r\nX: y" },
		"zone":               func(r *http.Request) { r.Host = "[fe80::1%25eth0]" },
		"not ASCII":          func(r *http.Request) { r.Host = "kaptár.example" },
		"no host":            func(r *http.Request) { r.URL.Host = "" },
		"scheme":             func(r *http.Request) { r.URL.Scheme = "ftp" },
		"no URL":             func(r *http.Request) { r.URL = nil },
		"hook": func(r *http.Request) {
			*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {}}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handed := errors.New("handed over")
			tr := New(&Options{
				Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("dialled") },
				Next: roundTripperFunc(func(r *http.Request) (*http.Response, error) {
					if r.Body != nil {
						if data, err := io.ReadAll(r.Body); string(data) != "hello" {
							t.Errorf("body %q, %v", data, err)
						}
					}
					return nil, handed
				}),
			})
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://a/b?c", strings.NewReader("hello"))
			change(req)
			if _, err := tr.RoundTrip(req); !errors.Is(err, handed) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestInformational(t *testing.T) {
	t.Parallel()
	tr := over(t, func(c net.Conn) {
		_, _, _ = request(c)
		_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"+ok+"Content-Length: 2\r\n\r\nhi")
	})
	var got []string
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		got = append(got, fmt.Sprint(code, h))
		return nil
	}})
	if body, err := fetch(ctx, tr, http.MethodGet, "http://a/", ""); body != "hi" || err != nil {
		t.Errorf("got %q, %v", body, err)
	}
	if want := []string{"103 map[Link:[</a>]]", "102 map[]"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestCloseWhileReading: Close ends a Read that waits, and the connection with it.
func TestCloseWhileReading(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	tr := over(t, func(c net.Conn) {
		_, _, _ = request(c)
		_, _ = io.WriteString(c, ok+"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
		_, _ = io.Copy(io.Discard, c)
		close(ended)
	})
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://a/", nil)
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	read := make(chan error)
	go func() {
		_, err := resp.Body.Read(make([]byte, 10))
		read <- err
	}()
	_ = resp.Body.Close()
	if err := <-read; !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("Read: %v", err)
	}
	if _, err := resp.Body.Read(make([]byte, 10)); !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("Read after Close: %v", err)
	}
	<-ended
}

// TestManyAtOnce: callers get their own answers, whatever others do to theirs.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Path", r.URL.Path)
		if r.URL.Query().Get("n") > "4" {
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = w.Write([]byte(strings.Repeat(string(body), 1000)))
	}))
	defer srv.Close()
	tr := New(patient(nil))
	defer tr.CloseIdleConnections()
	var wg sync.WaitGroup
	for worker := range 16 {
		wg.Go(func() {
			for n := range 100 {
				call(t, tr, srv.URL, worker, n)
			}
		})
	}
	wg.Wait()
}

func call(t *testing.T, tr *Transport, url string, worker, n int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	text := fmt.Sprintf("<%d/%d>", worker, n)
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("%s/%s?n=%d", url, text, n%10), strings.NewReader(text))
	if n%7 == 0 {
		go cancel()
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		if n%7 != 0 || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		return
	}
	defer resp.Body.Close()
	if n%5 == 0 {
		return // unread
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil && n%7 != 0 || err == nil && string(body) != strings.Repeat(text, 1000) || resp.Header.Get("X-Path") != "/"+text {
		t.Errorf("%s: got %d bytes of %s, %v", text, len(body), resp.Header, err)
	}
}
