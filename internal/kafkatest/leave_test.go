//go:build servers && unix

package kafkatest_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/kafkatest"
)

// The test binary runs itself in these roles.
const (
	roleEnv = "KAFKATEST_ROLE"
	linger  = "linger"  // start a server, tell its address, wait to be killed
	panics  = "panic"   // the same, and panic
	leave   = "leave"   // the same, and end in order
	noMain  = "no main" // URL without Main
)

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == noMain {
		os.Exit(m.Run())
	}
	kafkatest.Main(m)
}

// TestRole is the child's side of the tests below.
func TestRole(t *testing.T) {
	role := os.Getenv(roleEnv)
	if role == "" {
		return // run as a test of its own it has nothing to say
	}
	fmt.Println("server", kafkatest.URL(t))
	switch role {
	case linger:
		select {}
	case panics:
		go panic("oh") // past every deferred function and t.Cleanup
		select {}
	}
}

func child(t *testing.T, role string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRole$", "-test.v")
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

func TestNoServerIsLeftBehind(t *testing.T) {
	t.Parallel()
	for _, role := range []string{leave, panics, linger} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			tmp := t.TempDir()
			if err := os.Chmod(filepath.Dir(tmp), 0o755); err != nil { // the server's user has to get there
				t.Fatal(err)
			}
			cmd := child(t, role, kafkatest.EnvURL+"=", "TMPDIR="+tmp)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			url, said := "", ""
			lines := bufio.NewScanner(out)
			for url == "" && lines.Scan() {
				said += lines.Text() + "\n"
				if f := strings.Fields(lines.Text()); len(f) == 2 && f[0] == "server" {
					url = f[1]
				}
			}
			if url == "" {
				_ = cmd.Wait()
				if strings.Contains(said, "--- SKIP") {
					t.Skip(said)
				}
				t.Fatalf("the child named no server:\n%s", said)
			}
			if role == linger {
				client(t, url).Ping(t.Context()) // while its test process runs, so does the server: TestRestart sees to that
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			for lines.Scan() { // until it ends
			}
			if err := cmd.Wait(); (err == nil) != (role == leave) {
				t.Errorf("the child ended with %v", err)
			}
			gone := func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				answers := client(t, url).Ping(ctx) == nil
				left, err := filepath.Glob(filepath.Join(tmp, "kafkatest-*", "data"))
				return !answers && err == nil && len(left) == 0
			}
			deadline, tick := time.After(20*time.Second), time.NewTicker(50*time.Millisecond)
			defer tick.Stop()
			for !gone() {
				select {
				case <-tick.C:
				case <-deadline:
					t.Fatalf("the server at %s or its files are still there", url)
				}
			}
		})
	}
}

func TestNoServerSkipsOrFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ role, env, want string }{
		{noMain, "CI=", "--- SKIP"},
		{noMain, "CI=true", "--- FAIL"},
		{leave, "PATH=/nowhere", "openjdk-17-jre-headless maven"},
	} {
		cmd := child(t, c.role, kafkatest.EnvURL+"=", c.env)
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), c.want) || !strings.Contains(string(out), "apt install") {
			t.Errorf("%s, %q: want %s and what to install:\n%s", c.role, c.env, c.want, out)
		}
	}
}

func TestGivenServer(t *testing.T) {
	t.Parallel()
	out, err := child(t, leave, kafkatest.EnvURL+"=kafka://elsewhere:9092").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "server kafka://elsewhere:9092\n") {
		t.Errorf("with %s the tests get another server: %v\n%s", kafkatest.EnvURL, err, out)
	}
}
