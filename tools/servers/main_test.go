package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

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
	mu   sync.Mutex
	buf  bytes.Buffer
	text string
	seen chan struct{}
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.buf.Write(p)
	if w.seen != nil && strings.Contains(w.buf.String(), w.text) {
		close(w.seen)
		w.seen = nil
	}
	return n, err
}

// wait returns what is closed once text is written, from now on.
func (w *watched) wait(text string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text, w.seen = text, make(chan struct{})
	return w.seen
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// start runs engines on free ports in a folder until stop is called, and waits until they are
// ready.
func start(t *testing.T, dir string, chosen ...servers.Engine) (out *watched, stop func() error) {
	t.Helper()
	out = &watched{}
	seen := out.wait("ready; Ctrl-C")
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	done := make(chan error, 1)
	go func() { done <- local(out, dir).run(ctx, chosen) }()
	select {
	case <-seen:
	case err := <-done:
		t.Fatalf("run = %v, before it was ready", err)
	}
	return out, func() error {
		cancel()
		return <-done
	}
}

func local(out io.Writer, dir string) *foreground {
	return &foreground{out: out, dir: dir, deploy: "../../deploy", port: func(servers.Engine) int { return 0 }}
}

func TestStartAndClean(t *testing.T) {
	t.Parallel()
	servertest.Need(t, servers.Redis)
	dir := reachable(t)
	out, stop := start(t, dir, servers.Redis)
	if err := local(io.Discard, dir).run(t.Context(), []servers.Engine{servers.Redis}); err == nil || !strings.Contains(err.Error(), "is taken, its server runs") {
		t.Errorf("the second run in the same folder = %v, want that it is taken", err)
	}
	if err := clean(io.Discard, dir, []servers.Engine{servers.Redis}); err == nil || !strings.Contains(err.Error(), "is taken, its server runs") {
		t.Errorf("clean under a running server = %v, want an error", err)
	}
	if err := stop(); err != nil {
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

// TestServerEnds: a server that ends by itself is named with the end of its log, and the command's
// status tells too.
func TestServerEnds(t *testing.T) {
	t.Parallel()
	servertest.Need(t, servers.Redis)
	out, stop := start(t, reachable(t), servers.Redis)
	_, address, _ := strings.Cut(out.String(), "export REDIS_URL='redis://")
	address, _, _ = strings.Cut(address, "'")
	ended := out.wait("redis ENDED by itself")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "SHUTDOWN NOSAVE\r\n")
	<-ended
	if err := stop(); err == nil || !strings.Contains(err.Error(), "redis ended by itself") {
		t.Errorf("run = %v, want an error that names the server", err)
	}
	if !strings.Contains(out.String(), "User requested shutdown") {
		t.Errorf("no end of the log in\n%s", out)
	}
}

// TestDeployed: PostgreSQL has the databases of deploy/, also at the second start, and Prometheus
// its configuration with the Consul that runs beside it.
func TestDeployed(t *testing.T) {
	t.Parallel()
	for _, e := range []servers.Engine{servers.Postgres, servers.Prometheus, servers.Consul} {
		servertest.Need(t, e)
	}
	dir := reachable(t)
	for range 2 {
		out, stop := start(t, dir, servers.Postgres, servers.Prometheus, servers.Consul)
		value := func(before, after string) string {
			_, text, _ := strings.Cut(out.String(), before)
			text, _, _ = strings.Cut(text, after)
			return text
		}
		conn, err := pgx.Connect(t.Context(), value("export ORDER_SERVICE_DATABASE_URL='", "'"))
		if err != nil {
			t.Fatalf("%v, from\n%s", err, out)
		}
		_ = conn.Close(context.Background())
		resp, err := http.Get("http://" + strings.Fields(value("prometheus  http://", "\n"))[0] + "/api/v1/status/config")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if consul := value("export DISCOVERY_URL='consul://", "'"); err != nil || !strings.Contains(string(text), "server: "+consul) {
			t.Errorf("Prometheus runs with\n%s\n%v; want the Consul at %s", text, err, consul)
		}
		if err := stop(); err != nil {
			t.Errorf("run = %v", err)
		}
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
		servers.Kafka: "kafka://127.0.0.1:9092", servers.RabbitMQ: "amqp://guest:guest@127.0.0.1:5672", servers.Jaeger: "http://127.0.0.1:16686", servers.VictoriaLogs: "http://127.0.0.1:9428",
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
	if err := table(&out, running, nil); err != nil {
		t.Fatal(err)
	}
	for name, others := range map[string]int{"BROKER_URL": 2, "DISCOVERY_URL": 1} {
		if strings.Count(out.String(), "\nexport "+name+"='") != 1 || strings.Count(out.String(), "\n# or: export "+name+"='") != others {
			t.Errorf("%d servers for %s give\n%s\nwant one that is set, and the others as comments", others+1, name, &out)
		}
	}
	for _, want := range []string{"export OTEL_EXPORTER_OTLP_ENDPOINT='http://127.0.0.1:4317'", "/insert/opentelemetry/v1/logs'", "management 127.0.0.1:15672"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, &out)
		}
	}
}
