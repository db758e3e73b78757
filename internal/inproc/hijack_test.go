package inproc_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/kaptar/kaptar/internal/inproc"
)

// The two ways in which handlers take over a connection, and what goes over it afterwards, are the
// same as over the network.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	serve := func(c io.ReadWriteCloser, r io.Reader) {
		defer func() { _ = c.Close() }()
		line, err := bufio.NewReader(r).ReadString('\n')
		if err == nil {
			_, _ = fmt.Fprintf(c, "got %s", line)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/header", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", r.Header.Get("Upgrade"))
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrHijacked) {
			t.Errorf("second Hijack: %v", err)
		}
		if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrHijacked) {
			t.Errorf("Write after Hijack: %v", err)
		}
		go serve(conn, rw) // outlives the handler
	})
	mux.HandleFunc("/raw", func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\nearly ", r.Header.Get("Upgrade"))
		serve(conn, rw)
	})
	mux.HandleFunc("/plain", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_ = conn.Close()
	})
	mux.HandleFunc("/nothing", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.Close()
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	for name, rt := range map[string]http.RoundTripper{"network": srv.Client().Transport, "in process": inproc.RoundTripper(mux)} {
		for path, want := range map[string]string{"/header": "got hello\n", "/raw": "early got hello\n"} {
			req, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL+path, nil)
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "x")
			res, err := rt.RoundTrip(req)
			if err != nil {
				t.Fatalf("%s %s: %v", name, path, err)
			}
			conn, ok := res.Body.(io.ReadWriteCloser)
			if res.StatusCode != 101 || res.Header.Get("Upgrade") != "x" || !ok {
				t.Fatalf("%s %s: %d %v, body %T", name, path, res.StatusCode, res.Header, res.Body)
			}
			_, _ = io.WriteString(conn, "hello\n")
			if got, err := io.ReadAll(conn); string(got) != want || err != nil {
				t.Errorf("%s %s: read %q, %v, want %q", name, path, got, err, want)
			}
			_ = conn.Close()
		}
		req, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/plain", nil)
		res, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := io.ReadAll(res.Body); string(got) != "ok" || err != nil || res.StatusCode != 200 {
			t.Errorf("%s: plain response on a hijacked connection: %d %q, %v", name, res.StatusCode, got, err)
		}
		_ = res.Body.Close()
		req, _ = http.NewRequestWithContext(t.Context(), "POST", srv.URL+"/nothing", nil)
		if res, err := rt.RoundTrip(req); err == nil {
			t.Errorf("%s: a connection closed without a response: %d", name, res.StatusCode)
		}
	}
}
