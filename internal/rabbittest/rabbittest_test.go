//go:build servers && linux

package rabbittest_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/internal/rabbittest"
)

// The test binary runs itself in these roles.
const (
	roleEnv = "RABBITTEST_ROLE"
	linger  = "linger"  // start a server, print that, wait to be killed
	noMain  = "no main" // URL without Main
)

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == noMain {
		os.Exit(m.Run())
	}
	rabbittest.Main(m)
}

// TestRole is the child's side of the tests below.
func TestRole(t *testing.T) {
	role := os.Getenv(roleEnv)
	if role == "" {
		return // run as a test of its own it has nothing to say
	}
	rabbittest.URL(t)
	fmt.Println("ready")
	if role == linger {
		select {}
	}
}

func child(t *testing.T, role string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRole$", "-test.v")
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "TMPDIR="+t.TempDir())
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// TestNothingIsLeftBehind kills a test process with a server and looks for what has its folder in the environment.
func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	rabbittest.URL(t) // skips when no server can be had
	cmd := child(t, linger)
	var folder string
	for _, e := range cmd.Env {
		if dir, ok := strings.CutPrefix(e, "TMPDIR="); ok {
			folder = dir
		}
	}
	for dir := folder; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) { // the server's user has to get there
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ready" {
	}
	processes := processesIn(t, folder)
	if len(processes) < 3 { // supervisor, epmd, server
		t.Errorf("processes of the server: %v, want 3 at least", processes)
	}
	if err := cmd.Process.Kill(); err != nil { // SIGKILL
		t.Fatal(err)
	}
	for lines.Scan() { // until it ends
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the child ended in order, want that it was killed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		left, _ := filepath.Glob(filepath.Join(folder, "*"))
		processes = processesIn(t, folder)
		if len(processes) == 0 && (len(left) == 0 || os.Geteuid() == 0 && empty(left)) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("still there: processes %v, files %v", processes, left)
		}
	}
}

// empty tells that only the folders themselves are left: the server's user may not remove them from root's.
func empty(folders []string) bool {
	for _, dir := range folders {
		if inside, _ := os.ReadDir(dir); len(inside) > 0 {
			return false
		}
	}
	return true
}

// processesIn returns the processes whose environment names a folder below dir as theirs.
func processesIn(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range all {
		text, _ := os.ReadFile(path) // one that has ended, or is not ours
		if !strings.Contains(string(text), "\x00dir="+dir) && !strings.HasPrefix(string(text), "dir="+dir) {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err == nil && syscall.Kill(pid, 0) == nil {
			out = append(out, strconv.Itoa(pid))
		}
	}
	return out
}

// TestRestart: a virtual host and what is confirmed in a durable queue outlive Kill.
func TestRestart(t *testing.T) { //nolint:paralleltest // the server is everybody's
	url := rabbittest.URL(t)
	if url == rabbittest.URL(t) {
		t.Errorf("the same virtual host twice: %s", url)
	}
	declare := func() {
		conn, err := amqp.Dial(url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ch, err := conn.Channel()
		if err != nil {
			t.Fatal(err)
		}
		if err := ch.ExchangeDeclare("e", "x-consistent-hash", true, false, false, false, nil); err != nil {
			t.Errorf("an exchange of the plugin: %v", err)
		}
	}
	declare()
	rabbittest.Kill(t)
	if conn, err := amqp.Dial(url); err == nil {
		_ = conn.Close()
		t.Error("the server answers after Kill")
	}
	rabbittest.Restart(t)
	declare()
}

func TestNoServerSkipsOrFails(t *testing.T) {
	t.Parallel()
	for ci, want := range map[string]string{"": "--- SKIP", "true": "--- FAIL"} {
		out, _ := child(t, noMain, "CI="+ci).CombinedOutput()
		if !strings.Contains(string(out), want+": TestRole") || !strings.Contains(string(out), "apt install rabbitmq-server") {
			t.Errorf("CI=%q: want %s and what to install:\n%s", ci, want, out)
		}
	}
}
