package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/server"
)

// TestAnswerToALargeBody: a client that sends everything before it reads, as many do, sees the answer.
func TestAnswerToALargeBody(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.HandleFunc("POST /reads", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
		_ = r.Body.Close() // as some do
	})
	b.HandleFunc("POST /refuses", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	address := strings.TrimPrefix(b.start(t), "http://")
	large := strings.Repeat("x", 11<<20)
	for _, tc := range []struct {
		path, head, body string
		status           int
	}{
		{"/reads", "Content-Length: 11534336", large, 413},
		{"/reads", "Transfer-Encoding: chunked", "B00000\r\n" + large + "\r\n0\r\n\r\n", 413},
		{"/refuses", "Content-Length: 11534336", large, 401},
		{"/refuses", "Content-Length: 300000", large[:300000], 401},
		{"/refuses", "Content-Length: 5", "hello", 401},
		{"/refuses", "Content-Length: 11534336\r\nExpect: 100-continue", "", 401}, // and never asks for the body
		{"/refuses", "Content-Length: 100", "hello", 401},                         // the rest never comes
	} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: users\r\n%s\r\n\r\n%s", tc.path, tc.head, tc.body)
		if err != nil {
			t.Errorf("%s %s: sending: %v", tc.path, tc.head, err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != tc.status {
			t.Errorf("%s %s: got %v, %v, want %d", tc.path, tc.head, resp, err, tc.status)
		}
		_ = conn.Close()
	}
}

// TestFewErrors: who makes many mistakes is told of some.
func TestFewErrors(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.HandleFunc("GET /mistakes", func(w http.ResponseWriter, r *http.Request) {
		server.WriteProblem(w, r, server.Problem{Status: 400, Errors: make([]server.FieldError, 90_000)})
	})
	a := do(t, http.DefaultClient, "GET", b.start(t)+"/mistakes", nil)
	if p := a.problem(t, 400); len(p.Errors) != 21 || p.Errors[20].Message != "and 89980 more" {
		t.Errorf("got %d errors, the last %v, want 20 and the number of the others", len(p.Errors), p.Errors[len(p.Errors)-1])
	}
}

// TestCloseWaitsForRead: a proxy's transport may still read when its handler is done. Close waits for
// it, as the race detector sees, and no read comes after.
func TestCloseWaitsForRead(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{Timeout: 2 * time.Second})
	reads := make(chan error, 2)
	b.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		hello := make([]byte, 5)
		if _, err := io.ReadFull(r.Body, hello); err != nil {
			t.Error(err)
		}
		go func() {
			for range 2 {
				_, err := r.Body.Read(hello)
				reads <- err
			}
		}()
		w.WriteHeader(http.StatusUnauthorized)
		_ = r.Body.Close()
	})
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(b.start(t), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: users\r\nContent-Length: 100\r\n\r\nhello")
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode/100 != 4 {
		t.Errorf("got %v, %v, want 401 or 408", resp, err)
	}
	if first, second := <-reads, <-reads; first == nil || second == nil {
		t.Errorf("read %v, %v, want errors", first, second)
	}
}
