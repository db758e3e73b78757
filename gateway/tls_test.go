package gateway_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/kaptartest"
)

// TestTLS: with a certificate of its own a gateway for browsers says that it always has one, in both
// versions of HTTP.
func TestTLS(t *testing.T) {
	t.Parallel()
	fake := httptest.NewTLSServer(nil)
	fake.Close()
	behind := edge(nil)
	setup := behind.Setup
	behind.Setup = func(app *kaptar.App) error {
		app.Server().TLS = &tls.Config{Certificates: fake.TLS.Certificates, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
		return setup(app)
	}
	sys := kaptartest.Start(t, behind, things("user-service", map[string]http.HandlerFunc{"/": func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, r.Header.Get("X-Forwarded-Proto")+" "+string(body))
	}}))
	addr := strings.TrimPrefix(sys.URL("gateway"), "http://")
	roots := x509.NewCertPool()
	roots.AddCert(fake.Certificate())
	trust := &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS12}
	for _, http2 := range []bool{true, false} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: http2}}
		resp, err := client.Get("https://" + addr + "/v1/users/1")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		client.CloseIdleConnections()
		if string(body) != "https " || resp.ProtoMajor == 2 != http2 || resp.Header.Get("Strict-Transport-Security") != "max-age=31536000" {
			t.Errorf("HTTP/2 %t: %s %q %v, want https, HTTP/2 and a promise of it for a year", http2, resp.Proto, body, resp.Header)
		}
	}
	// Under TLS the bytes of a head are not to be seen: a length beside chunks ends the connection.
	conn, err := tls.Dial("tcp", addr, trust)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, "POST /v1/users/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/users/2 HTTP/1.1\r\nHost: a\r\n\r\n")
	r := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("a length beside chunks: %v, %v, want 200 and the end", resp, err)
	} else if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Error(err)
	}
	if resp, err := http.ReadResponse(r, nil); err == nil {
		t.Errorf("what follows: %v, want nothing", resp)
	}
}
