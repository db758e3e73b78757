// Package servertest gives tests real servers, started by package servers.
//
//	func TestMain(m *testing.M) { servertest.Main(m) }
//
//	func TestOrders(t *testing.T) {
//		b, err := kafka.Open(t.Context(), servertest.Shared(t, servers.Kafka).URL())
//		…
//	}
//
// Nothing is installed here. With go test -short nothing is started either: each test that needs a
// server is skipped. Without -short a test whose server is missing is skipped with the reason and
// the command that installs it, and fails when CI is set in the environment.
package servertest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/kaptar/kaptar/internal/test/cluster"
	"github.com/kaptar/kaptar/internal/test/servers"
)

// process has what all tests of a process share.
type process struct {
	mu     sync.Mutex
	inMain bool
	shared map[servers.Engine]func() (*servers.Server, error) // starts it at the first call
}

// one has the servers of this test process; a process has one TestMain too.
var one = process{shared: map[servers.Engine]func() (*servers.Server, error){}}

// Main runs the tests of a package, ends the servers that Shared started, and exits the process.
func Main(m *testing.M) {
	one.mu.Lock()
	one.inMain = true
	one.mu.Unlock()
	code := m.Run()
	if err := one.close(); err != nil {
		fmt.Fprintln(os.Stderr, "servertest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// Shared returns the server that all tests of the process use, which is started at the first call:
// give topics, keys and names of your own, and never kill it. It may be one that the environment names,
// see servers.Given. The package's TestMain must call Main.
func Shared(t testing.TB, e servers.Engine) *servers.Server {
	t.Helper()
	short(t, string(e))
	one.mu.Lock()
	inMain := one.inMain
	open := one.shared[e]
	if open == nil && inMain {
		open = sync.OnceValues(func() (*servers.Server, error) { return servers.Given(t.Context(), e, nil) })
		one.shared[e] = open
	}
	one.mu.Unlock()
	if !inMain {
		t.Fatal("servertest: TestMain does not call servertest.Main, so nothing would end the server")
	}
	s, err := open()
	if err != nil {
		absent(t, e, err, ", or set "+servers.Variable(e)+" to a URL")
	}
	return s
}

// Port returns a loopback port that stays this test's own, whether it listens there or not: one that
// the system chooses can be taken by others while nobody listens.
func Port(t testing.TB) int {
	t.Helper()
	ports, release, err := servers.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return ports[0]
}

// Start starts a server for this test alone, which may kill it; it is closed after the test. It
// needs no Main. The log of a server whose test failed is in the test's log.
func Start(t testing.TB, e servers.Engine, opts ...servers.Options) *servers.Server {
	t.Helper()
	return StartAll(t, opts, e)[0]
}

// StartAll is Start for one server of each of engines, all at the same time: those of a cluster wait for
// each other. opts are the options of the first; the others have none.
func StartAll(t testing.TB, opts []servers.Options, engines ...servers.Engine) []*servers.Server {
	t.Helper()
	short(t, string(engines[0]))
	opts = append(slices.Clone(opts), make([]servers.Options, len(engines)-len(opts))...)
	started, errs := make([]*servers.Server, len(opts)), make([]error, len(opts))
	t.Cleanup(func() {
		for i, s := range started {
			if s == nil {
				continue
			}
			if t.Failed() {
				t.Logf("the log of %s:\n%s", engines[i], s.Log())
			}
			if err := s.Close(); err != nil {
				t.Errorf("servertest: %v", err)
			}
		}
	})
	var wg sync.WaitGroup
	for i := range opts {
		wg.Go(func() { started[i], errs[i] = servers.Start(t.Context(), engines[i], &opts[i]) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			absent(t, engines[i], err, "")
		}
	}
	return started
}

// Cluster starts a Kubernetes cluster for this test, which is closed after it; the end of its logs
// is in that of a test that failed. TestMain must call cluster.Init first. Where a cluster cannot run,
// see servers.ClusterRuns, the test is skipped; otherwise what is missing is missing as it is for
// Start.
func Cluster(t testing.TB) *cluster.Cluster {
	t.Helper()
	short(t, "cluster")
	if err := servers.ClusterRuns(); err != nil {
		t.Skip(err)
	}
	c, err := cluster.Start(t.Context())
	if err != nil {
		absent(t, "cluster", err, "")
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Logs())
		}
		if err := c.Close(); err != nil {
			t.Errorf("servertest: %v", err)
		}
	})
	return c
}

// Need ends the test as Start does when the server is missing, and starts nothing.
func Need(t testing.TB, e servers.Engine) {
	t.Helper()
	short(t, string(e))
	if err := servers.Find(string(e)); err != nil {
		absent(t, e, err, "")
	}
}

// short skips a test that go test -short must not run.
func short(t testing.TB, needs string) {
	t.Helper()
	if testing.Short() {
		t.Skipf("go test -short starts no %s", needs)
	}
}

// absent ends a test that cannot have its server. One that is there and does not start is a
// failure.
func absent(t testing.TB, e servers.Engine, err error, other string) {
	t.Helper()
	if !errors.Is(err, servers.ErrMissing) {
		t.Fatal(err)
	}
	end(t, fmt.Sprintf("%v; type: go run ./tools/servers install %s%s", err, e, other))
}

// end skips the test, or fails it where nothing may be missing.
func end(t testing.TB, text string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(text)
	}
	t.Skip(text)
}

// Python returns the path of servers.Python, Promtool that of servers.Promtool. Without it the test
// ends as without a server.
func Python(t testing.TB) string { return tool(t, "python", servers.Python) }

// Promtool is described at Python.
func Promtool(t testing.TB) string { return tool(t, string(servers.Prometheus), servers.Promtool) }

func tool(t testing.TB, install string, find func() (string, error)) string {
	t.Helper()
	short(t, install)
	path, err := find()
	if err != nil {
		end(t, fmt.Sprintf("%v; type: go run ./tools/servers install %s", err, install))
	}
	return path
}

func (p *process) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, open := range p.shared {
		if s, err := open(); err == nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}
