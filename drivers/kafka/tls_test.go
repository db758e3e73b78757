package kafka_test

import (
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/drivers/kafka"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
)

// secured starts a broker whose address "sasl" takes ada by TLS.
func secured(t *testing.T, a *servertest.Authority) *servers.Server {
	t.Helper()
	return servertest.Start(t, servers.Kafka, servers.Options{TLS: a.Dir, Logins: map[string]string{"ada": rightPassword}})
}

// TestTLS also has the broker come back with certificates of another authority: a program whose
// files change with it goes on.
func TestTLS(t *testing.T) {
	t.Parallel()
	a, other := servertest.NewAuthority(t), servertest.NewAuthority(t)
	s := secured(t, a)
	host := s.Addr("sasl")
	_, port, _ := net.SplitHostPort(host)
	ada, ca := "kafka://ada:"+rightPassword+"@", "?ca="+a.File("ca.pem")
	a.Issue("expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	a.Issue("elsewhere", func(c *x509.Certificate) { c.IPAddresses = nil })
	for _, sasl := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		login(t, ada+host+"?sasl="+sasl+"&"+a.Query(), sasl)
	}
	for name, c := range map[string]struct{ url, want string }{
		"another authority":       {ada + host + "?ca=" + other.File("ca.pem"), "name the authority's with the parameter ca"},
		"system's authority":      {ada + host + "?tls=true", "name the authority's with the parameter ca"},
		"expired":                 {ada + a.Serve("expired", nil) + ca, "certificate has expired or is not valid yet"},
		"another host":            {ada + a.Serve("elsewhere", nil) + ca, "certificate is for another host"},
		"TLS to a plain port":     {ada + s.Addr("") + ca, "no TLS is spoken at that port"},
		"plain to a TLS port":     {ada + host, "that port wants TLS: add the parameter tls=true"},
		"no client's certificate": {ada + host + ca, "the parameters cert and key"},
		"client's of another":     {ada + host + ca + "&cert=" + other.File("client.pem") + "&key=" + other.File("client.pem"), "the parameters cert and key"},
		"wrong password":          {"kafka://ada:" + wrongPassword + "@localhost:" + port + "?" + a.Query(), `user "ada" or its password is wrong`},
		"wrong password, scram":   {"kafka://ada:" + wrongPassword + "@" + host + "?sasl=scram-sha-512&" + a.Query(), `user "ada" or its password is wrong`},
		"no file":                 {ada + host + "?ca=/no/file", "ca: open /no/file: no such file"},
		"no key":                  {ada + host + "?cert=" + a.File("client.pem"), "one of them is missing, expected both"},
		"no TLS":                  {ada + host + "?tls=false&" + a.Query(), "expected no tls=false"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := kafka.Open(t.Context(), c.url, nil)
			if err == nil {
				closeNow(t, b)
				t.Fatal("Open = nil error, want one")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), wrongPassword) || strings.Contains(err.Error(), rightPassword) {
				t.Errorf("Open = %v, want %q and no password", err, c.want)
			}
			t.Log(err)
		})
	}
	b := open(t, ada+host+"?"+a.Query())
	defer closeNow(t, b)
	got, _ := start(t, b, driver.Subscription{Topic: "scram-sha-512", Group: "g", From: driver.FromBeginning})
	ack(t, next(t, got))
	a.Renew()
	restart(t, s)
	until(t, "a message after the restart", func() bool { return b.Publish(t.Context(), messages("scram-sha-512", "n", 1)) == nil })
	ack(t, next(t, got))
}
