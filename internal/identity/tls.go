package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Server returns the configuration of a server. With ask, callers are asked for a certificate. A
// connection with a certificate that is not a peer's is refused; one without is accepted, for
// probes, and CheckPeer decides what else it may do.
func (i *Identity) Server(ask bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m := i.current.Load()
			c := &tls.Config{
				MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{m.pair},
				NextProtos: []string{"h2", "http/1.1"}, SessionTicketsDisabled: true,
			}
			if ask {
				c.ClientAuth, c.ClientCAs = tls.VerifyClientCertIfGiven, m.roots
				c.VerifyConnection = func(state tls.ConnectionState) error {
					if len(state.PeerCertificates) == 0 {
						return nil
					}
					return m.checkPeer(state.PeerCertificates[0])
				}
			}
			return c, nil
		},
	}
}

// Client returns the configuration of a client. Set ServerName, in the copy for a connection, to
// the service to be called. It shows the certificate to every server that asks.
func (i *Identity) Client() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &i.current.Load().pair, nil
		},
		InsecureSkipVerify: true, //nolint:gosec // G402: VerifyConnection does it, with another name
		VerifyConnection: func(state tls.ConnectionState) error {
			m := i.current.Load()
			if err := m.verify(state.PeerCertificates, x509.ExtKeyUsageServerAuth); err != nil {
				return fmt.Errorf("identity: %s: %w", state.ServerName, err)
			}
			if id, err := idOf(state.PeerCertificates[0]); err != nil || id.Service != state.ServerName {
				return fmt.Errorf("identity: the server's certificate is for %s: expected %s%s", id, m.id.Prefix, state.ServerName)
			}
			return nil
		},
	}
}

var (
	errNoPeer  = errors.New("identity: no certificate of a client")
	errOldPeer = errors.New("identity: the client's certificate has expired, or its CA is not among tls.ca any more")
)

// CheckPeer returns nil if the client of a connection has shown a peer's certificate that is still
// valid: it has not expired, and its CA has not been removed since. It is cheap enough for each
// request. state may be nil.
func (i *Identity) CheckPeer(state *tls.ConnectionState) error {
	if state == nil || len(state.VerifiedChains) == 0 {
		return errNoPeer
	}
	cas, now := i.current.Load().cas, time.Now()
	for _, chain := range state.VerifiedChains {
		good := slices.Contains(cas, chain[len(chain)-1]) // the same copy, not an equal one
		for _, cert := range chain {
			good = good && now.Before(cert.NotAfter)
		}
		if good {
			return nil
		}
	}
	return errOldPeer
}
