package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

func TestEngines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		names []string
		want  string
	}{
		{nil, fmt.Sprint(servers.Engines())},
		{[]string{"redis", "kafka", "redis"}, "[redis kafka]"},
	} {
		if got, err := engines(c.names); err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("engines(%q) = %v, %v; want %s", c.names, got, err, c.want)
		}
	}
	for _, args := range [][]string{{"install", "mysql"}, {"start", "mysql"}, {"clean", "mysql"}} {
		cmd := command()
		cmd.SetArgs(args)
		cmd.SetOut(io.Discard)
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), `"mysql", want one of postgres, kafka, `) {
			t.Errorf("servers %q = %v, want an error with the known engines", args, err)
		}
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

// A watched writer tells when a text was written.
type watched struct {
	bytes.Buffer
	text string
	seen chan struct{}
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if w.seen != nil && strings.Contains(w.String(), w.text) {
		close(w.seen)
		w.seen = nil
	}
	return n, err
}

func TestStartAndClean(t *testing.T) {
	t.Parallel()
	servertest.Need(t, servers.Redis)
	dir := reachable(t)
	free := func(servers.Engine) int { return 0 }
	ctx, cancel := context.WithCancel(t.Context())
	out := &watched{text: "ready; Ctrl-C", seen: make(chan struct{})}
	seen, done := out.seen, make(chan error, 1)
	go func() { done <- run(ctx, out, dir, []servers.Engine{servers.Redis}, free) }()
	select {
	case <-seen:
	case err := <-done:
		t.Fatalf("run = %v, before it was ready", err)
	}
	if err := run(t.Context(), io.Discard, dir, []servers.Engine{servers.Redis}, free); err == nil || !strings.Contains(err.Error(), "is taken") {
		t.Errorf("the second run in the same folder = %v, want that the port is taken", err)
	}
	if err := clean(io.Discard, dir, []servers.Engine{servers.Redis}); err == nil || !strings.Contains(err.Error(), "seems to run") {
		t.Errorf("clean under a running server = %v, want an error", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run = %v after its context ended, want nil", err)
	}
	_, address, ok := strings.Cut(out.String(), "export REDIS_URL='redis://")
	address, _, _ = strings.Cut(address, "'")
	if conn, err := net.Dial("tcp", address); err == nil || !ok {
		t.Errorf("after the end there is a server at %q:\n%s", address, out)
		if err == nil {
			_ = conn.Close()
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "redis", "appendonlydir")); err != nil {
		t.Errorf("the data is gone after the end: %v", err)
	}
	if err := clean(io.Discard, dir, servers.Engines()); err != nil {
		t.Errorf("clean = %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("clean left %v, %v", left, err)
	}
}

func TestCleanKeepsForeignFolders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mine := filepath.Join(dir, "redis", "holiday.jpg")
	if err := os.MkdirAll(mine, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := clean(io.Discard, dir, servers.Engines()); err == nil || !strings.Contains(err.Error(), "not made by this command") {
		t.Errorf("clean of a folder that no start made = %v, want an error", err)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Errorf("clean removed what is not its own: %v", err)
	}
}

func TestTableNamesOneOfAKind(t *testing.T) {
	t.Parallel()
	var running []*servers.Server
	for e, url := range map[servers.Engine]string{
		servers.Kafka: "kafka://127.0.0.1:9092", servers.RabbitMQ: "amqp://guest:guest@127.0.0.1:5672", servers.Jaeger: "http://127.0.0.1:16686",
		servers.NATS: "nats://kaptar:s3cr3t@127.0.0.1:4222", servers.Consul: "consul://127.0.0.1:8500",
		servers.Kubernetes: "kubernetes://default?server=https://127.0.0.1:6443",
	} {
		s, err := servers.At(e, url)
		if err != nil {
			t.Fatal(err)
		}
		running = append(running, s)
	}
	var out bytes.Buffer
	if err := table(&out, running); err != nil {
		t.Fatal(err)
	}
	for name, others := range map[string]int{"BROKER_URL": 2, "DISCOVERY_URL": 1} {
		if strings.Count(out.String(), "\nexport "+name+"='") != 1 || strings.Count(out.String(), "\n# or: export "+name+"='") != others {
			t.Errorf("%d servers for %s give\n%s\nwant one that is set, and the others as comments", others+1, name, &out)
		}
	}
	for _, want := range []string{"export OTEL_EXPORTER_OTLP_ENDPOINT='http://127.0.0.1:4317'", "management 127.0.0.1:15672"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, &out)
		}
	}
}
