package servers_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

func ExampleStart() {
	_ = func(ctx context.Context) error {
		s, err := servers.Start(ctx, servers.Redis, nil)
		if err != nil {
			return err
		}
		_ = s.URL() // redis://127.0.0.1:…
		return s.Close()
	}
	// Output:
}

func TestMain(m *testing.M) { servertest.Main(m) }

func TestParse(t *testing.T) {
	t.Parallel()
	for _, e := range servers.Engines() {
		if got, err := servers.Parse(string(e)); got != e || err != nil {
			t.Errorf("Parse(%q) = %q, %v", e, got, err)
		}
		if servers.UsualPorts(e)[""] == 0 {
			t.Errorf("UsualPorts(%q) = %v, want one for the empty name", e, servers.UsualPorts(e))
		}
	}
	if _, err := servers.Parse("mysql"); err == nil || !strings.Contains(err.Error(), `"mysql", want one of postgres, kafka, rabbitmq, nats, consul, redis, prometheus, jaeger, victorialogs, kubernetes`) {
		t.Errorf("Parse of an unknown engine = %v, want an error with those that are known", err)
	}
	if _, err := servers.Start(t.Context(), "mysql", nil); err == nil || errors.Is(err, servers.ErrMissing) {
		t.Errorf("Start of an unknown engine = %v, want an error that is not ErrMissing", err)
	}
}

// TestLogins: Kafka has an address for clients that log in, and only when it was given some.
func TestLogins(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servers.Kafka, servers.Options{Logins: map[string]string{"ada": "right"}})
	for password, want := range map[string]error{"right": nil, "wrong": kerr.SaslAuthenticationFailed} {
		cl, err := kgo.NewClient(kgo.SeedBrokers(s.Addr("sasl")), kgo.SASL(plain.Auth{User: "ada", Pass: password}.AsMechanism()))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if _, err := cl.SeedBrokers()[0].Request(t.Context(), kmsg.NewPtrMetadataRequest()); !errors.Is(err, want) {
			t.Errorf("a client with the %s password got %v, want %v", password, err, want)
		}
	}
	if got := s.Names(); !slices.Equal(got, []string{"sasl"}) {
		t.Errorf("Names with Logins = %q, want sasl", got)
	}
	given, err := servers.At(servers.Kafka, "kafka://127.0.0.1:9092")
	if err != nil {
		t.Fatal(err)
	}
	if got := given.Addr("sasl"); got != "" || len(given.Names()) > 0 || len(servers.UsualPorts(servers.Kafka)) != 1 {
		t.Errorf("without Logins: Addr = %q, Names = %q, UsualPorts = %v, want none but the address of URL", got, given.Names(), servers.UsualPorts(servers.Kafka))
	}
}

func TestPause(t *testing.T) {
	t.Parallel()
	for _, e := range []servers.Engine{servers.Redis, servers.Postgres, servers.NATS, servers.Kubernetes} {
		t.Run(string(e), func(t *testing.T) {
			t.Parallel()
			s := servertest.Start(t, e)
			use := uses()[e]
			if err := use.write(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			var session *pgx.Conn // has a process of its own
			if e == servers.Postgres {
				var err error
				if session, err = pgx.Connect(t.Context(), s.URL()); err != nil {
					t.Fatal(err)
				}
				defer session.Close(context.Background())
			}
			if err := s.Pause(); err != nil {
				t.Fatalf("Pause = %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			conn, err := net.Dial("tcp", s.Addr("")) // the system accepts for it
			if err != nil {
				t.Errorf("a paused server refuses connections: %v", err)
			} else {
				_ = conn.Close()
			}
			if got, err := use.read(ctx, s); err == nil {
				t.Errorf("a paused server answers %q", got)
			}
			if session != nil {
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				if session.Ping(ctx) == nil {
					t.Error("a paused server answers in a session that was open")
				}
			}
			if err := s.Resume(); err != nil {
				t.Fatalf("Resume = %v", err)
			}
			if got, err := use.read(t.Context(), s); err != nil || got != "value" {
				t.Errorf("after Resume it has %q, %v", got, err)
			}
			if err := s.Pause(); err != nil {
				t.Fatal(err)
			}
			if err := s.Kill(); err != nil {
				t.Errorf("Kill of a paused server = %v", err)
			}
			if left := servers.Belonging(s.Dir()); len(left) != helpers(e) {
				t.Errorf("after Kill of a paused server the processes %v are there, want %d", left, helpers(e))
			}
			if err := errors.Join(s.Restart(t.Context()), s.Pause()); err != nil { // Close ends a paused one too
				t.Fatal(err)
			}
		})
	}
}

// reachable returns a folder that servers of another user can reach.
func reachable(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDir: a folder of the caller's stays, with data and ports.
func TestDir(t *testing.T) {
	t.Parallel()
	for _, e := range []servers.Engine{servers.Redis, servers.Postgres, servers.NATS, servers.Consul, servers.Kubernetes} {
		t.Run(string(e), func(t *testing.T) {
			t.Parallel()
			opts := servers.Options{Dir: filepath.Join(reachable(t), "data")}
			s := servertest.Start(t, e, opts)
			use, url := uses()[e], s.URL()
			if err := use.write(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			if err := servers.Idle(opts.Dir); err == nil {
				t.Error("Idle of a folder whose server runs = nil")
			}
			if second, err := servers.Start(t.Context(), e, &opts); err == nil || !strings.Contains(err.Error(), "is taken") {
				t.Errorf("a second Start in the same folder = %v, %v; want that a port is taken", second, err)
			}
			if err := s.Close(); err != nil {
				t.Fatalf("Close = %v", err)
			}
			if err := servers.Idle(opts.Dir); err != nil {
				t.Errorf("Idle after Close = %v", err)
			}
			if s.Restart(t.Context()) == nil || s.Kill() == nil {
				t.Error("Restart and Kill after Close = nil, want errors")
			}
			s = servertest.Start(t, e, opts)
			if got, err := use.read(t.Context(), s); err != nil || got != "value" || s.URL() != url {
				t.Errorf("after Close and Start there is %q, %v at %s; want the value at %s", got, err, s.URL(), url)
			}
		})
	}
}

func TestTemporaryFolderGoes(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servers.Redis)
	for range 2 { // the second does nothing
		if err := s.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
	if _, err := os.Stat(s.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close the folder %s is there: %v", s.Dir(), err)
	}
}

func TestGivenPortIsTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	servertest.Need(t, servers.Redis)
	_, err = servers.Start(t.Context(), servers.Redis, &servers.Options{Port: l.Addr().(*net.TCPAddr).Port})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if err == nil || !strings.Contains(err.Error(), "start redis: port "+port+" on 127.0.0.1 is taken") {
		t.Errorf("Start on a taken port = %v, want an error that names it", err)
	}
}

// TestBadConfig: a server that ends at its start is noticed at once, and says why.
func TestBadConfig(t *testing.T) {
	t.Parallel()
	for e, c := range map[servers.Engine]struct{ config, want string }{
		servers.Redis:      {"no-such-setting 1", "no-such-setting"},
		servers.Postgres:   {"no_such_setting = 1", "no_such_setting"},
		servers.NATS:       {"no_such_setting: 1", "no_such_setting"},
		servers.Consul:     {"no_such_setting = 1", "no_such_setting"},
		servers.Kubernetes: {"--no-such-flag", "no-such-flag"},
	} {
		t.Run(string(e), func(t *testing.T) {
			t.Parallel()
			servertest.Need(t, e)
			begun := time.Now()
			s, err := servers.Start(t.Context(), e, &servers.Options{Config: c.config})
			if err == nil {
				_ = s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "its log:\n") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Start with %q = %v, want the server's log", c.config, err)
			}
			if took := time.Since(begun); took > 45*time.Second {
				t.Errorf("Start of a server that ends at once took %v", took)
			}
		})
	}
}

// TestStartIsCancelled: a caller need not wait.
func TestStartIsCancelled(t *testing.T) {
	t.Parallel()
	servertest.Start(t, servers.Redis)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := servers.Start(ctx, servers.Redis, nil); err == nil {
		_ = s.Close()
		t.Error("Start with a context that has ended = nil")
	}
}

func TestAt(t *testing.T) {
	t.Parallel()
	s, err := servers.At(servers.RabbitMQ, "amqp://guest:guest@broker:1234/x")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"": "broker:1234", "management": "broker:15672", "epmd": "", "other": ""} {
		if got := s.Addr(name); got != want {
			t.Errorf("Addr(%q) = %q, want %q", name, got, want)
		}
	}
	if s.URL() != "amqp://guest:guest@broker:1234/x" || s.Engine() != servers.RabbitMQ {
		t.Errorf("URL = %s, Engine = %s", s.URL(), s.Engine())
	}
	if s.Kill() == nil || s.Restart(t.Context()) == nil || s.Pause() == nil || s.Resume() == nil {
		t.Error("a server that was not started here is killed, restarted or paused without an error")
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	s, err = servers.At(servers.Kubernetes, "kubernetes://default?server=https://cluster:1234")
	if err != nil || s.Addr("") != "cluster:1234" || s.URL() != "kubernetes://default?server=https://cluster:1234" {
		t.Errorf("At of Kubernetes = %v, URL %s, address %s; want the URL that was given, and the address in it", err, s.URL(), s.Addr(""))
	}
	if _, err := servers.At(servers.Kubernetes, "kubernetes://default"); err == nil || !strings.Contains(err.Error(), "?server=https://127.0.0.1:6443") {
		t.Errorf("At of Kubernetes without a server = %v, want an example of a URL", err)
	}
	if _, err := servers.At(servers.Redis, "localhost"); err == nil || !strings.Contains(err.Error(), "redis://127.0.0.1:6379") {
		t.Errorf("At without a host = %v, want an example of a URL", err)
	}
}

func TestInstallWhatIsThere(t *testing.T) {
	t.Parallel()
	servertest.Need(t, servers.Redis)
	var said bytes.Buffer
	if err := servers.Install(t.Context(), &said, "redis"); err != nil || said.Len() > 0 {
		t.Errorf("Install of what is there = %v, %q; want nothing", err, &said)
	}
}

func TestInstallable(t *testing.T) {
	t.Parallel()
	for _, err := range []error{servers.Find("mysql"), servers.Install(t.Context(), io.Discard, "redis", "mysql")} {
		if err == nil || !strings.Contains(err.Error(), `no "mysql", want one of postgres, kafka, `) || !strings.Contains(err.Error(), "python, curl, cc") {
			t.Errorf("an unknown name gives %v, want the known ones", err)
		}
	}
	for _, name := range servers.Installable() {
		if err := servers.Find(name); err != nil && !errors.Is(err, servers.ErrMissing) {
			t.Errorf("Find(%q) = %v, want nil or ErrMissing", name, err)
		}
	}
}
