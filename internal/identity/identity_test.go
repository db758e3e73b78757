package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// textOf is a certificate with its key as PEM.
func textOf(t *testing.T, cert tls.Certificate) []byte {
	t.Helper()
	key := must(x509.MarshalPKCS8PrivateKey(cert.PrivateKey))
	return append(pemOf("CERTIFICATE", cert.Certificate[0]), pemOf("PRIVATE KEY", key)...)
}

// keyOf is the second block of what textOf returns.
func keyOf(text []byte) []byte {
	_, key := pem.Decode(text)
	return key
}

func TestLoad(t *testing.T) {
	t.Parallel()
	ca, other := authority(t, "td"), authority(t, "td")
	own := []string{"spiffe://td/order-service"}
	good := textOf(t, shown{by: ca, uris: own}.make(t))
	caText := pemOf("CERTIFICATE", ca.cert.Raw)
	cut := func(text []byte) []byte { return text[:len(text)-30] }
	life := func(from, to time.Duration) []byte {
		return textOf(t, shown{by: ca, uris: own, change: func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }}.make(t))
	}
	for name, tc := range map[string]struct {
		cert, key, ca []byte // nil is a file that is not there
		want          string
	}{
		"good":                      {good, good, caText, ""},
		"words between the blocks":  {append([]byte("Bag Attributes\n"), good...), good, append(append([]byte("# old\n"), caText...), "\n# end\n"...), ""},
		"no certificate":            {nil, good, caText, "tls.cert: open"},
		"no key":                    {good, nil, caText, "tls.key: open"},
		"no CA":                     {good, good, nil, "tls.ca: open"},
		"an empty certificate":      {[]byte{}, good, caText, "failed to find any PEM data"},
		"an empty key":              {good, []byte{}, caText, "failed to find any PEM data"},
		"an empty CA":               {good, good, []byte{}, "no certificate in it"},
		"a key alone":               {keyOf(good), good, caText, "failed to find certificate PEM data"},
		"a key that is cut off":     {good, cut(good), caText, "found a certificate rather than a key"},
		"a CA that is cut off":      {good, good, cut(caText), "cut off"},
		"a second CA is cut off":    {good, good, append(bytes.Clone(caText), cut(caText)...), "cut off"},
		"a chain that is cut off":   {append(bytes.Clone(good), cut(caText)...), good, caText, "cut off"},
		"the key of another":        {good, textOf(t, shown{by: ca, uris: own}.make(t)), caText, "private key does not match public key"},
		"a service's instead of CA": {good, good, good, "which is no CA"},
		"garbage for a CA":          {good, good, pemOf("CERTIFICATE", []byte("garbage")), "x509: malformed certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			loads(t, tc.cert, tc.key, tc.ca, tc.want)
		})
	}
	for want, text := range map[string][]byte{
		"the certificate has expired at":                                            life(-time.Hour, -time.Minute),
		"the certificate is not valid before":                                       life(time.Minute, time.Hour),
		"signed by unknown authority":                                               textOf(t, shown{by: other, uris: own}.make(t)),
		"certificate has 0 URIs: expected one, spiffe://TRUST-DOMAIN/SERVICE":       textOf(t, shown{by: ca}.make(t)),
		"the certificate is for spiffe://td/a: expected spiffe://td/order-service":  textOf(t, shown{by: ca, uris: []string{"spiffe://td/a"}}.make(t)),
		"incompatible key usage":                                                    textOf(t, shown{by: ca, uris: own, change: func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }}.make(t)),
		"has an RSA key of 1024 bits":                                               textOf(t, shown{by: ca, uris: own, key: must(rsa.GenerateKey(rand.Reader, 1024))}.make(t)),
		"certificate of spiffe://td/order-service is that of a CA: expected one of": textOf(t, shown{by: ca, uris: own, change: func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }}.make(t)),
	} {
		loads(t, text, text, caText, want)
	}
}

// loads checks what Load says of three files.
func loads(t *testing.T, cert, key, ca []byte, want string) {
	t.Helper()
	dir := t.TempDir()
	set := &Settings{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), CA: filepath.Join(dir, "ca")}
	for name, text := range map[string][]byte{set.Cert: cert, set.Key: key, set.CA: ca} {
		if text != nil {
			if err := os.WriteFile(name, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err := Load("order-service", set, slog.New(slog.DiscardHandler))
	outcome(t, "Load", err, want)
	if err != nil && strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("the error has a part of the key: %v", err)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	for want, set := range map[string]*Settings{
		"":                                 {},
		"expected cert, key and ca, or":    {Cert: "a", Key: "b"},
		"expected cert, key and ca, or no": {CA: "a"},
		`client "maybe": expected require`: {Client: "maybe"},
	} {
		outcome(t, "Validate", set.Validate(), want)
	}
	all := &Settings{Cert: "a", Key: "b", CA: "c", Client: "none"}
	if err := all.Validate(); err != nil {
		t.Errorf("all: %v", err)
	}
}

// A watched is an identity that is watched in a bubble, and what it has logged.
type watched struct {
	*Identity
	ca      *Authority
	mu      sync.Mutex
	log     bytes.Buffer
	renewed int
}

func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(b)
}

func watch(t *testing.T) *watched {
	t.Helper()
	w := &watched{ca: authority(t, "td")}
	w.Identity = identityOf(t, w.ca, "order-service")
	w.Identity.log = slog.New(slog.NewTextHandler(w, nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.Watch(ctx, func() { w.renewed++ }); err != nil {
			t.Errorf("Watch: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// write writes a new certificate, at the time of the bubble: by a file system's clock it can be of the
// same moment as the old one, and as long.
func (w *watched) write(t *testing.T, life time.Duration) {
	t.Helper()
	if err := errors.Join(w.ca.Write(w.set, "order-service", life), os.Chtimes(w.set.Cert, time.Now(), time.Now())); err != nil {
		t.Fatal(err)
	}
}

// after waits and compares how often the log has a text, and how often others were told.
func (w *watched) after(t *testing.T, wait time.Duration, text string, times, renewed int) {
	t.Helper()
	time.Sleep(wait)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := strings.Count(w.log.String(), text); got != times || w.renewed != renewed {
		t.Errorf("%q is logged %d times, want %d, %d changes, want %d:\n%s", text, got, times, w.renewed, renewed, &w.log)
	}
}

func TestWatchTakesOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		w.after(t, 10*time.Second, "level", 0, 0)
		before := w.current.Load().pair.Leaf
		w.write(t, 2*time.Hour)
		w.after(t, 3*time.Second, "certificates taken over", 1, 1)
		if leaf := w.current.Load().pair.Leaf; leaf.Equal(before) || !w.Expires().Equal(leaf.NotAfter) {
			t.Errorf("the certificate in force ends at %v, Expires says %v", leaf.NotAfter, w.Expires())
		}
		w.after(t, 10*time.Second, "level", 1, 1)
	})
}

// TestWatchKeepsTheOld: whatever is wrong with the new files is told once, with what is left, and
// when they are right again they are taken.
func TestWatchKeepsTheOld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		good := must(os.ReadFile(w.set.Cert))
		write := func(name string, text []byte) {
			t.Helper()
			if err := os.WriteFile(name, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		const told = "certificates not taken over, the old ones stay in force"
		write(w.set.Cert, good[:len(good)/2])
		w.after(t, 30*time.Second, told, 1, 0)
		w.after(t, 0, "left=59m", 1, 0)
		if err := os.Remove(w.set.Cert); err != nil {
			t.Fatal(err)
		}
		w.after(t, 30*time.Second, told, 2, 0)
		if err := os.Mkdir(w.set.Cert, 0o700); err != nil { // no program can read that
			t.Fatal(err)
		}
		w.after(t, 30*time.Second, told, 3, 0)
		if err := os.Remove(w.set.Cert); err != nil {
			t.Fatal(err)
		}
		write(w.set.Cert, textOf(t, shown{by: w.ca, uris: []string{"spiffe://td/a"}}.make(t)))
		w.after(t, 30*time.Second, told, 4, 0)
		w.after(t, 0, "PRIVATE", 0, 0)
		write(w.set.Cert, good)
		w.after(t, 30*time.Second, told, 4, 1)
	})
}

// TestWatchWaitsForTheWriter: a file that is written in pieces is read when it is whole.
func TestWatchWaitsForTheWriter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		text := must(w.ca.Issue("order-service", 2*time.Hour))
		f, err := os.OpenFile(w.set.Cert, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for part := range 10 {
			if _, err := f.Write(text[part*len(text)/10 : (part+1)*len(text)/10]); err != nil {
				t.Fatal(err)
			}
			w.after(t, 900*time.Millisecond, "level", 0, 0)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		w.after(t, 3*time.Second, "certificates taken over", 1, 1)
	})
}

func TestWatchTellsTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := watch(t) // an hour, and a minute before now
		const soon, over = "the certificate ends soon", "the certificate has expired, and no call works"
		w.after(t, 39*time.Minute, soon, 0, 0)
		w.after(t, 2*time.Minute, soon, 1, 0)
		w.after(t, 18*time.Minute, soon, 5, 0) // with 20, 10, 5, 2 and 1 minutes left
		w.after(t, 2*time.Minute, over, 1, 0)
		w.write(t, time.Hour)
		w.after(t, time.Minute, "certificates taken over", 1, 1)
		w.after(t, 10*time.Minute, "level=WARN", 7, 1)
	})
}

func TestWrite(t *testing.T) {
	t.Parallel()
	ca := authority(t, "td")
	dir := t.TempDir()
	set := Settings{Cert: filepath.Join(dir, "own.pem"), CA: filepath.Join(dir, "ca.pem")}
	for range 2 {
		if err := ca.Write(set, "a", time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range must(os.ReadDir(dir)) {
		info := must(f.Info())
		if info.Mode().Perm() != 0o600 || f.Name() != "own.pem" && f.Name() != "ca.pem" {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
	}
	if err := ca.Write(Settings{Cert: filepath.Join(dir, "none", "a"), CA: set.CA}, "a", time.Hour); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
	if err := ca.Write(set, "A/B", time.Hour); err == nil {
		t.Error("A/B got a certificate")
	}
}
