//go:build unix

package local_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/local"
)

// guarded is a service that only the operator may call, and another service through it.
func guarded(name string) kaptar.Service {
	return kaptar.Service{Name: name, Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /operator", func(w http.ResponseWriter, r *http.Request) {
			resp, err := app.Client().Get("http://" + name + "/service")
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			resp.Body.Close()
			fmt.Fprint(w, auth.From(r.Context()).Subject, resp.StatusCode)
		})
		app.HandleFunc("GET /service", func(http.ResponseWriter, *http.Request) {})
		return auth.Protect(app, auth.Policies{"GET /operator": auth.Scope("anything"), "GET /service": auth.Service(name)}, nil)
	}}
}

func TestOperatorsKey(t *testing.T) {
	t.Parallel()
	opts := local.Options{Dir: t.TempDir(), NATSListen: "127.0.0.1:0"}
	path, kept := filepath.Join(opts.Dir, "operator.key"), ""
	for range 2 {
		var screen bytes.Buffer
		again := opts
		again.Screen = &screen
		at, stop := start(t, &again, guarded("vault"))
		key, err := os.ReadFile(path)
		if info, statErr := os.Stat(path); err != nil || statErr != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("the key is not there for its user alone: %v, %v", err, statErr)
		}
		if kept == "" {
			kept = string(key)
		}
		if string(key) != kept || len(strings.TrimSpace(kept)) < 40 {
			t.Errorf("key of %d bytes, another than at first: %v", len(key), string(key) != kept)
		}
		if text := screen.String(); !strings.Contains(text, path) || strings.Contains(text, strings.TrimSpace(kept)) {
			t.Errorf("the screen does not tell where the key is, or tells the key:\n%s", text)
		}
		for shown, want := range map[string]string{strings.TrimSpace(kept): "200 key:operator200", "another": "401 "} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at[0].HTTP+"/operator", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Api-Key", shown)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			var body bytes.Buffer
			_, _ = body.ReadFrom(resp.Body)
			resp.Body.Close()
			if got := fmt.Sprint(resp.StatusCode, " ", body.String()); !strings.HasPrefix(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSplitKeys: the services of a run share keys, and no two runs do.
func TestSplitKeys(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.startSplit()
	alpha, err := p.try("alpha", "/keys")
	beta, other := p.try("beta", "/keys")
	if err != nil || other != nil || alpha != beta || !strings.HasPrefix(alpha, "1 operator ") {
		t.Errorf("services have the keys %q and %q (%v, %v), want the same", alpha, beta, err, other)
	}
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	p = newProgram(t)
	p.startSplit()
	if another, err := p.try("alpha", "/keys"); err != nil || another == alpha {
		t.Errorf("another run has the keys %q, %v, want others", another, err)
	}
}
