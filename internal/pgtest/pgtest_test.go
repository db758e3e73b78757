//go:build unix

package pgtest_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/pgtest"
)

// The test binary runs itself in these roles.
const (
	roleEnv = "PGTEST_ROLE"
	linger  = "linger"  // start a server, print its pid and folder, wait to be killed
	leave   = "leave"   // the same, and end in order
	panics  = "panic"   // the same, and panic
	noMain  = "no main" // URL without Main
	noFolk  = "refused" // a server that is not there
)

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == noMain {
		os.Exit(m.Run())
	}
	pgtest.Main(m)
}

// TestRole is the child's side of the tests below.
func TestRole(t *testing.T) {
	role := os.Getenv(roleEnv)
	if role == "" {
		return // run as a test of its own it has nothing to say
	}
	db, err := sql.Open("pgx", pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var dir string
	if err := db.QueryRow("SHOW data_directory").Scan(&dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, _, _ := strings.Cut(string(text), "\n")
	fmt.Printf("server %s %s\n", pid, dir)
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
	if os.Getenv(pgtest.EnvURL) != "" {
		t.Skip(pgtest.EnvURL + " is set: nothing is started")
	}
	pgtest.URL(t) // skips when no server can be had
	for _, role := range []string{leave, panics, linger} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			cmd := child(t, role)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var pid int
			var dir string
			lines := bufio.NewScanner(out)
			for pid == 0 && lines.Scan() {
				if f := strings.Fields(lines.Text()); len(f) == 3 && f[0] == "server" {
					pid, _ = strconv.Atoi(f[1])
					dir = f[2]
				}
			}
			if pid == 0 {
				t.Fatal("the child named no server")
			}
			if role == linger {
				if err := syscall.Kill(pid, 0); err != nil {
					t.Errorf("server %d does not run while its test process does: %v", pid, err)
				}
				if err := cmd.Process.Kill(); err != nil { // SIGKILL
					t.Fatal(err)
				}
			}
			for lines.Scan() { // until it ends
			}
			if err := cmd.Wait(); (err == nil) != (role == leave) {
				t.Errorf("the child ended with %v", err)
			}
			gone := func() bool {
				_, err := os.Stat(dir)
				return syscall.Kill(pid, 0) == syscall.ESRCH && os.IsNotExist(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for !gone() {
				select {
				case <-tick.C:
				case <-ctx.Done():
					t.Fatalf("server %d or its folder %s is still there", pid, dir)
				}
			}
		})
	}
}

func TestURLGivesFreshDatabases(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 2 {
		url := pgtest.URL(t)
		if seen[url] {
			t.Fatalf("the same database twice: %s", url)
		}
		seen[url] = true
		db, err := sql.Open("pgx", url)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec("CREATE TABLE a (n BIGINT)"); err != nil {
			t.Errorf("CREATE TABLE in a fresh database: %v", err)
		}
	}
}

func TestURLDropsTheDatabase(t *testing.T) {
	t.Parallel()
	admin, err := sql.Open("pgx", pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	var name string
	t.Run("inner", func(t *testing.T) {
		db, err := sql.Open("pgx", pgtest.URL(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := db.QueryRow("SELECT current_database()").Scan(&name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() }) // runs before the drop; a leaked session would not hinder it either
	})
	var n int
	if err := admin.QueryRow("SELECT count(*) FROM pg_database WHERE datname = $1", name).Scan(&n); err != nil || n != 0 {
		t.Errorf("database %s after its test: %d, %v; want it gone", name, n, err)
	}
}

func TestNoServerSkipsOrFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ role, env, ci, want string }{
		{noMain, "", "", "--- SKIP"},
		{noMain, "", "CI=true", "--- FAIL"},
		{noFolk, pgtest.EnvURL + "=postgres://postgres@127.0.0.1:1/postgres", "", "--- FAIL"},
	} {
		cmd := child(t, c.role, "CI=", pgtest.EnvURL+"=")
		for _, e := range []string{c.env, c.ci} {
			if e != "" {
				cmd.Env = append(cmd.Env, e)
			}
		}
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), c.want+": TestRole") {
			t.Errorf("%s, %q, %q: want %s:\n%s", c.role, c.env, c.ci, c.want, out)
		}
		if c.role == noMain && !strings.Contains(string(out), "apt install postgresql") {
			t.Errorf("%s: the reason does not say what to install:\n%s", c.role, out)
		}
	}
}
