package servers

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// need is servertest.Need, which this package cannot import.
func need(t *testing.T, e Engine) {
	t.Helper()
	err := Find(string(e))
	switch {
	case testing.Short():
		t.Skipf("go test -short starts no %s", e)
	case err != nil && os.Getenv("CI") != "":
		t.Fatal(err)
	case err != nil:
		t.Skip(err)
	}
}

// TestTakenPortIsRetried: a port that was free when it was chosen and is taken when the server
// wants it.
func TestTakenPortIsRetried(t *testing.T) {
	t.Parallel()
	need(t, Redis)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken, calls := l.Addr().(*net.TCPAddr).Port, 0
	choose := func(first int) func(int) ([]int, func(), error) {
		calls = 0
		return func(n int) ([]int, func(), error) {
			if calls++; calls <= first {
				return []int{taken}, func() {}, nil
			}
			return FreePorts(n)
		}
	}
	s, err := start(t.Context(), Redis, nil, choose(2))
	if err != nil {
		t.Fatalf("start, with two ports that are taken = %v, want a third try", err)
	}
	if calls != 3 || s.ports[""] == taken {
		t.Errorf("after %d choices the port is %d, want 3 and another port than %d", calls, s.ports[""], taken)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if _, err := start(t.Context(), Redis, nil, choose(1000)); err == nil || calls != 3 || !strings.Contains(err.Error(), "its log") {
		t.Errorf("start on ports that are always taken = %v after %d choices, want the log after 3", err, calls)
	}
	bad := &Options{Config: "no-such-setting 1"}
	if _, err := start(t.Context(), Redis, bad, choose(0)); err == nil || calls != 1 {
		t.Errorf("start with bad settings = %v after %d choices, want an error after 1", err, calls)
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	e := tool("no-such-tool", "example.com/x")
	if _, err := e.find(); err == nil || !strings.Contains(err.Error(), "tools/no-such-tool/go.mod is in no folder above") {
		t.Errorf("find of a module that is not there = %v", err)
	}
	e.requires = "example.com/x"
	if _, err := e.find(); err == nil || !strings.Contains(err.Error(), "go.mod does not require example.com/x") {
		t.Errorf("find of a module that go.mod does not name = %v", err)
	}
}

// TestFreePorts: no port is given twice, neither in a call nor to two servers.
func TestFreePorts(t *testing.T) {
	t.Parallel()
	const marks = runtime.GOOS == "linux" // elsewhere 127.0.0.2 may not be there
	seen := map[int]bool{}
	for range 20 {
		ports, release, err := FreePorts(50)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		for _, p := range ports {
			if seen[p] && marks {
				t.Errorf("port %d twice", p)
			}
			if p < 20_000 || p >= 32_000 {
				t.Errorf("port %d, want one from 20000 to 31999", p)
			}
			seen[p] = true
		}
	}
	if len(seen) == 0 {
		t.Error("no ports")
	}
}

// TestFill: a folder of the cache is made once, whole, whoever asks.
func TestFill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cache", "tool-1")
	if err := fill(dir, func(part string) error {
		return errors.Join(os.WriteFile(filepath.Join(part, "half"), nil, 0o600), errors.New("no network"))
	}); err == nil || !strings.Contains(err.Error(), "no network") {
		t.Errorf("fill with a build that fails = %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), "[pt]*[^k]")); len(left) > 0 {
		t.Errorf("a build that failed left %v", left)
	}
	var builds atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := fill(dir, func(part string) error {
				builds.Add(1)
				<-time.After(50 * time.Millisecond) // the others come meanwhile
				return os.WriteFile(filepath.Join(part, "tool"), nil, 0o700)
			}); err != nil {
				t.Errorf("fill = %v", err)
			}
		})
	}
	wg.Wait()
	if builds.Load() != 1 {
		t.Errorf("8 calls of fill built %d times, want once", builds.Load())
	}
	if _, err := os.Stat(filepath.Join(dir, "tool")); err != nil {
		t.Errorf("what was built is not there: %v", err)
	}
}

// TestCached: another version has another place.
func TestCached(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "go.sum")
	var places []string
	for _, text := range []string{"a", "b", "a"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		place, err := versioned("tool", file)
		if err != nil {
			t.Fatal(err)
		}
		places = append(places, place)
	}
	if places[0] != places[2] || places[0] == places[1] {
		t.Errorf("places of the contents a, b, a: %q; want the first and the last the same, the second another", places)
	}
}

// TestToolsAreModules: what tools/ has builds what the engines expect.
func TestToolsAreModules(t *testing.T) {
	t.Parallel()
	for _, e := range []Engine{Consul, Jaeger, VictoriaLogs, Prometheus, Kubernetes} {
		what, err := describe(e)
		if err != nil {
			t.Fatal(err)
		}
		path, err := Repository(what.product.sources[0])
		if err != nil {
			t.Error(err)
			continue
		}
		text, err := os.ReadFile(path)
		for _, pkg := range what.product.pkgs { // "." is a main package in the module itself
			if err != nil || pkg != "." && !strings.Contains(string(text), "tool "+pkg+"\n") && !strings.Contains(string(text), "\t"+pkg+"\n") {
				t.Errorf("%s has no tool %s: %v", path, pkg, err)
			}
		}
	}
}

// TestShare: a server's user can read files in a folder that is closed to it.
func TestShare(t *testing.T) {
	t.Parallel()
	as, err := unprivileged()
	if err != nil {
		t.Fatal(err)
	}
	if as == nil {
		t.Skip("this process is not root's: its servers are its own user's, and read what it reads")
	}
	closed := t.TempDir() // below one with mode 0700
	if err := os.WriteFile(filepath.Join(closed, "tool"), []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := as.barred(closed); got == "" {
		t.Errorf("barred(%s) = %q, want a folder", closed, got)
	}
	if got := as.barred("/"); got != "" {
		t.Errorf("barred(/) = %q", got)
	}
	if got, err := as.share("/bin/sh", filepath.Join(closed, "to")); err != nil || got != "/bin/sh" {
		t.Errorf("share of what everybody can read = %q, %v; want its own path", got, err)
	}
	open, err := os.MkdirTemp("", "kaptar-share-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(open) })
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{closed: "lib", filepath.Join(closed, "tool"): "lib/tool"} {
		for range 2 { // also over what an earlier start left
			got, err := as.share(path, filepath.Join(open, "lib"))
			if err != nil || got != filepath.Join(open, want) {
				t.Errorf("share(%s) = %q, %v", path, got, err)
			}
			if where := as.barred(filepath.Join(open, "lib", "tool")); where != "" {
				t.Errorf("the copy is closed at %s", where)
			}
		}
	}
	s := &Server{engine: Redis, as: as, opts: Options{Dir: filepath.Join(closed, "data")}}
	if err := s.makeDir(); err == nil || !strings.Contains(err.Error(), "nobody") || !strings.Contains(err.Error(), "cannot enter") {
		t.Errorf("makeDir in a folder that the user cannot enter = %v, want an error that says so", err)
	}
}
