package rabbitmq_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/drivers/rabbitmq"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
)

// TestTLS also has the server come back with certificates of another authority: a program whose
// files change with it goes on.
func TestTLS(t *testing.T) {
	t.Parallel()
	a, other := servertest.NewAuthority(t), servertest.NewAuthority(t)
	s, plain := servertest.Start(t, servers.RabbitMQ, servers.Options{TLS: a.Dir}), servertest.Shared(t, servers.RabbitMQ)
	const guest, secret = "amqps://guest:guest@", "amqps://guest:Secret2@"
	ca := "?ca=" + a.File("ca.pem")
	a.Issue("expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	a.Issue("elsewhere", func(c *x509.Certificate) { c.IPAddresses = nil })
	for name, c := range map[string]struct{ url, want string }{
		"another authority":       {guest + s.Addr("") + "?ca=" + other.File("ca.pem"), "name the authority's with the parameter ca"},
		"system's authority":      {guest + s.Addr(""), "name the authority's with the parameter ca"},
		"expired":                 {guest + a.Serve("expired", nil) + ca, "certificate has expired or is not valid yet"},
		"another host":            {guest + a.Serve("elsewhere", nil) + ca, "certificate is for another host"},
		"TLS to a plain port":     {guest + plain.Addr("") + ca, "no TLS is spoken at that port"},
		"plain to a TLS port":     {"amqp://guest:guest@" + s.Addr(""), "amqps://"},
		"no client's certificate": {guest + s.Addr("") + ca, "the parameters cert and key"},
		"client's of another":     {guest + s.Addr("") + ca + "&cert=" + other.File("client.pem") + "&key=" + other.File("client.pem"), "the parameters cert and key"},
		"wrong password":          {secret + s.Addr("") + "?" + a.Query(), `the user "guest" or its password is wrong`},
		"wrong virtual host":      {guest + s.Addr("") + "/v?" + a.Query(), `the virtual host "v" does not exist`},
		"no file":                 {guest + s.Addr("") + "?ca=/no/file", "ca: open /no/file: no such file"},
		"no key":                  {guest + s.Addr("") + "?cert=" + a.File("client.pem"), "one of them is missing, expected both"},
		"no TLS":                  {"amqp://h?" + a.Query(), "parameters ca, cert and key are for TLS: expected amqps://"},
		"no check":                {guest + "h?verify=verify_none", `unknown parameter "verify"`},
	} {
		t.Run(name, func(t *testing.T) {
			tries := 1
			if strings.HasSuffix(c.want, "cert and key") {
				tries = 50 // a refused certificate is told before the first word or after it
			}
			for range tries {
				b, err := rabbitmq.Open(t.Context(), c.url, nil)
				if err == nil {
					closeNow(t, b)
					t.Fatal("Open = nil error, want one")
				}
				if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "Secret2") || strings.Contains(err.Error(), ":guest@") {
					t.Fatalf("Open = %v, want %q and no password", err, c.want)
				}
			}
		})
	}
	b := open(t, s.URL(), options())
	defer closeNow(t, b)
	m := join(t, b, driver.Subscription{Topic: "t", Group: "g", MaxInFlight: 1})
	for _, id := range []string{"before", "after"} {
		until(t, "a message "+id+" the restart", func() bool { return b.Publish(t.Context(), messages("t", id, 1)) == nil })
		d := m.next(t)
		for d.ID != id+"0" { // the one before may come again
			_ = d.Ack(t.Context())
			d = m.next(t)
		}
		if err := d.Ack(t.Context()); err != nil {
			t.Errorf("Ack %s the restart: %v", id, err)
		}
		if id == "before" {
			a.Renew()
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}
