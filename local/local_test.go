package local_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/local"
	"github.com/kaptar/kaptar/messaging"
)

// given are the ports that freeAddress has returned.
var given sync.Map

// freeAddress is one of loopback that nobody listens on. It is below the range from
// which systems take outgoing connections' ports, so that nobody gets it while a
// test restarts what listens there.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(22000))
		if _, taken := given.LoadOrStore(address, true); taken {
			continue
		}
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port from 10000 to 32000")
	return ""
}

// listens reports whether a NATS server answers; other programs may take the port meanwhile.
func listens(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	hello := make([]byte, len("INFO "))
	_, err = io.ReadFull(conn, hello)
	return err == nil && string(hello) == "INFO "
}

// settingsWith are the settings of one service that uses a broker, and perhaps a registry.
func settingsWith(t *testing.T, broker, registry string) *config.Config {
	t.Helper()
	loaded, err := config.Load(config.Sources{},
		config.Target{Service: "one", Into: &messaging.Settings{BrokerURL: config.Secret(broker)}},
		config.Target{Service: "one", Into: &kaptar.Settings{DiscoveryURL: config.Secret(registry)}},
		config.Target{Service: "two", Into: &messaging.Settings{BrokerURL: "nats://third:1"}})
	if err != nil {
		t.Fatal(err)
	}
	return loaded
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
	got, want := slices.Sorted(maps.Keys(top)), []string{"broker_url", "otel", "redis_host", "redis_url", "topics"}
	if !slices.Equal(got, want) {
		t.Errorf("keys of the sections of the toolkit's packages: got %q, want %q", got, want)
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		engine   *local.Engine
		args     []string
		dir, own string
	}{
		{new(local.Engine), nil, ".kaptar", "127.0.0.1:4222"},
		{new(local.Engine), []string{"--data-dir=d", "--nats-listen", "127.0.0.1:1"}, "d", "127.0.0.1:1"},
		{&local.Engine{Dir: "mine", NATSListen: "[::1]:2"}, nil, "mine", "[::1]:2"},
	} {
		set := pflag.NewFlagSet("test", pflag.ContinueOnError)
		test.engine.Flags(set)
		if err := set.Parse(test.args); err != nil {
			t.Fatal(err)
		}
		if test.engine.Dir != test.dir || test.engine.NATSListen != test.own {
			t.Errorf("flags %q: got %s and %s, want %s and %s", test.args, test.engine.Dir, test.engine.NATSListen, test.dir, test.own)
		}
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	given := config.Sources{File: "config.yml", Env: []string{"A=b"}, Flags: map[string]string{"debug": "true"}, Defaults: map[string]string{"log_format": "text"}}
	services := []kaptar.Service{
		{Name: "user", Listen: ":8081", GRPCListen: ":50051"},
		{Name: "bank", Listen: "192.0.2.1:8090"},
		{Name: "plain"},
	}
	got, err := new(local.Engine).Sources(given, services)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"log_format":                 "text",
		"broker_url":                 "nats://127.0.0.1:4222?atomic=true",
		"redis_host":                 "",
		"services.user.database_url": "sqlite:.kaptar/user.db", "services.user.listen": "127.0.0.1:8081", "services.user.grpc_listen": "127.0.0.1:50051",
		"services.bank.database_url": "sqlite:.kaptar/bank.db", "services.bank.grpc_listen": "127.0.0.1:50051",
		"services.plain.database_url": "sqlite:.kaptar/plain.db", "services.plain.listen": "127.0.0.1:8080", "services.plain.grpc_listen": "127.0.0.1:50051",
	}
	if !maps.Equal(got.Defaults, want) {
		t.Errorf("defaults:\ngot  %v\nwant %v", got.Defaults, want)
	}
	for name, e := range map[string]*local.Engine{"split": {Split: true}, "part": partOf(t, "user")} {
		got, err := e.Sources(given, services)
		if err != nil {
			t.Fatal(err)
		}
		want := maps.Clone(want)
		want["discovery_url"] = "nats://127.0.0.1:4222"
		if !maps.Equal(got.Defaults, want) {
			t.Errorf("%s: defaults:\ngot  %v\nwant %v", name, got.Defaults, want)
		}
	}
	if got.DefaultsOrigin != "local" || got.DotEnv != "" || got.File != "config.yml" || len(got.Env) != 1 || len(got.Flags) != 1 {
		t.Errorf("sources: got %+v, want the given ones and the origin local", got)
	}
	if len(given.Defaults) != 1 {
		t.Errorf("the given defaults were changed to %v", given.Defaults)
	}
}

// partOf is the engine in a process that --split has started.
func partOf(t *testing.T, service string) *local.Engine {
	t.Helper()
	e := new(local.Engine)
	set := pflag.NewFlagSet("test", pflag.ContinueOnError)
	e.Flags(set)
	if err := set.Parse([]string{"--split-service", service}); err != nil {
		t.Fatal(err)
	}
	if usage := set.FlagUsages(); strings.Contains(usage, "split-") || !strings.Contains(usage, "--split ") {
		t.Errorf("the flags are shown as\n%s\nwant --split without its inner ones", usage)
	}
	return e
}

func TestSourcesRefuseAnAddressWithoutPort(t *testing.T) {
	t.Parallel()
	_, err := (&local.Engine{NATSListen: "localhost"}).Sources(config.Sources{}, nil)
	if err == nil || !strings.Contains(err.Error(), "--nats-listen localhost") || !strings.Contains(err.Error(), "host:port") {
		t.Errorf("Sources with --nats-listen localhost: got %v, want an error with the flag, its value and host:port", err)
	}
}

func TestPrepareErrors(t *testing.T) {
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
		"port taken":          {t.TempDir(), taken.Addr().String(), []string{taken.Addr().String(), "already in use", "--nats-listen"}},
		"port zero":           {t.TempDir(), "127.0.0.1:0", []string{"--nats-listen 127.0.0.1:0", "1 to 65535"}},
		"port too big":        {t.TempDir(), "127.0.0.1:70000", []string{"--nats-listen 127.0.0.1:70000", "1 to 65535"}},
		"port is a name":      {t.TempDir(), "127.0.0.1:nats", []string{"--nats-listen 127.0.0.1:nats", `"nats"`}},
		"directory is a file": {file, freeAddress(t), []string{file, "--data-dir"}},
		"store is a file":     {noStore, freeAddress(t), []string{"did not start", filepath.Join(noStore, "nats")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			e := &local.Engine{Dir: test.dir, NATSListen: test.listen}
			stop, err := e.Prepare(t.Context(), settingsWith(t, "nats://"+test.listen, ""))
			if err == nil {
				t.Fatalf("Prepare = nil, want an error with %q (%v)", test.want, stop(context.Background()))
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("Prepare = %v, want %q in it", err, part)
				}
			}
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("Prepare failed after %v, want it soon", took)
			}
			if test.dir == file {
				return
			}
			// What failed must not keep the directory.
			stop, err = (&local.Engine{Dir: test.dir}).Prepare(t.Context(), nil)
			if err != nil {
				t.Fatalf("Prepare after the failed one: %v", err)
			}
			if err := stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDirectoryIsForOneProcess(t *testing.T) {
	t.Parallel()
	e := &local.Engine{Dir: filepath.Join(t.TempDir(), "new", "dir")}
	stop, err := e.Prepare(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = (&local.Engine{Dir: e.Dir}).Prepare(t.Context(), nil)
	for _, part := range []string{e.Dir, fmt.Sprintf("process %d:", os.Getpid()), "--data-dir"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("Prepare of a directory in use: got %v, want an error with %q", err, part)
		}
	}
	if err := stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if stop, err = e.Prepare(t.Context(), nil); err != nil {
		t.Fatalf("Prepare after the first one's stop: %v", err)
	}
	if err := stop(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestBrokerRunsOnlyWhenUsed(t *testing.T) {
	t.Parallel()
	for broker, want := range map[string]bool{"": false, "nats://elsewhere:4222": false, "nats://elsewhere:4222?atomic=true": false, "embedded": true, "with parameters": true, "for discovery": true} {
		e := &local.Engine{Dir: t.TempDir(), NATSListen: freeAddress(t)}
		url, registry := broker, ""
		switch broker {
		case "embedded":
			url = "nats://" + e.NATSListen
		case "with parameters":
			url = "nats://" + e.NATSListen + "?atomic=true"
		case "for discovery":
			url, registry = "", "nats://"+e.NATSListen
		}
		stop, err := e.Prepare(t.Context(), settingsWith(t, url, registry))
		if err != nil {
			t.Fatal(err)
		}
		if got := listens(e.NATSListen); got != want {
			t.Errorf("with broker_url %q a broker listens: got %v, want %v", broker, got, want)
		}
		var screen bytes.Buffer
		e.Ready(&screen, nil)
		if got := strings.Contains(screen.String(), e.NATSListen); got != want {
			t.Errorf("with broker_url %q the screen tells of a broker: got %v, want %v", broker, got, want)
		}
		if err := stop(context.Background()); err != nil {
			t.Error(err)
		}
		if listens(e.NATSListen) {
			t.Errorf("the broker still listens on %s after its stop", e.NATSListen)
		}
		if stop, err = e.Prepare(t.Context(), nil); err != nil {
			t.Fatalf("Prepare after the stop: %v", err)
		}
		if err := stop(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func TestScreen(t *testing.T) {
	t.Parallel()
	e := &local.Engine{Dir: t.TempDir(), NATSListen: freeAddress(t)}
	stop, err := e.Prepare(t.Context(), settingsWith(t, "nats://"+e.NATSListen, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer stop(context.Background())
	var got bytes.Buffer // its columns are as wide as an address with a port of five digits
	e.Ready(&got, []kaptar.Endpoint{
		{Service: "user-service", HTTP: "127.0.0.1:8081", GRPC: "127.0.0.1:50051"},
		{Service: "gateway", HTTP: "127.0.0.1:8080"},
	})
	want := `
  2 services are ready in one process.

  user-service   http://127.0.0.1:8081    grpc 127.0.0.1:50051
  gateway        http://127.0.0.1:8080    
  broker         nats://` + e.NATSListen + `   embedded

  Data is kept in ` + e.Dir + `. Each service has /livez, /readyz and /metrics.
  One process is no fault isolation: this is for development and small deployments.
  Ctrl-C stops gracefully.

`
	if got.String() != want {
		t.Errorf("screen:\ngot  %q\nwant %q", got.String(), want)
	}
	got.Reset()
	e.Ready(&got, []kaptar.Endpoint{{Service: "gateway", HTTP: "127.0.0.1:8080"}})
	if !strings.Contains(got.String(), "  1 service is ready in one process.") {
		t.Errorf("screen of one service: got %q", got.String())
	}
}

type note struct{ N int }

var notes = messaging.Topic[note]{Name: "notes"}

// run runs services on e until the first of them cancels.
func run(ctx context.Context, t *testing.T, e *local.Engine, services ...kaptar.Service) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	sources, err := e.Sources(config.Sources{}, services)
	if err != nil {
		t.Fatal(err)
	}
	if err := kaptar.Run(ctx, &kaptar.Options{Sources: sources, Prepare: e.Prepare, Log: io.Discard}, services...); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	if ctx.Err() == context.DeadlineExceeded {
		t.Error("the services did not end by themselves in 20 s")
	}
}

func TestEventsOutliveTheProgram(t *testing.T) {
	t.Parallel()
	e := &local.Engine{Dir: t.TempDir(), NATSListen: freeAddress(t)}
	ctx, cancel := context.WithCancel(t.Context())
	run(ctx, t, e, kaptar.Service{Name: "writer", Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) error {
		pub, err := messaging.NewPublisher(app, notes)
		if err != nil {
			return err
		}
		app.Go("write", func(ctx context.Context) error {
			defer cancel()
			return pub.PublishNow(ctx, "k", note{N: 7})
		})
		return nil
	}})
	got := make(chan int, 10)
	ctx, cancel = context.WithCancel(t.Context())
	again := &local.Engine{Dir: e.Dir, NATSListen: e.NATSListen}
	run(ctx, t, again, kaptar.Service{Name: "reader", Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) error {
		return messaging.SubscribeAutoAck(app, notes, func(_ context.Context, e messaging.Event[note]) error {
			got <- e.Data.N
			cancel()
			return nil
		}, nil)
	}})
	if len(got) != 1 || <-got != 7 {
		t.Error("the event of the first run did not come in the second")
	}
}

func TestPrepareEndsWithItsContext(t *testing.T) {
	t.Parallel()
	e := &local.Engine{Dir: t.TempDir(), NATSListen: freeAddress(t)}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	stop, err := e.Prepare(ctx, settingsWith(t, "nats://"+e.NATSListen, ""))
	if err == nil { // it was faster
		err = stop(context.Background())
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Prepare with an ended context: got %v, want %v", err, context.Canceled)
	}
	if listens(e.NATSListen) {
		t.Error("the broker still listens")
	}
}
