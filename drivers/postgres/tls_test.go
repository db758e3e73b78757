package postgres_test

import (
	"crypto/x509"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/sqldb"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// TestTLS also has the server come back with certificates of another authority: a program whose
// files change with it goes on.
func TestTLS(t *testing.T) {
	t.Parallel()
	a, other := servertest.NewAuthority(t), servertest.NewAuthority(t)
	s, plain := servertest.Start(t, servers.Postgres, servers.Options{TLS: a.Dir}), servertest.Shared(t, servers.Postgres)
	const user, secret, db = "postgres://postgres:postgres@", "postgres://postgres:Secret2@", "/postgres?sslmode="
	full, client := "verify-full&sslrootcert="+a.File("ca.pem"), "&sslcert="+a.File("client.pem")+"&sslkey="+a.File("client.pem")
	a.Issue("expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	a.Issue("elsewhere", func(c *x509.Certificate) { c.IPAddresses = nil })
	greet := func(conn net.Conn) error {
		if _, err := io.ReadFull(conn, make([]byte, 8)); err != nil { // asks for TLS
			return err
		}
		_, err := io.WriteString(conn, "S")
		return err
	}
	for name, c := range map[string]struct{ url, want string }{
		"another authority":       {user + s.Addr("") + db + "verify-full&sslrootcert=" + other.File("ca.pem") + client, "name the authority's with sslrootcert"},
		"system's authority":      {user + s.Addr("") + db + "verify-full" + client, "name the authority's with sslrootcert"},
		"expired":                 {user + a.Serve("expired", greet) + db + full, "certificate has expired or is not valid yet"},
		"another host":            {user + a.Serve("elsewhere", greet) + db + full, "certificate is for another host"},
		"TLS to a plain port":     {user + plain.Addr("") + db + full, "no TLS is spoken at that port"},
		"plain to a TLS port":     {user + s.Addr("") + db + "disable", "add sslmode=verify-full&sslrootcert=FILE"},
		"no client's certificate": {user + s.Addr("") + db + full, "sslcert and sslkey"},
		"client's of another":     {user + s.Addr("") + db + full + "&sslcert=" + other.File("client.pem") + "&sslkey=" + other.File("client.pem"), "sslcert and sslkey"},
		"wrong password":          {secret + s.Addr("") + db + full + client, "the user or its password is wrong"},
		"no file":                 {user + s.Addr("") + db + "verify-full&sslrootcert=/no/file", "open /no/file: no such file"},
		"no key":                  {user + s.Addr("") + db + "verify-full&sslcert=" + a.File("client.pem"), "sslkey"},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := sqldb.Open(t.Context(), c.url)
			if err == nil {
				_ = db.Close()
				t.Fatal("Open = nil error, want one")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "Secret2") || strings.Contains(err.Error(), ":postgres@") {
				t.Errorf("Open = %v, want %q and no password", err, c.want)
			}
			t.Log(err)
		})
	}
	pool, err := sqldb.Open(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, when := range []string{"before", "after"} {
		version, err := "", io.EOF
		for tries := 0; tries < 10 && err != nil; tries++ { // the pool has connections of before
			err = pool.QueryRowContext(t.Context(), "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&version)
		}
		if err != nil || version != "TLSv1.3" {
			t.Errorf("TLS %s the certificates changed: %q, %v, want TLSv1.3", when, version, err)
		}
		if when == "before" {
			a.Renew()
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}
