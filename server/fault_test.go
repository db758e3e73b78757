package server

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
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
