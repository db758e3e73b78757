//go:build unix

package servers

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// TestStartAfterACrash: guards that were killed leave a server and its helper running, and a later
// start in the same folder ends them.
func TestStartAfterACrash(t *testing.T) {
	t.Parallel()
	for _, e := range []Engine{Redis, Postgres, RabbitMQ} {
		t.Run(string(e), func(t *testing.T) {
			t.Parallel()
			need(t, e)
			dir, err := os.MkdirTemp("", "kaptar-crash-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			opts := &Options{Dir: filepath.Join(dir, "data")}
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			s, err := start(t.Context(), e, opts, FreePorts)
			if err != nil {
				t.Fatal(err)
			}
			if !s.Running() {
				t.Error("Running = false after Start")
			}
			for _, pid := range belonging(opts.Dir) {
				if group(pid) == pid && pid != s.main.PID() && !slices.Contains(s.processes(), pid) {
					_ = syscall.Kill(pid, syscall.SIGKILL) // a guard
				}
			}
			left := belonging(opts.Dir)
			if len(left) == 0 {
				t.Error("nothing runs after the crash, so this test shows nothing")
			}
			s.release() // as the end of this process would
			second, err := start(t.Context(), e, opts, FreePorts)
			if err != nil {
				t.Fatalf("start after a crash = %v", err)
			}
			for _, pid := range left {
				if slices.Contains(belonging(opts.Dir), pid) {
					t.Errorf("process %d from before the crash still runs", pid)
				}
			}
			if err := second.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
			if second.Running() {
				t.Error("Running = true after Close")
			}
		})
	}
}
