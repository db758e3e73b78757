// Package identity is a service's identity on the network: a certificate whose only URI is a SPIFFE
// id, its key and the CAs of its peers. It reads them from files, again when they change, and makes
// the tls.Config of server and client.
//
// Peers are the services of the same trust domain: their ids differ only in the last segment, the
// name of the service. A client expects the id of the service that it calls, and no DNS name. TLS
// is 1.3, without session tickets: each connection begins with the certificates of its time.
package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
)

// Settings name the files, all PEM. The zero value is no TLS.
type Settings struct {
	Cert   string `config:"cert" help:"file of this service's certificate and those between it and the CA, PEM; its one URI is spiffe://TRUST-DOMAIN/SERVICE; without it there is no TLS"`
	Key    string `config:"key" help:"file of the certificate's private key, PEM"`
	CA     string `config:"ca" help:"file of the CAs that sign the services' certificates, PEM"`
	Client string `config:"client" help:"require: callers must show a certificate; none: they are not asked for one, as at a gateway for browsers; default: as the service says, else require"`
}

// Validate is for package config.
func (s *Settings) Validate() error {
	switch {
	case (s.Cert == "") != (s.Key == "") || (s.Cert == "") != (s.CA == ""):
		return errors.New("expected cert, key and ca, or none of them")
	case s.Client != "" && s.Client != "require" && s.Client != "none":
		return fmt.Errorf("client %q: expected require or none", s.Client)
	}
	return nil
}

// interval is how often the files are checked. They are read once they have not changed for as
// long, so that half-written ones are not used.
const interval = time.Second

// An Identity is a service's certificate and its peers' CAs. Load makes one. Its methods may be
// called concurrently.
type Identity struct {
	service string
	set     Settings
	log     *slog.Logger
	current atomic.Pointer[material]

	// For Watch:
	seen, done string    // states of the files: last seen, and last handled
	remind     time.Time // when to warn of the certificate's end
}

// material is what was read at one time.
type material struct {
	pair  tls.Certificate // with its Leaf
	id    ID
	cas   []*x509.Certificate
	roots *x509.CertPool
}

// Load reads the files. The certificate must be that of service, be valid now, match the key, and
// be signed by one of the CAs for servers and clients.
func Load(service string, set *Settings, log *slog.Logger) (*Identity, error) {
	i := &Identity{service: service, set: *set, log: log}
	i.done = i.stat()
	i.seen = i.done
	m, err := i.read()
	if err != nil {
		return nil, err
	}
	i.take(m)
	return i, nil
}

// Expires is when the certificate in force ends.
func (i *Identity) Expires() time.Time { return i.current.Load().pair.Leaf.NotAfter }

// Watch loads files that change, until ctx ends, then returns nil. Invalid files change nothing and
// are logged once. A certificate in the last third of its life is logged, and again each time half
// of the rest is over. renewed is called after each change; open connections keep the certificates
// they began with. Call Watch once.
func (i *Identity) Watch(ctx context.Context, renewed func()) error {
	for steady.Sleep(ctx, interval) {
		if i.look(ctx) {
			renewed()
		}
		i.tellEnd(ctx)
	}
	return nil
}

// look loads the files if they have changed and are stable, and reports whether it did.
func (i *Identity) look(ctx context.Context) bool {
	now := i.stat()
	moving := now != i.seen
	i.seen = now
	if moving || now == i.done {
		return false
	}
	m, err := i.read()
	if i.stat() != now {
		return false // they changed while being read
	}
	i.done = now
	if err != nil {
		end := i.Expires()
		i.log.WarnContext(ctx, "certificates not taken over, the old ones stay in force", "error", err, "expires", end, "left", time.Until(end).Round(time.Second))
		return false
	}
	i.take(m)
	i.log.InfoContext(ctx, "certificates taken over", "id", m.id.String(), "expires", m.pair.Leaf.NotAfter)
	return true
}

// take puts m in force.
func (i *Identity) take(m *material) {
	i.current.Store(m)
	leaf := m.pair.Leaf
	i.remind = leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}

// tellEnd logs that the certificate ends soon, or has ended.
func (i *Identity) tellEnd(ctx context.Context) {
	now := time.Now()
	if now.Before(i.remind) {
		return
	}
	end := i.Expires()
	left := end.Sub(now)
	i.remind = now.Add(max(left/2, time.Minute))
	text := "the certificate ends soon: renew " + i.set.Cert
	if left <= 0 {
		text = "the certificate has expired, and no call works: renew " + i.set.Cert
	}
	i.log.WarnContext(ctx, text, "expires", end, "left", left.Round(time.Second))
}

func (i *Identity) files() [3]string { return [3]string{i.set.Cert, i.set.Key, i.set.CA} }

// stat is the state of the files, by which a change is seen.
func (i *Identity) stat() string {
	var state strings.Builder
	for _, name := range i.files() {
		if info, err := os.Stat(name); err == nil {
			fmt.Fprint(&state, info.ModTime().UnixNano(), " ", info.Size())
		}
		state.WriteByte('\n')
	}
	return state.String()
}

// read reads and checks the files.
func (i *Identity) read() (*material, error) {
	var data [3][]byte
	for n, name := range i.files() {
		var err error
		if data[n], err = os.ReadFile(name); err != nil {
			return nil, fmt.Errorf("tls.%s: %w: expected a file in PEM that this program may read", [3]string{"cert", "key", "ca"}[n], err)
		}
	}
	m := &material{roots: x509.NewCertPool()}
	var err error
	if m.cas, err = certificates(data[2]); err != nil {
		return nil, fmt.Errorf("tls.ca: %s: %w", i.set.CA, err)
	}
	if m.pair, err = tls.X509KeyPair(data[0], data[1]); err != nil {
		return nil, fmt.Errorf("tls.cert and tls.key: %s and %s: %w", i.set.Cert, i.set.Key, err)
	}
	if _, err = certificates(data[0]); err == nil {
		err = m.check(i.service, i.current.Load())
	}
	if err != nil {
		return nil, fmt.Errorf("tls.cert: %s: %w", i.set.Cert, err)
	}
	return m, nil
}

// check returns an error if peers would refuse the certificate or it is not service's. A CA that
// was known before keeps its old copy, since verified chains end in that copy (see CheckPeer).
func (m *material) check(service string, before *material) (err error) {
	for n, ca := range m.cas {
		if !ca.IsCA {
			return fmt.Errorf("tls.ca has the certificate of %q, which is no CA", ca.Subject)
		}
		if before != nil {
			if k := slices.IndexFunc(before.cas, ca.Equal); k >= 0 {
				m.cas[n] = before.cas[k]
			}
		}
		m.roots.AddCert(m.cas[n])
	}
	leaf := m.pair.Leaf
	now := time.Now()
	switch m.id, err = idOf(leaf); {
	case err != nil:
		return err
	case m.id.Service != service:
		return fmt.Errorf("the certificate is for %s: expected %s%s", m.id, m.id.Prefix, service)
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate has expired at %s: renew it", leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate is not valid before %s: expected one that is, or a clock that is right", leaf.NotBefore.Format(time.RFC3339))
	}
	chain := []*x509.Certificate{leaf}
	for _, der := range m.pair.Certificate[1:] {
		between, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		chain = append(chain, between)
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := m.verify(chain, use); err != nil {
			return err
		}
	}
	return nil
}

// verify checks a peer's certificates for a use.
func (m *material) verify(chain []*x509.Certificate, use x509.ExtKeyUsage) error {
	opts := x509.VerifyOptions{Roots: m.roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{use}}
	for _, between := range chain[1:] {
		opts.Intermediates.AddCert(between)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return err
	}
	return m.checkPeer(chain[0])
}

// checkPeer checks a certificate with a valid chain: it must be a peer's, with a strong key.
func (m *material) checkPeer(leaf *x509.Certificate) error {
	id, err := idOf(leaf)
	if err != nil {
		return err
	}
	if id.Prefix != m.id.Prefix {
		return fmt.Errorf("certificate is for %s: expected a service of %s", id, m.id.Prefix)
	}
	switch key := leaf.PublicKey.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
	case *rsa.PublicKey:
		if key.N.BitLen() < 2048 {
			return fmt.Errorf("certificate of %s has an RSA key of %d bits: expected 2048 at least", id, key.N.BitLen())
		}
	default:
		return fmt.Errorf("certificate of %s has a key of type %T: expected ECDSA, Ed25519 or RSA", id, key)
	}
	return nil
}

// certificates reads all certificates of a PEM file, which must be whole.
func certificates(data []byte) (all []*x509.Certificate, err error) {
	for len(bytes.TrimSpace(data)) > 0 {
		block, rest := pem.Decode(data)
		if block == nil {
			if bytes.Contains(data, []byte("-----BEGIN")) {
				return nil, errors.New("a PEM block is cut off")
			}
			break // text after the last block
		}
		data = rest
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, cert)
	}
	if len(all) == 0 {
		return nil, errors.New("no certificate in it: expected PEM")
	}
	return all, nil
}
