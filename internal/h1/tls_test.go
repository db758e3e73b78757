package h1

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// secure starts an https server and returns its address, the options to call it and its connections.
func secure(t *testing.T) (string, *Options, *atomic.Int32) {
	t.Helper()
	conns := new(atomic.Int32)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, r.Proto+" "+r.TLS.ServerName+" "+string(body))
	}))
	srv.EnableHTTP2 = true
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	opts := patient(nil)
	opts.TLS = &tls.Config{RootCAs: roots, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}
	return srv.URL, opts, conns
}

func TestTLS(t *testing.T) {
	t.Parallel()
	url, opts, conns := secure(t)
	type called struct{}
	opts.ServerName = func(ctx context.Context) string {
		name, _ := ctx.Value(called{}).(string)
		return name
	}
	tr := New(opts)
	defer tr.CloseIdleConnections()
	for n := range 10 {
		got, err := fetch(t.Context(), tr, http.MethodPost, url, "body")
		if want := "HTTP/1.1  body"; got != want || err != nil || conns.Load() != 1 {
			t.Fatalf("call %d: got %q, %v over %d connections, want %q", n, got, err, conns.Load(), want)
		}
	}
	ctx := context.WithValue(t.Context(), called{}, "www.example.com")
	for range 2 {
		got, err := fetch(ctx, tr, http.MethodPut, url, strings.Repeat("x", maxBody))
		if want := "HTTP/1.1 www.example.com " + strings.Repeat("x", maxBody); got != want || err != nil || conns.Load() != 2 {
			t.Fatalf("got %d bytes, %v over %d connections, want one of its own for the name", len(got), err, conns.Load())
		}
	}
	ctx = context.WithValue(t.Context(), called{}, "order-service")
	var hostname x509.HostnameError
	if _, err := fetch(ctx, tr, http.MethodGet, url, ""); !errors.As(err, &hostname) {
		t.Errorf("another's certificate: %v", err)
	}
	if _, err := fetch(t.Context(), New(nil), http.MethodGet, url, ""); err == nil {
		t.Error("an unknown authority is believed")
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	resp, err := tr.RoundTrip(req)
	if err != nil || resp.TLS == nil || resp.TLS.NegotiatedProtocol == "h2" || len(resp.TLS.PeerCertificates) == 0 {
		t.Errorf("TLS = %+v, %v", resp.TLS, err)
	}
	_ = resp.Body.Close()
}

// TestTLSUnasked: bytes that nobody asked for are seen through TLS, wherever they are.
func TestTLSUnasked(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	example := httptest.NewTLSServer(nil)
	defer example.Close()
	var conns atomic.Int32
	parts, sent := make(chan string, 1), make(chan bool, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			go func() {
				defer c.Close()
				c := tls.Server(c, example.TLS)
				for {
					if _, _, err := request(c); err != nil {
						return
					}
					_, _ = io.WriteString(c, ok+"Content-Length: 2\r\n\r\nok")
					_, _ = io.WriteString(c, <-parts) // a record of its own, or none
					sent <- true
				}
			}()
		}
	}()
	opts := patient(nil)
	opts.TLS = example.Client().Transport.(*http.Transport).TLSClientConfig
	tr := New(opts)
	defer tr.CloseIdleConnections()
	for _, tt := range []struct {
		part string
		want int32
	}{{"", 1}, {"", 1}, {"x", 1}, {"", 2}, {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 2}, {"", 3}} {
		parts <- tt.part
		got, err := fetch(t.Context(), tr, http.MethodPost, "https://"+l.Addr().String(), "body")
		if err != nil {
			t.Fatal(err)
		}
		<-sent
		if got != "ok" || conns.Load() != tt.want {
			t.Errorf("got %q over %d connections, want %d", got, conns.Load(), tt.want)
		}
	}
}

func TestHandshakeTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := over(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		began := time.Now()
		_, err := fetch(t.Context(), tr, http.MethodGet, "https://a/", "")
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != 2*time.Second {
			t.Errorf("got %v after %v", err, took)
		}
	})
}
