package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/url"
	"os"
	"time"
)

// An Authority is a temporary CA for one machine, whose key never leaves memory: for package local
// and for tests. Its methods may be called concurrently.
type Authority struct {
	domain string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
}

// caLife is the lifetime of an Authority's certificate, longer than any Run.
const caLife = 10 * 365 * 24 * time.Hour

// skew is how far a clock may be behind that of an Authority.
const skew = time.Minute

// NewAuthority makes a CA of a trust domain.
func NewAuthority(domain string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &Authority{domain: domain, key: key}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "throw-away CA of " + domain},
		NotBefore: time.Now().Add(-skew), NotAfter: time.Now().Add(caLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = template
	der, err := a.sign(template, key.Public())
	if err != nil {
		return nil, err
	}
	a.cert, err = x509.ParseCertificate(der)
	return a, err
}

// PEM returns the CA's certificate.
func (a *Authority) PEM() []byte { return pemOf("CERTIFICATE", a.cert.Raw) }

// sign makes a certificate.
func (a *Authority) sign(template *x509.Certificate, key any) ([]byte, error) {
	return x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
}

// Issue makes a key and a certificate of a service, valid for life, in one PEM text.
func (a *Authority) Issue(service string, life time.Duration) ([]byte, error) {
	id, err := Parse(scheme + a.domain + "/" + service)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := a.sign(a.leaf(id, life), key.Public())
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pemOf("CERTIFICATE", der), pemOf("PRIVATE KEY", private)...), nil
}

// leaf is the certificate that Issue signs. It also names this machine, for tools that check that.
func (a *Authority) leaf(id ID, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		NotBefore: time.Now().Add(-skew), NotAfter: time.Now().Add(life),
		URIs:        []*url.URL{{Scheme: "spiffe", Host: a.domain, Path: "/" + id.Service}},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Write writes a new certificate of service with its key to set.Cert, and the CA to set.CA. Only
// the user may read them; each file is replaced as a whole.
func (a *Authority) Write(set Settings, service string, life time.Duration) error {
	text, err := a.Issue(service, life)
	if err == nil {
		err = replace(set.CA, a.PEM())
	}
	if err == nil {
		err = replace(set.Cert, text)
	}
	return err
}

// replace writes a file beside name and renames it.
func replace(name string, text []byte) error {
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}
