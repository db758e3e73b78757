package tlsfiles_test

import (
	"crypto/tls"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/internal/params"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/tlsfiles"
)

func TestExposed(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]bool{
		"nats://ada:pw@h:4222":                          true,
		"nats://token@h":                                true,
		"nats://ada:pw@127.0.0.1:4222,h:4222":           true,
		"nats://ada:pw@127.0.0.1:4222,[::1]:4222":       false,
		"nats://h:4222":                                 false,
		"tls://ada:pw@h:4222":                           false,
		"nats://ada:pw@h?tls=true":                      false,
		"nats://ada:pw@h?tls=false":                     true,
		"nats://ada:pw@h?ca=f":                          false,
		"kafka://ada:pw@h1:9092,h2:9092?sasl=plain":     true,
		"kafka://ada:pw@h1:9092,h2:9092?tls=1":          false,
		"amqp://guest:guest@localhost:5672/v":           false,
		"amqp://guest:guest@rabbitmq:5672/v":            true,
		"amqps://guest:guest@rabbitmq/v":                false,
		"redis://:pw@[2001:db8::1]:6379/0":              true,
		"rediss://:pw@10.0.0.1":                         false,
		"consul://t@consul":                             true,
		"consul://consul?token_file=f":                  true,
		"consul://consul?token_file=f&ca=f":             false,
		"kubernetes://default?token_file=f":             false,
		"postgres://ada:pw@db/x":                        true, // prefer
		"postgres://ada@db/x?sslmode=disable":           true,
		"postgresql://db/x?sslmode=require":             true,
		"postgres://ada:pw@db/x?sslmode=verify-full":    false,
		"postgres://ada:pw@db/x?sslrootcert=system":     false,
		"postgres://ada:pw@127.0.0.1/x?sslmode=disable": false,
		"postgres:///x?host=/run/postgresql&user=ada":   false,
		"postgres:///x?host=db&user=ada":                true,
		"sqlite:shop.db":                                false,
		"":                                              false,
	} {
		if got := tlsfiles.Exposed(url); got != want {
			t.Errorf("Exposed(%q) = %v, want %v", url, got, want)
		}
	}
}

// TestDial: the server's certificate is verified, for the host of the address, at every connection
// and with the files as they are then.
func TestDial(t *testing.T) {
	t.Parallel()
	a, other := servertest.NewAuthority(t), servertest.NewAuthority(t)
	files := tlsfiles.Files{On: true, CA: a.File("ca.pem")}
	dial := func(address string) error {
		conn, err := files.Dial(t.Context(), "tcp", address)
		if err != nil {
			return err
		}
		if state := conn.(interface{ ConnectionState() tls.ConnectionState }).ConnectionState(); state.Version != tls.VersionTLS13 {
			t.Errorf("TLS version %#x, want 1.3", state.Version)
		}
		return conn.Close()
	}
	good, bad := a.Serve("server", nil), other.Serve("server", nil)
	if err := dial(good); err != nil {
		t.Errorf("a good server: %v", err)
	}
	if err := dial(strings.Replace(good, "127.0.0.1", "localhost", 1)); err != nil {
		t.Errorf("a good server by another of its names: %v", err)
	}
	if err := dial(bad); !explained(err) {
		t.Errorf("a server of another authority: %v, want an error that Explain knows", err)
	}
	text, err := os.ReadFile(other.File("ca.pem"))
	if err == nil {
		err = os.WriteFile(files.CA, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := dial(bad); err != nil {
		t.Errorf("the other server with the other authority in the file: %v", err)
	}
	if err := dial(good); !explained(err) {
		t.Errorf("the first server then: %v, want an error that Explain knows", err)
	}
	if err := os.Remove(files.CA); err != nil {
		t.Fatal(err)
	}
	if err := dial(good); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the file: %v, want that it is missing", err)
	}
}

func explained(err error) bool { return tlsfiles.Explain(err) != err }

func TestParameters(t *testing.T) {
	t.Parallel()
	var f tlsfiles.Files
	if config, err := f.Config(); config != nil || err != nil {
		t.Errorf("Config of the zero value = %v, %v, want nil", config, err)
	}
	a := servertest.NewAuthority(t)
	err := params.Read(a.Query(), f.Parameters(map[string]params.Param{"other": nil}))
	if want := (tlsfiles.Files{On: true, CA: a.File("ca.pem"), Cert: a.File("client.pem"), Key: a.File("client.pem")}); err != nil || f != want {
		t.Fatalf("Read = %+v, %v, want %+v", f, err, want)
	}
	config, err := f.Config()
	if err != nil || config.RootCAs == nil || len(config.Certificates) != 1 || config.MinVersion != tls.VersionTLS12 {
		t.Errorf("Config = %+v, %v, want an authority, a certificate and TLS 1.2 at least", config, err)
	}
	f.Key = a.File("server.pem")
	if err := f.Check(""); err == nil || !strings.Contains(err.Error(), "server.pem: expected a certificate and its key in PEM") {
		t.Errorf("Check with another key: %v, want that they are no pair", err)
	}
	if err := params.Read("ca=", f.Parameters(map[string]params.Param{})); err == nil || !strings.Contains(err.Error(), "the name of a file in PEM") {
		t.Errorf("Read of an empty name: %v, want what is expected", err)
	}
}
