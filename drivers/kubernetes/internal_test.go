package kubernetes

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestInAPod(t *testing.T) {
	t.Parallel()
	account := t.TempDir()
	environment := map[string]string{"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
	getenv := func(name string) string { return environment[name] }
	if _, err := (options{}).withDefaults(getenv, account); err == nil || !strings.Contains(err.Error(), "the pod's namespace") {
		t.Errorf("without a namespace file: %v, want an error that says so", err)
	}
	if err := os.WriteFile(filepath.Join(account, "namespace"), []byte("shop\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := options{}.withDefaults(getenv, account)
	got.Logger = nil
	want := options{
		Namespace: "shop", Server: "https://[fd00::1]:443", Timeout: 10 * time.Second,
		TokenFile: filepath.Join(account, "token"), CAFile: filepath.Join(account, "ca.crt"),
	}
	if err != nil || got != want {
		t.Errorf("in a pod: %+v, %v, want %+v", got, err, want)
	}
	got, err = options{Namespace: "other", TokenFile: "/t", CAFile: "/c"}.withDefaults(getenv, account)
	got.Logger = nil
	want.Namespace, want.TokenFile, want.CAFile = "other", "/t", "/c"
	if err != nil || got != want {
		t.Errorf("in a pod, with options: %+v, %v, want %+v", got, err, want)
	}
	got, err = options{Namespace: "shop", Server: "https://a/"}.withDefaults(getenv, account)
	if err != nil || got.Server != "https://a" || got.TokenFile != "" || got.CAFile != "" {
		t.Errorf("with a server: %+v, %v, want nothing of the pod's", got, err)
	}
}

type spaces struct{}

func (spaces) Close() error { return nil }

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestAnswersAreBounded: whatever is at the other end, also when it comes unpacked from a little gzip.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	n, err := io.Copy(io.Discard, &answer{spaces{}, maxAnswer})
	if n != maxAnswer || err == nil || !strings.Contains(err.Error(), "more than 67108864 bytes") {
		t.Errorf("an answer without end: %d bytes, %v, want 64 MiB and an error", n, err)
	}
}
