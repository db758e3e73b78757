package servertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// An Authority signs the certificates of a test. Its folder is what servers.Options.TLS asks for.
type Authority struct {
	Dir string

	t           testing.TB
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority returns one whose folder has ca.pem and a certificate for a server on this machine
// and for a client, each good for an hour. The user of the servers cannot read it.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{Dir: t.TempDir(), t: t}
	a.Renew()
	return a
}

// Renew makes all of that anew, with the authority: nothing of before is good with it.
func (a *Authority) Renew() {
	a.t.Helper()
	a.certificate = nil
	a.Issue("ca", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign })
	a.Issue("server", nil)
	a.Issue("client", nil)
}

// Issue writes NAME.pem with a new certificate, after change, if that is not nil, and its key. That
// of a server that runs counts for its next start.
func (a *Authority) Issue(name string, change func(*x509.Certificate)) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name + " " + rand.Text()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	if change != nil {
		change(c)
	}
	if a.certificate == nil {
		a.certificate, a.key = c, key
	}
	der, err1 := x509.CreateCertificate(rand.Reader, c, a.certificate, &key.PublicKey, a.key)
	secret, err2 := x509.MarshalPKCS8PrivateKey(key)
	text := slices.Concat(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	if err := errors.Join(err1, err2, os.WriteFile(a.File(name+".pem"), text, 0o600)); err != nil {
		a.t.Fatal(err)
	}
}

// Serve returns an address that shows the certificate NAME.pem, after first, which may be nil, and
// then says nothing.
func (a *Authority) Serve(name string, first func(net.Conn) error) (address string) {
	a.t.Helper()
	pair, err1 := tls.LoadX509KeyPair(a.File(name+".pem"), a.File(name+".pem"))
	l, err2 := net.Listen("tcp", "127.0.0.1:0")
	if err := errors.Join(err1, err2); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if first == nil || first(conn) == nil {
					_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}}).Handshake() // the client refuses
				}
			}()
		}
	}()
	return l.Addr().String()
}

// File returns the path of a file.
func (a *Authority) File(name string) string { return filepath.Join(a.Dir, name) }

// Query is the parameters of a URL for a client with the authority's certificate.
func (a *Authority) Query() string {
	return url.Values{"ca": {a.File("ca.pem")}, "cert": {a.File("client.pem")}, "key": {a.File("client.pem")}}.Encode()
}
