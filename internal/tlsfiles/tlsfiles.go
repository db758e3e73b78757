// Package tlsfiles is TLS to backends: the files that a URL names, and what errors mean.
package tlsfiles

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"syscall"
	"time"

	"github.com/kaptar/kaptar/internal/params"
)

// Files say whether and how to use TLS. The zero value does not. The files are read for each
// connection, so certificates can be renewed without a restart.
type Files struct {
	On bool
	// CA has the certificates in PEM that may sign the server's; default: those of the system.
	CA string
	// Cert and Key are the client's certificate, with its intermediates, and its key, in PEM;
	// default: none is shown.
	Cert, Key string
}

// Parameters adds ca, cert and key to those of a URL. Any of them turns TLS on.
func (f *Files) Parameters(known map[string]params.Param) map[string]params.Param {
	for name, file := range map[string]*string{"ca": &f.CA, "cert": &f.Cert, "key": &f.Key} {
		text := params.Text(file, "the name of a file in PEM")
		known[name] = func(value string) string {
			f.On = true
			return text(value)
		}
	}
	return known
}

// Check is called after a URL was read. It fails for files without TLS, with wants as the advice,
// and for files that cannot be used.
func (f *Files) Check(wants string) error {
	if !f.On && *f != (Files{}) {
		return errors.New("parameters ca, cert and key are for TLS: " + wants)
	}
	_, err := f.Config()
	return err
}

// Config reads the files. The result, nil without TLS, is for one connection and needs the server's
// name.
func (f *Files) Config() (*tls.Config, error) {
	if !f.On {
		return nil, nil //nolint:nilnil // as the field of a client's options
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: %s: expected certificates in PEM", f.CA)
		}
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("cert and key: one of them is missing, expected both")
	}
	if f.Cert != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("cert and key: %s and %s: expected a certificate and its key in PEM: %w", f.Cert, f.Key, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Dial connects with TLS, or without if that is off, within 3 s, since there may be another host.
// The certificate must be for the host of address.
func (f *Files) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil || !f.On {
		return raw, err
	}
	host, _, _ := net.SplitHostPort(address) // it was dialled
	return f.Handshake(ctx, raw, host)
}

// Handshake begins TLS on raw with a server of this name, and offers protocols. A failure closes
// raw.
func (f *Files) Handshake(ctx context.Context, raw net.Conn, name string, protocols ...string) (net.Conn, error) {
	config, err := f.Config()
	if err == nil {
		config.ServerName, config.NextProtos = name, protocols
		secure := tls.Client(raw, config)
		if err = secure.HandshakeContext(ctx); err == nil {
			return conn{secure}, nil
		}
	}
	_ = raw.Close() // err says more
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", errSilent, err)
	}
	return nil, err
}

// A conn reports the reason for a cut also to a writer: a client's certificate is refused only
// after the handshake.
type conn struct{ *tls.Conn }

// Write implements net.Conn.
func (c conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if wasCut(err) {
		if _, reason := c.Read(make([]byte, 1)); reason != nil && alert.MatchString(reason.Error()) {
			err = reason
		}
	}
	return n, err
}

// wasCut reports whether err is of a connection that the other side or our reader closed.
func wasCut(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}

// errSilent is for a server that does not answer, as one that waits for a line.
var errSilent = errors.New("no answer to TLS")

// Explain is ExplainAs in the words of a URL.
func Explain(err error) error {
	return ExplainAs(err, "the parameter ca", "the parameters cert and key")
}

// ExplainOTLP is ExplainAs in OpenTelemetry's words.
func ExplainOTLP(err error) error {
	return ExplainAs(err, "OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY")
}

// ExplainAs adds what to do to an error of a TLS connection, and returns others unchanged. ca and
// cert are the names of the settings for the authority and the client's certificate.
func ExplainAs(err error, ca, cert string) error {
	var (
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
		plain   tls.RecordHeaderError
	)
	var advice string
	switch {
	case errors.As(err, &unknown):
		advice = "nobody who is trusted here has signed the server's certificate: name the authority's with " + ca
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		advice = "the server's certificate has expired or is not valid yet: renew it, or set the clock here"
	case errors.As(err, &name):
		advice = "the server's certificate is for another host: use a name that is in it, or put this one in"
	case errors.As(err, &plain) || errors.Is(err, http.ErrSchemeMismatch):
		advice = "no TLS is spoken at that port: take the server's port for TLS, or do without"
	case errors.Is(err, errSilent):
		advice = "maybe no TLS is spoken at that port, or the server is slow"
	case err != nil && alert.MatchString(err.Error()):
		advice = "the server refuses the client's certificate, or wants one: name it with " + cert
	default:
		return err
	}
	return fmt.Errorf("%s: %w", advice, err)
}

// alert matches crypto/tls's text for a certificate that the server refuses or misses; some clients
// keep only the text.
var alert = regexp.MustCompile(`remote error: tls: .*certificate`)

// ExplainFirst is Explain for an error of the first exchange on a connection, with TLS if secure. A
// server that refuses the client's certificate may close it before its reason is read.
func ExplainFirst(err error, secure bool) error {
	if secure && wasCut(err) {
		return fmt.Errorf("the server has cut the connection: maybe it refuses the client's certificate, or wants one: set the parameters cert and key: %w", err)
	}
	return Explain(err)
}
