package servertest_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

// The test binary runs itself in these roles.
const (
	roleEnv = "SERVERTEST_ROLE"
	noMain  = "no main" // Shared without Main
	plain   = "plain"   // Shared
	own     = "own"     // Start
)

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == noMain {
		os.Exit(m.Run())
	}
	servertest.Main(m)
}

func ExampleShared() {
	_ = func(t *testing.T) {
		url := servertest.Shared(t, servers.Kafka).URL() // kafka://127.0.0.1:…
		_ = url
	}
	// Output:
}

func ExampleDatabase() {
	_ = func(t *testing.T) {
		url := servertest.Database(t) // postgres://…, a database of this test's own
		_ = url
	}
	// Output:
}

// TestRole is the child's side of the tests below.
func TestRole(t *testing.T) {
	switch os.Getenv(roleEnv) {
	case noMain, plain:
		fmt.Println("server", servertest.Shared(t, servers.Consul).URL())
	case own:
		fmt.Println("server", servertest.Start(t, servers.Consul).URL())
	}
}

func child(t *testing.T, role string, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRole$", "-test.v")
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "CI=", "KAPTAR_TEST_CONSUL=")
	cmd.Env = append(cmd.Env, env...)
	out, _ := cmd.CombinedOutput() // its state is in the text
	return string(out)
}

func TestNoServerSkipsOrFails(t *testing.T) {
	t.Parallel()
	const empty = "XDG_CACHE_HOME=/nowhere"
	for _, c := range []struct {
		role, ci, given string
		want            []string
	}{
		{plain, "", "", []string{"--- SKIP: TestRole", "go run ./tools/servers install consul", "KAPTAR_TEST_CONSUL"}},
		{plain, "true", "", []string{"--- FAIL: TestRole", "go run ./tools/servers install consul"}},
		{own, "", "", []string{"--- SKIP: TestRole", "go run ./tools/servers install consul"}},
		{own, "true", "", []string{"--- FAIL: TestRole", "go run ./tools/servers install consul"}},
		{noMain, "", "", []string{"--- FAIL: TestRole", "does not call servertest.Main"}},
		{plain, "true", "consul://elsewhere:1", []string{"--- PASS: TestRole", "server consul://elsewhere:1\n"}},
		{plain, "", "elsewhere", []string{"--- FAIL: TestRole", "names no host"}},
	} {
		out := child(t, c.role, empty, "CI="+c.ci, "KAPTAR_TEST_CONSUL="+c.given)
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s, CI=%q, given %q: no %q in\n%s", c.role, c.ci, c.given, want, out)
			}
		}
	}
}

// TestShort: go test -short starts nothing, whatever is installed, also where a missing server is a failure.
func TestShort(t *testing.T) {
	t.Parallel()
	for _, role := range []string{plain, own} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRole$", "-test.v", "-test.short")
		cmd.Env = append(os.Environ(), roleEnv+"="+role, "CI=true", "KAPTAR_TEST_CONSUL=consul://elsewhere:1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- SKIP: TestRole") || !strings.Contains(string(out), "go test -short starts no consul") {
			t.Errorf("%s: %v, want that the test is skipped with the reason, got\n%s", role, err, out)
		}
	}
}

func TestSharedIsOne(t *testing.T) {
	t.Parallel()
	first, second := servertest.Shared(t, servers.Redis), servertest.Shared(t, servers.Redis)
	if first != second {
		t.Errorf("Shared gave %s and %s, want one server", first.URL(), second.URL())
	}
	if os.Getenv("KAPTAR_TEST_REDIS") == "" {
		if mine := servertest.Start(t, servers.Redis); mine.URL() == first.URL() {
			t.Errorf("Start gave the shared server %s", mine.URL())
		}
	}
}

// TestStartCloses: the server of a test ends with it.
func TestStartCloses(t *testing.T) {
	t.Parallel()
	servertest.Need(t, servers.Redis)
	var address string
	t.Run("inner", func(t *testing.T) { address = servertest.Start(t, servers.Redis).Addr("") })
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Errorf("the server at %s runs after its test", address)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func TestDatabaseIsFresh(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 2 {
		url := servertest.Database(t)
		if seen[url] {
			t.Fatalf("the same database twice: %s", url)
		}
		seen[url] = true
		if _, err := connect(t, url).Exec(t.Context(), "CREATE TABLE a (n BIGINT)"); err != nil {
			t.Errorf("CREATE TABLE in a fresh database: %v", err)
		}
	}
}

func TestDatabaseIsDropped(t *testing.T) {
	t.Parallel()
	admin := connect(t, servertest.Database(t))
	var name string
	t.Run("inner", func(t *testing.T) {
		url := servertest.Database(t)
		conn, err := pgx.Connect(t.Context(), url) // stays open: a session that leaks does not hinder
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRow(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
			t.Fatal(err)
		}
	})
	var n int
	if err := admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_database WHERE datname = $1", name).Scan(&n); err != nil || n != 0 {
		t.Errorf("database %s after its test: %d, %v; want it gone", name, n, err)
	}
}

func TestVHost(t *testing.T) {
	t.Parallel()
	servertest.Need(t, servers.RabbitMQ)
	var gone string
	t.Run("inner", func(t *testing.T) {
		gone = servertest.VHost(t)
		if other := servertest.VHost(t); other == gone {
			t.Errorf("the same virtual host twice: %s", gone)
		}
		conn, err := amqp.Dial(gone)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	})
	u, err := url.Parse(gone)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+servertest.Shared(t, servers.RabbitMQ).Addr("management")+"/api/vhosts"+u.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("guest", "guest")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("%s after its test: %s, want 404", gone, resp.Status)
	}
}
