package server_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/kaptar/kaptar/server"
)

// A handler that minds nothing must not keep the client or Shutdown.
func TestCutReachesClientsOfDeafHandlers(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	started, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	b.GRPC().RegisterService(&echoDesc, echo{onWatch: func(grpc.ServerStream) error {
		close(started)
		<-release
		return nil
	}})
	b.start(t)
	ended := make(chan error, 1)
	go func() {
		stream, err := b.dial(t).NewStream(t.Context(), watchDesc, watchMethod)
		if err == nil {
			err = stream.RecvMsg(nil)
		}
		ended <- err
	}()
	<-started
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := b.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown = %v, want none: a stream may be cut", err)
	}
	if lines := b.lines(t, "streams cut that did not end when the service stopped"); len(lines) != 1 || lines[0]["streams"] != "1 RPC: "+watchMethod {
		t.Errorf("logged %v, want the stream", lines)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the client of a cut RPC got no error")
		}
	case <-time.After(20 * time.Second):
		t.Error("the client of a cut RPC still waits")
	}
}

// timedWriter is a connection that keeps the read deadlines it is given.
type timedWriter struct {
	*httptest.ResponseRecorder
	deadlines []time.Time
}

func (w *timedWriter) SetReadDeadline(at time.Time) error {
	w.deadlines = append(w.deadlines, at)
	return nil
}

func TestBodyMustArriveInTime(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	read := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	b.Handle("POST /plain", read)
	b.HandleFunc("POST /stream", func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		read(w, r)
	})
	post := func(path string) []time.Time {
		w := &timedWriter{ResponseRecorder: httptest.NewRecorder()}
		b.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", path, strings.NewReader("body")))
		return w.deadlines
	}
	got := post("/plain")
	if len(got) != 2 || time.Until(got[0]) > 5*time.Second || !got[1].IsZero() {
		t.Errorf("read deadlines %v, want one in 5 s, which is that of the request, and none after the end of the body", got)
	}
	if got := post("/stream"); len(got) != 0 {
		t.Errorf("a streaming body has read deadlines %v", got)
	}
}
