package identity

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
)

const (
	scheme    = "spiffe://"
	maxID     = 2048 // bytes, as SPIFFE-ID §2.3
	maxDomain = 255  // bytes, as SPIFFE-ID §2.1
)

// An ID is a SPIFFE id whose last segment is the name of a service. For
// spiffe://example.org/ns/shop/order-service the Prefix is spiffe://example.org/ns/shop/ and the
// Service order-service. The zero value is no id.
type ID struct{ Prefix, Service string }

// String is the id as a URI.
func (id ID) String() string { return id.Prefix + id.Service }

// Parse reads a SPIFFE id by the rules of SPIFFE-ID §2: a trust domain of lower-case letters,
// digits, dots, dashes and underscores, and one or more segments of letters, digits, dots, dashes
// and underscores, none of them empty, "." or "..". There is no port, user, query, fragment or
// escape. The last segment must be able to name a service: lower-case letters, digits and dashes, a
// letter first, 63 bytes at most.
func Parse(uri string) (ID, error) {
	rest, ok := strings.CutPrefix(uri, scheme)
	domain, path, _ := strings.Cut(rest, "/")
	switch {
	case !ok || len(uri) > maxID:
		return ID{}, fmt.Errorf("SPIFFE id %.100q: expected spiffe://TRUST-DOMAIN/SERVICE", uri)
	case domain == "" || len(domain) > maxDomain || strings.ContainsFunc(domain, outside(lower+digits+"._-")):
		return ID{}, fmt.Errorf("SPIFFE id %.100q: trust domain: expected lower-case letters, digits, dots, dashes and underscores", uri)
	}
	service := ""
	for s := range strings.SplitSeq(path, "/") {
		service = s
		if s == "" || s == "." || s == ".." || strings.ContainsFunc(s, outside(lower+upper+digits+"._-")) {
			return ID{}, fmt.Errorf("SPIFFE id %.100q: path: expected segments of letters, digits, dots, dashes and underscores", uri)
		}
	}
	if len(service) > 63 || !strings.Contains(lower, service[:1]) || strings.ContainsFunc(service, outside(lower+digits+"-")) {
		return ID{}, fmt.Errorf("SPIFFE id %.100q: expected the name of a service behind the last /", uri)
	}
	return ID{Prefix: strings.TrimSuffix(uri, service), Service: service}, nil
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits = "0123456789"
)

func outside(set string) func(rune) bool {
	return func(r rune) bool { return !strings.ContainsRune(set, r) }
}

// idOf returns the id of a certificate, which must have one URI (X509-SVID §2) and not be a CA's
// (§4.1).
func idOf(cert *x509.Certificate) (ID, error) {
	switch {
	case len(cert.URIs) != 1:
		return ID{}, fmt.Errorf("certificate has %d URIs: expected one, spiffe://TRUST-DOMAIN/SERVICE", len(cert.URIs))
	case cert.IsCA || cert.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return ID{}, fmt.Errorf("certificate of %s is that of a CA: expected one of a service", cert.URIs[0])
	}
	return Parse(cert.URIs[0].String())
}

// ServiceOf returns the service whose certificate the client of a connection has shown. ok is false
// without a certificate, or if the handshake did not verify it. state may be nil, for plain text
// and calls within the process. [Identity.CheckPeer] says whether it is still valid.
func ServiceOf(state *tls.ConnectionState) (service string, ok bool) {
	if state == nil || len(state.VerifiedChains) == 0 {
		return "", false
	}
	id, err := idOf(state.VerifiedChains[0][0])
	return id.Service, err == nil
}
