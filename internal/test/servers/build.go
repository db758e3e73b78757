package servers

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// follow runs a command and hands its lines to progress. The last of them are in its error.
func follow(cmd *exec.Cmd, progress func(line string)) error {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	var last []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		progress(lines.Text())
		last = append(last[max(0, len(last)-40):], lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w:\n%s", filepath.Base(cmd.Path), err, strings.Join(last, "\n"))
	}
	return nil
}

// A module is a Go module in tools/ with the programs that it builds: the server under the module's
// name, and others under their own.
type module struct {
	name, pkg string
	others    []string // packages
	tags      string
	required  bool // pkg is a module that ours requires, and there is none in tools/: tests and product have one version

	minutes, gigabytes float64
}

func (m module) recipe() recipe {
	from := "built from tools/" + m.name
	if m.required {
		from = "built in the version of go.mod"
	}
	return recipe{find: m.find, fetch: m.build, from: from, minutes: m.minutes, gigabytes: m.gigabytes}
}

// folders returns the module's folder in the repository, and that of the program in the cache.
func (m module) folders() (source, cache string, err error) {
	if m.required {
		return m.requirement()
	}
	if source, err = repository("tools/" + m.name); err != nil {
		return "", "", err
	}
	cache, err = versioned(m.name, filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum"))
	return source, cache, err
}

// requirement is folders for a module that ours requires. Its version alone makes the name, since
// go.mod changes for much else.
func (m module) requirement() (source, cache string, err error) {
	const here = "internal/test/servers" // the nearest go.mod may be another module's
	if source, err = repository(here); err != nil {
		return "", "", err
	}
	source = strings.TrimSuffix(source, filepath.FromSlash("/"+here))
	text, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", "", err
	}
	version := regexp.MustCompile(`(?m)^(?:require|\t)\s*` + regexp.QuoteMeta(m.pkg) + ` (\S+)`).FindSubmatch(text)
	if version == nil {
		return "", "", fmt.Errorf("%s/go.mod does not require %s", source, m.pkg)
	}
	cache, err = cached(m.name + "-" + string(version[1]))
	return source, cache, err
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

// build builds the programs. Of what go prints, its packages are counted: there are up to 3,000.
func (m module) build(ctx context.Context, progress func(line string)) error {
	source, cache, err := m.folders()
	if err != nil {
		return err
	}
	return fill(cache, func(part string) error {
		n := 0
		for _, pkg := range append([]string{m.pkg}, m.others...) {
			to := filepath.Join(part, path.Base(pkg))
			if pkg == m.pkg {
				to = filepath.Join(part, m.name)
			}
			cmd := exec.CommandContext(ctx, "go", "build", "-v", "-trimpath", "-ldflags", "-s -w", "-tags", m.tags, "-o", to, pkg)
			cmd.Dir = source
			cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "GOOS=", "GOARCH=")
			if err := follow(cmd, func(line string) {
				if !strings.Contains(line, " ") {
					n++
					line = fmt.Sprintf("%d packages compiled, %s", n, line)
				}
				progress(line)
			}); err != nil {
				return err
			}
		}
		return nil
	})
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

// versioned returns the path in the cache for what is made from files with this content.
func versioned(name string, files ...string) (string, error) {
	hash := sha256.New()
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		hash.Write(text)
	}
	return cached(name + "-" + hex.EncodeToString(hash.Sum(nil)[:6]))
}

// cached returns a path in the user's cache folder.
func cached(name string) (string, error) {
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "kaptar", "servers", name), err
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
