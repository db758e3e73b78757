package local

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar"
)

// TestCertify: nobody else can read the certificates, and none comes near its end.
func TestCertify(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		services := []kaptar.Service{{Name: "a"}, {Name: "b"}}
		if err := certify(t.Context(), dir, services, time.Hour); err != nil {
			t.Fatal(err)
		}
		pairOf := func(service string) *x509.Certificate {
			t.Helper()
			set := certFiles(dir, service)
			pair, err := tls.LoadX509KeyPair(set.Cert, set.Key)
			if err != nil {
				t.Fatal(err)
			}
			return pair.Leaf
		}
		first, err := os.ReadFile(certFiles(dir, "a").CA)
		if err != nil {
			t.Fatal(err)
		}
		for hours := range 5 {
			for _, name := range []string{"a", "b", operator} {
				leaf := pairOf(name)
				if left := time.Until(leaf.NotAfter); left < 40*time.Minute-time.Second || left > time.Hour {
					t.Errorf("after %d hours the certificate of %s is good for %v", hours, name, left)
				}
				if got, want := leaf.URIs[0].String(), "spiffe://local/"+name; got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
			time.Sleep(time.Hour)
			synctest.Wait()
		}
		if again, err := os.ReadFile(certFiles(dir, "a").CA); err != nil || string(again) != string(first) {
			t.Errorf("another CA, %v", err)
		}
		files, err := filepath.Glob(filepath.Join(dir, "tls", "*"))
		if err != nil || len(files) != 4 {
			t.Errorf("%q, %v, want three certificates and the CA", files, err)
		}
		for _, f := range append(files, filepath.Join(dir, "tls")) {
			if info, err := os.Stat(f); err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %v, %v", f, info.Mode(), err)
			}
		}
	})
}
