package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// shown is a certificate that somebody shows.
type shown struct {
	by     *Authority // nil signs itself
	uris   []string
	change func(*x509.Certificate)
	key    crypto.Signer // nil is ECDSA
}

func (s shown) make(t *testing.T) tls.Certificate {
	t.Helper()
	ca := s.by
	self := ca == nil
	if self {
		ca = authority(t, "td")
	}
	template := ca.leaf(ID{Service: "x"}, time.Hour)
	template.URIs = nil
	for _, text := range s.uris {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	if s.change != nil {
		s.change(template)
	}
	key := s.key
	if key == nil {
		key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	}
	der, err := ca.sign(template, key.Public())
	if self {
		der, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// identityOf is a service's identity by ca, in a directory of its own.
func identityOf(t testing.TB, ca *Authority, service string) *Identity {
	t.Helper()
	dir := t.TempDir()
	set := Settings{Cert: filepath.Join(dir, "own.pem"), Key: filepath.Join(dir, "own.pem"), CA: filepath.Join(dir, "ca.pem")}
	if err := ca.Write(set, service, time.Hour); err != nil {
		t.Fatal(err)
	}
	i, err := Load(service, &set, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// named is a client's configuration for calls of order-service.
func named(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.ServerName = "order-service"
	return config
}

// meet makes a connection and sends a byte over it. It returns what the server knows of it, and what
// either side says.
func meet(t *testing.T, server, client *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		conn := tls.Server(raw, server)
		defer func() { _ = conn.Close() }()
		if serverErr = conn.Handshake(); serverErr == nil {
			state = conn.ConnectionState()
			_, serverErr = conn.Write([]byte("x"))
		}
	}()
	conn, clientErr := tls.Dial("tcp", l.Addr().String(), client)
	if clientErr == nil {
		_, clientErr = io.ReadFull(conn, make([]byte, 1))
		_ = conn.Close()
	}
	<-done
	return state, serverErr, clientErr
}

// TestCertificates is what is shown on a connection between peers, and what comes of it.
func TestCertificates(t *testing.T) {
	t.Parallel()
	ca, other := authority(t, "td"), authority(t, "td")
	weak, strong := must(rsa.GenerateKey(rand.Reader, 1024)), must(rsa.GenerateKey(rand.Reader, 2048))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := []string{"spiffe://td/order-service"}
	eku := func(use ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = use }
	}
	const (
		anyPeer = "" // both are content
		expired = "certificate has expired or is not yet valid"
		unknown = "certificate signed by unknown authority"
		usage   = "certificate specifies an incompatible key usage"
		pathErr = "path: expected segments"
		domain  = "trust domain: expected lower-case letters"
		foreign = "expected a service of spiffe://td/"
	)
	for name, tc := range map[string]struct {
		shown          shown
		client, server string // what the other side says when the client, or the server, shows it
	}{
		"good":                         {shown{by: ca, uris: own}, anyPeer, anyPeer},
		"good, RSA 2048":               {shown{by: ca, uris: own, key: strong}, anyPeer, anyPeer},
		"good, Ed25519":                {shown{by: ca, uris: own, key: ed}, anyPeer, anyPeer},
		"no extended key usage":        {shown{by: ca, uris: own, change: eku()}, anyPeer, anyPeer},
		"expired":                      {shown{by: ca, uris: own, change: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }}, expired, expired},
		"not yet valid":                {shown{by: ca, uris: own, change: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }}, expired, expired},
		"wrong CA":                     {shown{by: other, uris: own}, unknown, unknown},
		"signed by itself":             {shown{uris: own}, unknown, unknown},
		"client use missing":           {shown{by: ca, uris: own, change: eku(x509.ExtKeyUsageServerAuth)}, usage, anyPeer},
		"server use missing":           {shown{by: ca, uris: own, change: eku(x509.ExtKeyUsageClientAuth)}, anyPeer, usage},
		"for code":                     {shown{by: ca, uris: own, change: eku(x509.ExtKeyUsageCodeSigning)}, usage, usage},
		"no URI":                       {shown{by: ca}, "has 0 URIs", "has 0 URIs"},
		"the service as a DNS name":    {shown{by: ca, change: func(c *x509.Certificate) { c.DNSNames = []string{"order-service"} }}, "has 0 URIs", "has 0 URIs"},
		"two URIs":                     {shown{by: ca, uris: []string{own[0], "spiffe://td/user-service"}}, "has 2 URIs", "has 2 URIs"},
		"the same URI twice":           {shown{by: ca, uris: []string{own[0], own[0]}}, "has 2 URIs", "has 2 URIs"},
		"a web address beside":         {shown{by: ca, uris: []string{own[0], "https://td/order-service"}}, "has 2 URIs", "has 2 URIs"},
		"another service":              {shown{by: ca, uris: []string{"spiffe://td/user-service"}}, anyPeer, "is for spiffe://td/user-service: expected spiffe://td/order-service"},
		"another trust domain":         {shown{by: ca, uris: []string{"spiffe://other/order-service"}}, foreign, foreign},
		"a trust domain below":         {shown{by: ca, uris: []string{"spiffe://a.td/order-service"}}, foreign, foreign},
		"a longer path":                {shown{by: ca, uris: []string{"spiffe://td/ns/order-service"}}, foreign, foreign},
		"a path that climbs":           {shown{by: ca, uris: []string{"spiffe://td/x/../order-service"}}, pathErr, pathErr},
		"a path that stays":            {shown{by: ca, uris: []string{"spiffe://td/./order-service"}}, pathErr, pathErr},
		"an empty segment":             {shown{by: ca, uris: []string{"spiffe://td//order-service"}}, pathErr, pathErr},
		"a slash at the end":           {shown{by: ca, uris: []string{"spiffe://td/order-service/"}}, pathErr, pathErr},
		"an escaped slash":             {shown{by: ca, uris: []string{"spiffe://td/x%2forder-service"}}, pathErr, pathErr},
		"an escaped letter":            {shown{by: ca, uris: []string{"spiffe://td/%6frder-service"}}, pathErr, pathErr},
		"no path":                      {shown{by: ca, uris: []string{"spiffe://td"}}, pathErr, pathErr},
		"an upper-case service":        {shown{by: ca, uris: []string{"spiffe://td/Order-Service"}}, "expected the name of a service", "expected the name of a service"},
		"an upper-case trust domain":   {shown{by: ca, uris: []string{"spiffe://TD/order-service"}}, domain, domain},
		"an upper-case scheme":         {shown{by: ca, uris: []string{"SPIFFE://td/order-service"}}, anyPeer, anyPeer}, // the same URI: net/url writes it in lower case
		"another scheme":               {shown{by: ca, uris: []string{"https://td/order-service"}}, "expected spiffe://", "expected spiffe://"},
		"a query":                      {shown{by: ca, uris: []string{"spiffe://td/order-service?x"}}, pathErr, pathErr},
		"an empty query":               {shown{by: ca, uris: []string{"spiffe://td/order-service?"}}, pathErr, pathErr},
		"a fragment":                   {shown{by: ca, uris: []string{"spiffe://td/order-service#x"}}, pathErr, pathErr},
		"a port":                       {shown{by: ca, uris: []string{"spiffe://td:443/order-service"}}, domain, domain},
		"a user":                       {shown{by: ca, uris: []string{"spiffe://u@td/order-service"}}, domain, domain},
		"no trust domain":              {shown{by: ca, uris: []string{"spiffe:///order-service"}}, domain, domain},
		"RSA 1024":                     {shown{by: ca, uris: own, key: weak}, "RSA key of 1024 bits", "RSA key of 1024 bits"},
		"a CA":                         {shown{by: ca, uris: own, change: func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }}, "is that of a CA", "is that of a CA"},
		"one that may sign":            {shown{by: ca, uris: own, change: func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }}, "is that of a CA", "is that of a CA"},
		"one that may sign revocation": {shown{by: ca, uris: own, change: func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }}, "is that of a CA", "is that of a CA"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cert := tc.shown.make(t)
			i := identityOf(t, ca, "order-service")
			client := named(i.Client())
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
			state, said, _ := meet(t, i.Server(true), client)
			outcome(t, "shown by a client", said, tc.client)
			if err := i.CheckPeer(&state); (err == nil) != (tc.client == anyPeer) {
				t.Errorf("CheckPeer: %v", err)
			}
			_, _, said = meet(t, &tls.Config{Certificates: []tls.Certificate{cert}}, named(i.Client()))
			outcome(t, "shown by a server", said, tc.server)
		})
	}
}

func outcome(t *testing.T, what string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}

func TestServerAsksAndTakesPeersOnly(t *testing.T) {
	t.Parallel()
	ca := authority(t, "td")
	i, caller := identityOf(t, ca, "order-service"), identityOf(t, ca, "user-service")
	plain := named(caller.Client())
	plain.GetClientCertificate = nil
	old := named(caller.Client())
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for name, tc := range map[string]struct {
		ask    bool
		client *tls.Config
		peer   string
		err    string
	}{
		"a peer":                   {true, named(caller.Client()), "user-service", ""},
		"no certificate":           {true, plain, "", ""},
		"TLS 1.2":                  {true, old, "", "unsupported versions"},
		"not asked":                {false, named(caller.Client()), "", ""},
		"not asked, without":       {false, plain, "", ""},
		"not asked, with TLS 1.2":  {false, old, "", "unsupported versions"},
		"another service's client": {true, func() *tls.Config { c := named(caller.Client()); c.ServerName = "user-service"; return c }(), "", "bad certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state, err, _ := meet(t, i.Server(tc.ask), tc.client)
			outcome(t, "server", err, tc.err)
			service, ok := ServiceOf(&state)
			if service != tc.peer || ok != (tc.peer != "") || (i.CheckPeer(&state) == nil) != ok {
				t.Errorf("the peer is %q, %t, CheckPeer %v, want %q", service, ok, i.CheckPeer(&state), tc.peer)
			}
			if err == nil && state.Version != tls.VersionTLS13 {
				t.Errorf("version %x", state.Version)
			}
		})
	}
	if err := i.CheckPeer(nil); !errors.Is(err, errNoPeer) {
		t.Errorf("plain text: %v, want errNoPeer", err)
	}
}

// TestNoTickets: a connection never stands on the certificates of an earlier one.
func TestNoTickets(t *testing.T) {
	t.Parallel()
	ca := authority(t, "td")
	i := identityOf(t, ca, "order-service")
	client := named(i.Client())
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 3 {
		state, serverErr, err := meet(t, i.Server(true), client)
		if serverErr != nil || err != nil || state.DidResume || len(state.PeerCertificates) != 1 {
			t.Errorf("%v, %v, resumed: %t, %d certificates", serverErr, err, state.DidResume, len(state.PeerCertificates))
		}
	}
	if _, ok := client.ClientSessionCache.Get("order-service"); ok {
		t.Error("the server has handed out a ticket")
	}
}

// TestCheckPeerMindsTheCA: a peer is one for as long as its CA is in the file, whatever else is.
func TestCheckPeerMindsTheCA(t *testing.T) {
	t.Parallel()
	ca, next := authority(t, "td"), authority(t, "td")
	i := identityOf(t, ca, "order-service")
	state, err, _ := meet(t, i.Server(true), named(identityOf(t, ca, "order-service").Client()))
	if err != nil {
		t.Fatal(err)
	}
	for n, step := range []struct {
		cas  []*Authority
		good bool
	}{{[]*Authority{ca}, true}, {[]*Authority{next, ca}, true}, {[]*Authority{next}, false}, {[]*Authority{ca, next}, false}} {
		var bundle []byte
		for _, a := range step.cas {
			bundle = append(bundle, pemOf("CERTIFICATE", a.cert.Raw)...)
		}
		own := must(step.cas[0].Issue("order-service", time.Hour))
		if err := errors.Join(replace(i.set.CA, bundle), replace(i.set.Cert, own)); err != nil {
			t.Fatal(err)
		}
		m, err := i.read()
		if err != nil {
			t.Fatal(err)
		}
		i.take(m)
		if err := i.CheckPeer(&state); (err == nil) != step.good || err != nil && !errors.Is(err, errOldPeer) {
			t.Errorf("step %d: %v, want good: %t", n, err, step.good)
		}
	}
}

func TestCheckPeerMindsTheTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := authority(t, "td")
		i := identityOf(t, ca, "order-service")
		leaf := must(x509.ParseCertificate(shown{by: ca, uris: []string{"spiffe://td/a"}}.make(t).Certificate[0]))
		state := &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf, i.current.Load().cas[0]}}}
		for _, step := range []struct {
			wait time.Duration
			good bool
		}{{0, true}, {time.Hour - time.Second, true}, {time.Second, false}} {
			time.Sleep(step.wait)
			if err := i.CheckPeer(state); (err == nil) != step.good {
				t.Errorf("after %v: %v, want good: %t", step.wait, err, step.good)
			}
		}
	})
}

func TestHTTP2IsOffered(t *testing.T) {
	t.Parallel()
	i := identityOf(t, authority(t, "td"), "order-service")
	config, err := i.Server(true).GetConfigForClient(nil)
	if err != nil || !slices.Contains(config.NextProtos, "h2") {
		t.Errorf("%v, %v", config.NextProtos, err)
	}
}
