package local_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/local"
)

// TestMTLSInOneProcess: the ports are for peers, and services that share the process need no
// certificate to call each other.
func TestMTLSInOneProcess(t *testing.T) {
	t.Parallel()
	var screen bytes.Buffer
	opts := &local.Options{Dir: t.TempDir(), NATSListen: "127.0.0.1:0", MTLS: true, Screen: &screen}
	back := idle("back")
	back.Setup = func(app *kaptar.App) error {
		app.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.TLS != nil) })
		return nil
	}
	front := idle("front")
	front.Setup = func(app *kaptar.App) error {
		app.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
			req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://back/", http.NoBody)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			resp, err := app.Client().Do(req)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			defer resp.Body.Close()
			_, _ = io.Copy(w, resp.Body)
		})
		return nil
	}
	at, _ := start(t, opts, front, back)
	dir := filepath.Join(opts.Dir, "tls")
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "operator.pem"), filepath.Join(dir, "operator.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	for name, tc := range map[string]struct {
		at     string
		config *tls.Config
		status int
		body   string
	}{
		"a peer":                  {at[1].HTTP, &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}, 200, "true"},
		"nobody":                  {at[1].HTTP, &tls.Config{RootCAs: roots}, 403, "certificate"},
		"a peer, through another": {at[0].HTTP, &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}, 200, "false"},
	} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: tc.config}}
		resp, err := client.Get("https://" + tc.at + "/")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != tc.status || !strings.Contains(string(body), tc.body) {
			t.Errorf("%s: %d %s, %v, want %d %s", name, resp.StatusCode, body, err, tc.status, tc.body)
		}
		client.CloseIdleConnections()
	}
	for _, want := range []string{"https://" + at[0].HTTP, "https://" + at[1].HTTP, "--cert " + filepath.Join(dir, "operator.pem")} {
		if !strings.Contains(screen.String(), want) {
			t.Errorf("the screen does not say %q:\n%s", want, &screen)
		}
	}
}
