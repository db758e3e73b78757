package servers_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

// The test binary runs itself in these roles.
const (
	roleEnv   = "SERVERS_ROLE"
	engineEnv = "SERVERS_ENGINE"
	linger    = "linger" // start a server, tell that, wait to be killed
	panics    = "panic"  // the same, and panic
	leave     = "leave"  // the same, and end in order
)

// TestRole is the child's side of TestNothingIsLeftBehind.
func TestRole(t *testing.T) {
	role := os.Getenv(roleEnv)
	if role == "" {
		return // run as a test of its own it has nothing to say
	}
	fmt.Println("server", servertest.Shared(t, servers.Engine(os.Getenv(engineEnv))).URL())
	switch role {
	case linger:
		select {}
	case panics:
		go panic("oh") // past every deferred function and t.Cleanup
		select {}
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		engine servers.Engine
		role   string
	}{
		{servers.Redis, leave},
		{servers.Redis, panics},
		{servers.Redis, linger},
		{servers.NATS, linger},
		{servers.Postgres, linger},   // has processes in groups of their own
		{servers.RabbitMQ, linger},   // has a helper
		{servers.Kubernetes, linger}, // has a helper with files
		{servers.Jaeger, linger},     // its program is in the folder when the user's cache is closed to it
	} {
		t.Run(string(c.engine)+" "+c.role, func(t *testing.T) {
			t.Parallel()
			servertest.Need(t, c.engine)
			tmp := reachable(t)
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRole$", "-test.v")
			cmd.Env = append(os.Environ(), roleEnv+"="+c.role, engineEnv+"="+string(c.engine), "TMPDIR="+tmp,
				"KAPTAR_TEST_"+strings.ToUpper(string(c.engine))+"=")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			said, ready := "", false
			lines := bufio.NewScanner(out)
			for !ready && lines.Scan() {
				said += lines.Text() + "\n"
				ready = strings.HasPrefix(lines.Text(), "server ")
			}
			if !ready {
				_ = cmd.Wait()
				t.Fatalf("the child named no server:\n%s", said)
			}
			if c.role == linger {
				if running := servers.Belonging(tmp); len(running) < 2 { // guard and server
					t.Errorf("processes while the child runs: %v, want 2 at least", running)
				}
				if err := cmd.Process.Kill(); err != nil { // SIGKILL
					t.Fatal(err)
				}
			}
			for lines.Scan() { // until it ends
			}
			if err := cmd.Wait(); (err == nil) != (c.role == leave) {
				t.Errorf("the child ended with %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := poll(ctx, func() (string, error) {
				left, running := files(t, tmp), servers.Belonging(tmp)
				if len(left)+len(running) > 0 {
					return "", fmt.Errorf("left behind: processes %v, files %v", running, left)
				}
				return "", nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
}

// files returns what is in the folders below dir; an empty folder does not count: the server's user
// may not remove one from another user's.
func files(t *testing.T, dir string) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// memory returns what a server's processes have in memory.
func memory(t *testing.T, s *servers.Server) (bytes int64) {
	t.Helper()
	for _, pid := range servers.Belonging(s.Dir()) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			pages, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			bytes += pages * int64(os.Getpagesize())
		}
	}
	return bytes
}
