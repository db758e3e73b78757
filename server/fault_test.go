package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"testing"
)

// failing is a connection whose reads fail with err.
type failing struct {
	net.Conn
	err error
}

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// late is a body as net/http has it, slowed down: its connection fails, the context of the request
// ends, and only when the answer is there does Read return.
type late struct {
	conn     net.Conn
	end      context.CancelFunc
	answered chan struct{}
}

func (l *late) Close() error { return nil }

func (l *late) Read(p []byte) (int, error) {
	_, err := l.conn.Read(p)
	l.end()
	<-l.answered
	return 0, err
}

// TestBodyFailsBeforeItsReadReturns: the handler, a proxy, notices the end of its context before the
// end of the Read that was the cause. No error of the service behind comes of it.
func TestBodyFailsBeforeItsReadReturns(t *testing.T) {
	t.Parallel()
	for want, err := range map[int]error{http.StatusRequestTimeout: os.ErrDeadlineExceeded, http.StatusBadRequest: io.EOF} {
		s := New(Options{})
		body := &late{conn: &conn{Conn: failing{err: err}}, answered: make(chan struct{})}
		read := make(chan struct{})
		s.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
			go func() {
				defer close(read)
				_, _ = io.Copy(io.Discard, r.Body)
			}()
			<-r.Context().Done()
			w.WriteHeader(http.StatusBadGateway)
		})
		ctx, cancel := context.WithCancel(withConn(t.Context(), body.conn))
		body.end = cancel
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", body))
		close(body.answered)
		<-read
		if w.Code != want {
			t.Errorf("a connection that fails with %q: answered with %d, want %d", err, w.Code, want)
		}
	}
}

// TestFaultOfAnEarlierRequest: while a handler runs, net/http reads ahead to notice that the client
// leaves, and ends that by a deadline. Below TLS this looks like a body that does not come, and must
// not be held against the next request of the connection.
func TestFaultOfAnEarlierRequest(t *testing.T) {
	t.Parallel()
	pair := httptest.NewUnstartedServer(nil)
	pair.StartTLS()
	defer pair.Close()
	s := New(Options{HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0", TLS: &tls.Config{Certificates: pair.TLS.Certificates}})
	conns := make(chan *conn, 1)
	s.HandleFunc("GET /", func(_ http.ResponseWriter, r *http.Request) { conns <- connOf(r) })
	faults := make(chan int, 1)
	s.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		begun := make(chan struct{})
		go func() {
			_, _ = r.Body.Read(make([]byte, 3))
			close(begun)
			_, _ = io.Copy(io.Discard, r.Body) // which waits
		}()
		<-begun
		x := exchangeOf(r.Context())
		for !x.body.reading.Load() {
			runtime.Gosched()
		}
		faults <- x.fault()
		w.WriteHeader(http.StatusBadGateway)
	})
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	c, err := tls.Dial("tcp", s.HTTPAddr(), &tls.Config{RootCAs: pair.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(c)
	_, _ = fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp, err := http.ReadResponse(answers, nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("first request: %v, %v", resp, err)
	}
	for first := <-conns; !first.rested.Load(); { // or the read finds the second request
		runtime.Gosched()
	}
	_, _ = fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
	if fault := <-faults; fault != 0 {
		t.Errorf("while the body comes, its fault is %d, want none", fault)
	}
	_, _ = fmt.Fprint(c, "def")
	if resp, err := http.ReadResponse(answers, nil); err != nil || resp.StatusCode != http.StatusBadGateway {
		t.Errorf("second request: %v, %v, want 502", resp, err)
	}
	_ = c.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.Shutdown(ended)
	if err := <-served; err != nil {
		t.Error(err)
	}
}
