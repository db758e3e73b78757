package servers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
)

// Install gets what an engine misses: a Debian package, as root or through sudo without a password; Kafka's files by Maven; Consul,
// Jaeger, Prometheus and kube-apiserver built from tools/ of the repository that the working folder is in, and NATS from its go.mod.
// What is built or fetched lies in the user's cache folder, under a name made from its list of versions. It tells progress what it
// does. When nothing is missing it returns at once and says nothing. It may be called concurrently, also from several processes.
func Install(ctx context.Context, e Engine, progress io.Writer) error {
	what, err := describe(e)
	if err != nil {
		return err
	}
	if _, err := what.find(); err == nil {
		return nil
	}
	if err := what.install(ctx, progress); err != nil {
		return fmt.Errorf("servers: install %s: %w", e, err)
	}
	if _, err := what.find(); err != nil {
		return fmt.Errorf("servers: %s was installed, and still: %w", e, err)
	}
	return nil
}

// program returns the path of a program, which may lie where only root's PATH leads.
func program(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{"/usr/local/bin", "/usr/bin", "/usr/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", err
}

// apt installs packages ("$@"). Their services are not started: the tests start their own. A list of packages that is missing or
// too old makes the first try fail.
const apt = `
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@" </dev/null 2>&1; }
install "$@" || { apt-get update -qq && install "$@"; }
`

// packages returns what installs Debian packages, one process at a time.
func packages(names ...string) func(context.Context, io.Writer) error {
	return func(ctx context.Context, progress io.Writer) error {
		if _, err := exec.LookPath("apt-get"); err != nil {
			return fmt.Errorf("there is no apt-get; install what Debian calls %q by hand: %w", names, err)
		}
		command := append([]string{"sh", "-c", apt, "sh"}, names...)
		if os.Geteuid() != 0 {
			command = append([]string{"sudo", "-n"}, command...)
		}
		cache, err := cacheDir()
		if err != nil {
			return err
		}
		return locked(filepath.Join(cache, "apt.lock"), func() error {
			fmt.Fprintf(progress, "apt-get install %q\n", names)
			return quiet(exec.CommandContext(ctx, command[0], command[1:]...))
		})
	}
}

// quiet runs a command, whose output is its error's text.
func quiet(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w:\n%s", filepath.Base(cmd.Path), err, tail(out, 4<<10))
	}
	return nil
}

func tail(text []byte, n int) []byte { return text[max(0, len(text)-n):] }

// A module is a Go module in tools/ with the programs that it builds: the server under the module's name, and others under their own.
type module struct {
	name, pkg string
	others    []string // packages
	tags      string
	required  bool // pkg is a module that ours requires, and there is none in tools/: tests and product have one version
}

// folders returns the module's folder in the repository, and that of the program in the cache.
func (m module) folders() (source, cache string, err error) {
	if m.required {
		return m.requirement()
	}
	if source, err = repository("tools/" + m.name); err != nil {
		return "", "", err
	}
	cache, err = cached(m.name, filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum"))
	return source, cache, err
}

// requirement is folders for a module that ours requires. Its version alone makes the name, since go.mod changes for much else.
func (m module) requirement() (source, cache string, err error) {
	source, err = repository("internal/test/servers") // the nearest go.mod may be another module's
	if err != nil {
		return "", "", err
	}
	source = filepath.Dir(filepath.Dir(filepath.Dir(source)))
	text, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", "", err
	}
	version := regexp.MustCompile(`(?m)^(?:require|\t)\s*` + regexp.QuoteMeta(m.pkg) + ` (\S+)`).FindSubmatch(text)
	if version == nil {
		return "", "", fmt.Errorf("%s/go.mod does not require %s", source, m.pkg)
	}
	cache, err = cacheDir()
	return source, filepath.Join(cache, m.name+"-"+string(version[1])), err
}

func (m module) find() (string, error) {
	_, cache, err := m.folders()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, m.name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("it is not built, %s is not there", path)
	}
	return path, nil
}

func (m module) install(ctx context.Context, progress io.Writer) error {
	source, cache, err := m.folders()
	if err != nil {
		return err
	}
	return fill(cache, func(part string) error {
		fmt.Fprintf(progress, "go build %s, which takes minutes when nothing of it is cached\n", m.pkg)
		if err := m.build(ctx, source, filepath.Join(part, m.name), m.pkg); err != nil {
			return err
		}
		for _, pkg := range m.others {
			if err := m.build(ctx, source, filepath.Join(part, path.Base(pkg)), pkg); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m module) build(ctx context.Context, source, to, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-tags", m.tags, "-o", to, pkg)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "GOOS=", "GOARCH=")
	return quiet(cmd)
}

// fill makes a folder of the cache whole or not at all. One process does it, others wait for it.
func fill(dir string, build func(part string) error) error {
	return locked(dir+".lock", func() error {
		if _, err := os.Stat(dir); err == nil {
			return nil // another process was faster
		}
		part, err := os.MkdirTemp(filepath.Dir(dir), "part-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(part)
		if err := build(part); err != nil {
			return err
		}
		if err := os.Chmod(part, 0o755); err != nil {
			return err
		}
		return os.Rename(part, dir)
	})
}

// cached returns the folder of the cache for what is made from files with this content.
func cached(name string, files ...string) (string, error) {
	hash := sha256.New()
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		hash.Write(text)
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, name+"-"+hex.EncodeToString(hash.Sum(nil)[:6])), nil
}

func cacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "kaptar", "servers"), nil
}

// repository looks for a path from the working folder upwards: tests run in their package's folder.
func repository(path string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		full := filepath.Join(dir, filepath.FromSlash(path))
		if _, err := os.Stat(full); err == nil {
			return full, nil
		}
		if filepath.Dir(dir) == dir {
			return "", errors.New(path + " is in no folder above the working folder")
		}
		dir = filepath.Dir(dir)
	}
}
