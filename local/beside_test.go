//go:build unix

package local_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/kv"
)

// store is the embedded one of the program.
func (p *program) store() kv.Store {
	p.t.Helper()
	backends := new(drivers.Set)
	p.t.Cleanup(func() { _ = backends.Close(context.Background()) })
	backend, err := backends.Open(p.t.Context(), p.brokerURL())
	if err != nil {
		p.t.Fatal(err)
	}
	store, err := backend.(interface{ Store() (kv.Store, error) }).Store()
	if err != nil {
		p.t.Fatal(err)
	}
	return store
}

// binary makes a program in the data directory whose services have that version.
func (p *program) binary(version string) string {
	p.t.Helper()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	path := filepath.Join(p.dir, version)
	if err := os.Symlink(self, path); err != nil {
		p.t.Fatal(err)
	}
	return path
}

func put(t *testing.T, store kv.Store, key, value string) {
	t.Helper()
	if _, err := store.Put(t.Context(), key, []byte(value)); err != nil {
		t.Fatal(err)
	}
}

// status waits until the supervisor says something that contains want; "" is nothing at all.
func status(t *testing.T, store kv.Store, key, want string) {
	t.Helper()
	eventually(t, func() string {
		e, err := store.Get(t.Context(), "local-status/"+key)
		switch {
		case errors.Is(err, kv.ErrNotFound):
			if want == "" {
				return ""
			}
		case err != nil:
			return err.Error()
		case want != "" && strings.Contains(string(e.Value), want):
			return ""
		}
		return fmt.Sprintf("%s: status %q, want %q", key, e.Value, want)
	})
}

// beside waits for a process of alpha v2 other than those, and returns its number; get asks it then.
func (p *program) beside(not ...int) (pid int) {
	p.t.Helper()
	eventually(p.t, func() string {
		for line := range strings.Lines(p.log.String()) {
			var record struct {
				Msg, HTTP string
				PID       int
			}
			if json.Unmarshal([]byte(line), &record) == nil && record.Msg == "beside: alpha v2: ready" {
				pid, p.http["v2"] = record.PID, record.HTTP
			}
		}
		if slices.Contains(append(not, 0), pid) {
			return fmt.Sprintf("alpha v2 is process %d", pid)
		}
		return ""
	})
	return pid
}

func TestSplitBeside(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.env = []string{"ALPHA_INSTANCE_ID=one", "ALPHA_DATABASE_URL=sqlite:own.db"}
	p.startSplit("--set", "services.alpha.max_body=5MiB", "--set", "services.alpha.listen="+p.http["alpha"])
	store := p.store()
	v2 := p.binary("v2")
	put(t, store, "local/alpha/v2", v2)
	first := p.beside()
	status(t, store, "alpha/v2", "ready")
	if got := p.pid("v2"); got != first || got == p.pid("alpha") || p.http["v2"] == p.http["alpha"] {
		t.Errorf("v2 is process %d at %s, want %d at an address of its own", got, p.http["v2"], first)
	}
	if got, want := p.get("v2", "/settings"), strings.Replace(p.get("alpha", "/settings"), ":50051", ":0", 1); got != want {
		t.Errorf("settings of v2: %q, want those of alpha %q", got, want)
	}
	eventually(t, func() string { // which has a pipe of its own
		if screen := p.stdout.String(); !strings.Contains(screen, fmt.Sprintf("alpha v2 runs beside   http://%s   pid ", p.http["v2"])) {
			return "the screen does not say what runs:\n" + screen
		}
		return ""
	})
	releases := p.again()
	releases.startBare("rollout", "list", "--data-dir", "data") // whose store is the program's
	if code := releases.wait(); code != 0 || !strings.Contains(releases.stdout.String(), "no releases yet") {
		t.Errorf("rollout list = %d, %q %q, want 0 and no releases", code, &releases.stdout, releases.log.String())
	}
	eventually(t, func() string {
		if got, err := p.try("beta", "/through/alpha"); err != nil || got != fmt.Sprint(first) {
			return fmt.Sprintf("beta reaches %q, %v, and never v2", got, err)
		}
		return ""
	})
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := p.beside(first)
	p.logged("beside: alpha v2: ended: signal: killed; tried again with a growing delay")
	status(t, store, "alpha/v2", "ready")
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	p.allGone(second)

	again := p.again()
	again.startSplit()
	store = again.store()
	third := again.beside()
	if err := os.Remove(filepath.Join(p.dir, "stops")); err != nil {
		t.Error(err)
	}
	if err := store.Delete(t.Context(), "local/alpha/v2"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if alive(third) {
			return fmt.Sprintf("process %d is there", third)
		}
		return ""
	})
	status(t, store, "alpha/v2", "")
	if got := p.read("stops"); got != "alpha before the broker\n" {
		t.Errorf("graceful stops: %q, want that of alpha", got)
	}
	alpha, beta := again.pid("alpha"), again.pid("beta")
	// The key comes back, and the supervisor is killed.
	put(t, store, "local/alpha/v2", v2)
	fourth := again.beside(third)
	again.signal(syscall.SIGKILL)
	again.wait()
	again.allGone(alpha, beta, fourth)
}

func TestSplitBesideRefused(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.startSplit()
	store := p.store()
	p.write("no.txt", "text")
	v2 := p.binary("v2")
	for key, test := range map[string]struct{ path, want string }{
		"alpha/v3":    {v2, `refused: binary ` + v2 + `: its alpha is "v2", not "v3": build "v3" there, or name the version that it has`},
		"alpha/v4":    {"v2", `refused: binary "v2": expected an absolute path`},
		"alpha/v5":    {filepath.Join(p.dir, "nosuch"), "nosuch: its command version: fork/exec"},
		"alpha/v6":    {filepath.Join(p.dir, "no.txt"), "permission denied: build a program of kaptar there, with alpha v6"},
		"alpha/v7":    {"/bin/echo", "it has no service alpha: build a program of kaptar there that has"},
		"alpha/v8":    {"", `binary "": expected an absolute path`},
		"alpha":       {v2, `its alpha is "v2", not ""`},
		"gamma/v2":    {v2, `there is no service "gamma": write the key local/SERVICE/VERSION with one of alpha, beta`},
		"beta/v2/two": {v2, `its beta is "v2", not "v2/two"`},
	} {
		put(t, store, "local/"+key, test.path)
		status(t, store, key, test.want)
	}
	p.logged("beside: alpha v3: refused: ")
	// What was wrong can be put right: under the same key, or in the file.
	put(t, store, "local/alpha/v2", filepath.Join(p.dir, "v2b"))
	status(t, store, "alpha/v2", "v2b: its command version: ")
	put(t, store, "local/alpha/v2", v2)
	status(t, store, "alpha/v2", "ready")
	put(t, store, "local/beta/v9", filepath.Join(p.dir, "v9"))
	status(t, store, "beta/v9", "v9: its command version: ")
	p.binary("v9")
	status(t, store, "beta/v9", "ready")
	for _, key := range []string{"alpha/v2", "alpha/v3", "alpha/v8"} {
		if err := store.Delete(t.Context(), "local/"+key); err != nil {
			t.Error(err)
		}
		status(t, store, key, "")
	}
	p.pid("alpha")
	p.pid("beta")
}
