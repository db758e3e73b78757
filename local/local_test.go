package local_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/local"
	"github.com/kaptar/kaptar/messaging"
)

// freeAddress is one of loopback that is this test's own, whether it listens there or not.
func freeAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprint("127.0.0.1:", servertest.Port(t))
}

// listens reports whether a NATS server answers; other programs may take the port meanwhile.
func listens(address string) bool {
	conn, err := net.Dial("tcp", address) // which loopback answers at once, either way
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	hello := make([]byte, len("INFO "))
	_, err = io.ReadFull(conn, hello)
	return err == nil && string(hello) == "INFO "
}

// A section more needs a line in importOf of package config, and one in its test in package kaptar.
func TestSections(t *testing.T) {
	t.Parallel()
	keys, err := config.Keys(config.Sections("")...)
	if err != nil {
		t.Fatal(err)
	}
	top := map[string]bool{}
	for _, k := range keys {
		name, _, _ := strings.Cut(k.Name, ".")
		top[name] = true
	}
	got, want := slices.Sorted(maps.Keys(top)), []string{"auth", "broker_url", "dead_letters", "inbox", "otel", "outbox", "redis_host", "redis_url", "saga", "topics"}
	if !slices.Equal(got, want) {
		t.Errorf("keys of the sections of the toolkit's packages: got %q, want %q", got, want)
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	given := config.Sources{File: "config.yml", Env: []string{"A=b"}, Flags: map[string]string{"debug": "true"}, Defaults: map[string]string{
		"log_format": "text", "services.plain.database_url": "sqlite:mine.db"}}
	services := []kaptar.Service{
		{Name: "user", Listen: ":8081", GRPCListen: ":50051"},
		{Name: "bank", Listen: "192.0.2.1:8090"},
		{Name: "plain"},
		{Name: "other"},
	}
	for split, registry := range map[bool]string{false: "", true: "nats://kaptar:password@127.0.0.1:1"} {
		got, err := local.SourcesOf(&local.Options{Dir: "d", NATSListen: "127.0.0.1:1", Split: split}, given, services)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{
			"log_format":                 "text",
			"broker_url":                 "nats://kaptar:password@127.0.0.1:1?atomic=true",
			"redis_host":                 "",
			"services.user.database_url": "sqlite:d/user.db", "services.user.listen": "127.0.0.1:8081", "services.user.grpc_listen": "127.0.0.1:50051",
			"services.bank.database_url": "sqlite:d/bank.db", "services.bank.grpc_listen": "127.0.0.1:50052",
			"services.plain.database_url": "sqlite:mine.db", "services.plain.listen": "127.0.0.1:8080", "services.plain.grpc_listen": "127.0.0.1:50053",
			"services.other.database_url": "sqlite:d/other.db", "services.other.listen": "127.0.0.1:8082", "services.other.grpc_listen": "127.0.0.1:50054",
		}
		if registry != "" {
			want["discovery_url"] = registry
		}
		if !maps.Equal(got.Defaults, want) {
			t.Errorf("split %v: defaults:\ngot  %v\nwant %v", split, got.Defaults, want)
		}
		if got.DefaultsOrigin != "local" || got.DotEnv != "" || got.File != "config.yml" || len(got.Env) != 1 || len(got.Flags) != 1 {
			t.Errorf("sources: got %+v, want the given ones, no .env and the origin local", got)
		}
	}
	if len(given.Defaults) != 2 {
		t.Errorf("the given defaults were changed to %v", given.Defaults)
	}
}

// TestSourcesBeside: a command uses the broker, the password and the keys of the program that runs in the directory, and leaves no
// directory behind where there is none.
func TestSourcesBeside(t *testing.T) {
	t.Parallel()
	opts := &local.Options{Dir: t.TempDir(), NATSListen: "127.0.0.1:0"}
	_, stop := start(t, opts, writer(func() {}))
	text, err := os.ReadFile(filepath.Join(opts.Dir, "broker.url"))
	if err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"while it runs", "afterwards"} {
		got, err := local.BesideOf(&local.Options{Dir: opts.Dir, NATSListen: local.DefaultNATSListen}, config.Sources{}, []kaptar.Service{{Name: "a"}})
		if want := strings.TrimSpace(string(text)) + "?atomic=true"; err != nil || got.Defaults["broker_url"] != want {
			t.Errorf("%s: broker %q, %v, want %q", when, got.Defaults["broker_url"], err, want)
		}
		if want := "sqlite:" + filepath.Join(opts.Dir, "a.db"); got.Defaults["services.a.database_url"] != want || got.Defaults["auth.internal_keys"] == "" {
			t.Errorf("%s: got %v, want the database %s and keys", when, got.Defaults, want)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	none := filepath.Join(t.TempDir(), "none")
	got, err := local.BesideOf(&local.Options{Dir: none, NATSListen: local.DefaultNATSListen}, config.Sources{}, []kaptar.Service{{Name: "a"}})
	if _, missing := os.Stat(none); err != nil || missing == nil || got.Defaults["services.a.database_url"] != "sqlite::memory:" {
		t.Errorf("without a directory: %v, %v, %v, want a database in memory and no directory made", got.Defaults, err, missing)
	}
}

// start runs services on opts until the test ends or stop is called, and returns where they are.
func start(t *testing.T, opts *local.Options, services ...kaptar.Service) (at []discovery.Instance, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan []discovery.Instance, 1), make(chan error, 1)
	opts.Log = t.Output()
	opts.Ready = func(all []discovery.Instance) { ready <- all }
	go func() { done <- local.Run(ctx, opts, services...) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	select {
	case at = <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("Run ended before it was ready: %v", err)
	}
	return at, stop
}

// idle is a service that does nothing, on a free port.
func idle(name string) kaptar.Service {
	return kaptar.Service{Name: name, Listen: "127.0.0.1:0", Setup: func(*kaptar.App) error { return nil }}
}

func with(values map[string]string) kaptar.Options {
	return kaptar.Options{Sources: config.Sources{Flags: values}}
}

func TestRunErrors(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	noStore := t.TempDir()
	if err := os.WriteFile(filepath.Join(noStore, "nats"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		dir, listen string
		want        []string
	}{
		"no port":             {t.TempDir(), "localhost", []string{"--nats-listen localhost", "host:port"}},
		"port taken":          {t.TempDir(), taken.Addr().String(), []string{taken.Addr().String(), "already in use", "--nats-listen"}},
		"port too big":        {t.TempDir(), "127.0.0.1:70000", []string{"--nats-listen 127.0.0.1:70000", "1 to 65535"}},
		"port is a name":      {t.TempDir(), "127.0.0.1:nats", []string{"--nats-listen 127.0.0.1:nats", `"nats"`}},
		"directory is a file": {file, freeAddress(t), []string{file, "--data-dir"}},
		"store is a file":     {noStore, freeAddress(t), []string{"did not start", filepath.Join(noStore, "nats")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			err := local.Run(t.Context(), &local.Options{Dir: test.dir, NATSListen: test.listen, Options: kaptar.Options{Log: t.Output()}}, writer(nil))
			if err == nil {
				t.Fatalf("Run = nil, want an error with %q", test.want)
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("Run = %v, want %q in it", err, part)
				}
			}
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("Run failed after %v, want it soon", took)
			}
			if test.dir == file {
				return
			}
			// What failed must not keep the directory.
			_, stop := start(t, &local.Options{Dir: test.dir, NATSListen: "127.0.0.1:0", Options: with(map[string]string{"broker_url": "nats://elsewhere:1"})}, idle("a"))
			if err := stop(); err != nil {
				t.Errorf("Run after the failed one: %v", err)
			}
		})
	}
}

func TestNoServices(t *testing.T) {
	t.Parallel()
	if err := local.Run(t.Context(), &local.Options{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "no service") {
		t.Errorf("Run without services = %v, want an error that says so", err)
	}
}

func TestDirectoryIsForOneProgram(t *testing.T) {
	t.Parallel()
	opts := local.Options{Dir: filepath.Join(t.TempDir(), "new", "dir"), NATSListen: "127.0.0.1:0"}
	one := opts
	_, stop := start(t, &one, idle("a"))
	two := opts
	err := local.Run(t.Context(), &two, idle("a"))
	for _, part := range []string{opts.Dir, fmt.Sprintf("process %d:", os.Getpid()), "--data-dir"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("Run in a directory in use: got %v, want an error with %q", err, part)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	three := opts
	start(t, &three, idle("a"))
}

// writer publishes one event and calls done.
func writer(done func()) kaptar.Service {
	return kaptar.Service{Name: "writer", Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) error {
		pub, err := messaging.NewPublisher(app, notes)
		if err != nil {
			return err
		}
		app.Go("write", func(ctx context.Context) error {
			defer done()
			return pub.PublishNow(ctx, "k", note{N: 7})
		})
		return nil
	}}
}

func TestBrokerRunsOnlyWhenUsed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		settings map[string]string
		service  kaptar.Service
		want     bool
	}{
		"by nobody":     {nil, idle("a"), false},
		"for events":    {nil, writer(func() {}), true},
		"for discovery": {map[string]string{"discovery_url": "own"}, idle("a"), true},
	} {
		opts := &local.Options{Dir: t.TempDir(), NATSListen: freeAddress(t), Options: with(test.settings)}
		if _, ok := test.settings["discovery_url"]; ok {
			const password = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
			test.settings["discovery_url"] = "nats://kaptar:" + password + "@" + opts.NATSListen + "?ttl=5s"
			if err := os.WriteFile(filepath.Join(opts.Dir, "broker.url"), []byte("nats://kaptar:"+password+"@elsewhere:1\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var screen bytes.Buffer
		opts.Screen = &screen
		_, stop := start(t, opts, test.service)
		if got := listens(opts.NATSListen); got != test.want {
			t.Errorf("used %s a broker listens: got %v, want %v", name, got, test.want)
		}
		if got := strings.Contains(screen.String(), opts.NATSListen); got != test.want {
			t.Errorf("used %s the screen tells of a broker: got %v, want %v", name, got, test.want)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if listens(opts.NATSListen) {
			t.Errorf("the broker still listens on %s after its stop", opts.NATSListen)
		}
	}
}

func TestScreen(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer // its columns are as wide as an address with a port of five digits
	opts := &local.Options{Dir: t.TempDir(), NATSListen: "127.0.0.1:0", Screen: &got}
	at, _ := start(t, opts, idle("gateway"), writer(func() {}))
	_, broker, _ := strings.Cut(got.String(), "nats://")
	broker, _, _ = strings.Cut(broker, " ")
	if !listens(broker) {
		t.Errorf("no broker listens on %q", broker)
	}
	want := `
  2 services are ready in one process.

  gateway   http://` + at[0].HTTP + `   
  writer    http://` + at[1].HTTP + `   
  broker    nats://` + broker + `   embedded

  Data is kept in ` + opts.Dir + `. Each service has /livez, /readyz and /metrics.
  The broker asks for a password: other programs join with the URL in ` + filepath.Join(opts.Dir, "broker.url") + `.
  Services ask who is calling. The operator may do everything:
  curl -H "X-Api-Key: $(cat ` + filepath.Join(opts.Dir, "operator.key") + `)" …
  Other users of this machine could read the data directory or files in it (1): now they cannot.
  One process is no fault isolation: this is for development and small deployments.
  Ctrl-C stops gracefully.

`
	if got.String() != want {
		t.Errorf("screen:\ngot  %q\nwant %q", got.String(), want)
	}
}

type note struct{ N int }

var notes = messaging.Topic[note]{Name: "notes"}

func TestEventsOutliveTheProgram(t *testing.T) {
	t.Parallel()
	opts := local.Options{Dir: t.TempDir(), NATSListen: freeAddress(t)}
	one, two := opts, opts
	written := make(chan struct{})
	_, stop := start(t, &one, writer(func() { close(written) }))
	<-written
	if err := stop(); err != nil {
		t.Error(err)
	}
	got := make(chan int, 10)
	_, stop = start(t, &two, kaptar.Service{Name: "reader", Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) error {
		return messaging.SubscribeAutoAck(app, notes, func(_ context.Context, e messaging.Event[note]) error {
			got <- e.Data.N
			return nil
		}, nil)
	}})
	select {
	case n := <-got:
		if n != 7 {
			t.Errorf("the event of the first run came as %d in the second, want 7", n)
		}
	case <-time.After(time.Minute):
		t.Error("the event of the first run did not come in the second")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	opts := &local.Options{Dir: t.TempDir(), NATSListen: freeAddress(t), Options: kaptar.Options{Log: t.Output()}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := local.Run(ctx, opts, idle("a")); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Run with an ended context: got %v, want %v", err, context.Canceled)
	}
	if listens(opts.NATSListen) {
		t.Error("the broker still listens")
	}
}
