package kubernetes

import (
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
	if _, err := (Options{}).withDefaults(getenv, account); err == nil || !strings.Contains(err.Error(), "the pod's namespace") {
		t.Errorf("without a namespace file: %v, want an error that says so", err)
	}
	if err := os.WriteFile(filepath.Join(account, "namespace"), []byte("shop\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Options{}.withDefaults(getenv, account)
	got.Logger = nil
	want := Options{
		Namespace: "shop", Server: "https://[fd00::1]:443", Timeout: 10 * time.Second,
		TokenFile: filepath.Join(account, "token"), CAFile: filepath.Join(account, "ca.crt"),
	}
	if err != nil || got != want {
		t.Errorf("in a pod: %+v, %v, want %+v", got, err, want)
	}
	got, err = Options{Namespace: "other", TokenFile: "/t", CAFile: "/c"}.withDefaults(getenv, account)
	got.Logger = nil
	want.Namespace, want.TokenFile, want.CAFile = "other", "/t", "/c"
	if err != nil || got != want {
		t.Errorf("in a pod, with options: %+v, %v, want %+v", got, err, want)
	}
	got, err = Options{Namespace: "shop", Server: "https://a/"}.withDefaults(getenv, account)
	if err != nil || got.Server != "https://a" || got.TokenFile != "" || got.CAFile != "" {
		t.Errorf("with a server: %+v, %v, want nothing of the pod's", got, err)
	}
}

func TestPauses(t *testing.T) {
	t.Parallel()
	for attempts, want := range map[int]time.Duration{1: 100 * time.Millisecond, 3: 400 * time.Millisecond, 7: 5 * time.Second, 1000: 5 * time.Second} {
		lo, hi := time.Hour, time.Duration(0)
		for range 2000 {
			d := backoff(attempts)
			lo, hi = min(lo, d), max(hi, d)
		}
		if lo <= 0 || lo > want/10 || hi > want || hi < want*9/10 {
			t.Errorf("pauses before attempt %d between %v and %v, want about all of 0 to %v", attempts, lo, hi, want)
		}
	}
}
