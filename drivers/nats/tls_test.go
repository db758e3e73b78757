package nats_test

import (
	"crypto/x509"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

// TestTLS also has the server come back with certificates of another authority: a program whose
// files change with it goes on.
func TestTLS(t *testing.T) {
	t.Parallel()
	a, other := servertest.NewAuthority(t), servertest.NewAuthority(t)
	s, plain := servertest.Start(t, servers.NATS, servers.Options{TLS: a.Dir}), servertest.Start(t, servers.NATS)
	const user, secret = "nats://kaptar:s3cr3t@", "tls://kaptar:Secret2@"
	ca := "?ca=" + a.File("ca.pem")
	a.Issue("expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	a.Issue("elsewhere", func(c *x509.Certificate) { c.IPAddresses = nil })
	greet := func(conn net.Conn) error {
		_, err := io.WriteString(conn, `INFO {"server_id":"s","max_payload":1024,"headers":true,"tls_required":true}`+"\r\n")
		return err
	}
	for name, c := range map[string]struct{ url, want string }{
		"another authority":       {user + s.Addr("") + "?ca=" + other.File("ca.pem"), "name the authority's with the parameter ca"},
		"system's authority":      {user + s.Addr("") + "?tls=true", "name the authority's with the parameter ca"},
		"expired":                 {user + a.Serve("expired", greet) + ca, "certificate has expired or is not valid yet"},
		"another host":            {user + a.Serve("elsewhere", greet) + ca, "certificate is for another host"},
		"TLS to a plain port":     {user + plain.Addr("") + ca, "the server has no TLS"},
		"plain to a TLS port":     {user + s.Addr(""), "name the authority's with the parameter ca"}, // the client turns to TLS when asked
		"no client's certificate": {user + s.Addr("") + ca, "the parameters cert and key"},
		"client's of another":     {user + s.Addr("") + ca + "&cert=" + other.File("client.pem") + "&key=" + other.File("client.pem"), "the parameters cert and key"},
		"wrong password":          {secret + s.Addr("") + "?" + a.Query(), "password, token or creds is wrong"},
		"no file":                 {user + s.Addr("") + "?ca=/no/file", "ca: open /no/file: no such file"},
		"no key":                  {user + s.Addr("") + "?cert=" + a.File("client.pem"), "one of them is missing, expected both"},
		"no TLS":                  {user + "h?tls=false&" + a.Query(), "parameters ca, cert and key are for TLS: expected no tls=false"},
		"no credentials":          {"nats://h?creds=/no/file", "creds: stat /no/file: no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := openBroker(t.Context(), c.url, nil)
			if err == nil {
				closeNow(t, b)
				t.Fatal("Open = nil error, want one")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "Secret2") || strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("Open = %v, want %q and no password", err, c.want)
			}
			t.Log(err)
		})
	}
	for _, scheme := range []string{"nats://", "tls://"} {
		b := open(t, strings.Replace(s.URL(), "nats://", scheme, 1))
		defer closeNow(t, b)
		if err := b.Publish(t.Context(), messages("t", "before", 1)); err != nil {
			t.Fatal(err)
		}
		a.Renew()
		must(t, s.Restart(t.Context()))
		until(t, "a message after the restart", func() bool { return b.Publish(t.Context(), messages("t", "after", 1)) == nil })
	}
}

// TestCreds logs in at a server that knows its users by the signature of an operator. The fixtures
// are of an operator that nobody has the keys of any more.
func TestCreds(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(o *server.Options) { must(t, o.ProcessConfigFile("testdata/operator.conf")) })
	b := open(t, s.s.ClientURL()+"?creds=testdata/ada.creds")
	defer closeNow(t, b)
	if err := b.Publish(t.Context(), messages("t", "m", 1)); err != nil {
		t.Errorf("Publish with the file of a user: %v", err)
	}
	if _, err := openBroker(t.Context(), s.s.ClientURL(), nil); err == nil || !strings.Contains(err.Error(), "password, token or creds is wrong") {
		t.Errorf("Open without it: %v, want an error that says what is missing", err)
	}
}
