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

// A product is made in the user's cache folder, under a name with its version.
type product struct {
	name     string
	from     string   // for people
	sources  []string // files of the repository, whose content is the version
	requires string   // or the module whose version in our go.mod is that of the product
	program  string   // the path below the folder; empty: the folder
	make     func(ctx context.Context, part string, progress func(line string)) error

	// Without make: the programs that a Go module in tools/, or ours, builds. Where the product has
	// a program, that is the first; the others are called like their packages.
	pkgs    []string
	tags    string
	ldflags string
	// files of modules that the module requires, as "module//file": they lie beside the programs.
	files []string
}

// tool returns the product of the Go module tools/name.
func tool(name string, pkgs ...string) product {
	dir := "tools/" + name
	return product{name: name, from: "built from " + dir, sources: []string{dir + "/go.mod", dir + "/go.sum"}, program: name, pkgs: pkgs}
}

// folder returns the product's place in the cache.
func (p product) folder() (string, error) {
	if p.requires != "" {
		version, err := required(p.requires)
		if err != nil {
			return "", err
		}
		return cached(p.name + "-" + version)
	}
	files := make([]string, len(p.sources))
	for i, source := range p.sources {
		var err error
		if files[i], err = Repository(source); err != nil {
			return "", err
		}
	}
	return versioned(p.name, files...)
}

func (p product) find() (string, error) {
	folder, err := p.folder()
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, p.program)
	_, err = os.Stat(path)
	return path, err
}

func (p product) fetch(ctx context.Context, progress func(line string)) error {
	folder, err := p.folder()
	if err != nil {
		return err
	}
	return fill(folder, func(part string) error {
		if p.make == nil {
			return p.build(ctx, part, progress)
		}
		return p.make(ctx, part, progress)
	})
}

// build builds the programs. Of what go prints, its packages are counted: there are up to 3,000.
func (p product) build(ctx context.Context, part string, progress func(line string)) error {
	module := "tools/" + p.name
	if p.requires != "" {
		module = here
	}
	dir, err := Repository(module)
	if err != nil {
		return err
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "GOOS=", "GOARCH=", "CGO_ENABLED=0")
		return cmd
	}
	n := 0
	for i, pkg := range p.pkgs {
		to := path.Base(pkg)
		if i == 0 && p.program != "" {
			to = p.program
		}
		if err := follow(command("build", "-v", "-trimpath", "-ldflags", "-s -w "+p.ldflags, "-tags", p.tags, "-o", filepath.Join(part, to), pkg), func(line string) {
			if !strings.Contains(line, " ") {
				n++
				line = fmt.Sprintf("%d packages compiled, %s", n, line)
			}
			progress(line)
		}); err != nil {
			return err
		}
	}
	for _, f := range p.files {
		module, file, _ := strings.Cut(f, "//")
		out, err := command("list", "-m", "-f", "{{.Dir}}", module).Output()
		if err != nil {
			return fmt.Errorf("go list -m %s: %w", module, err)
		}
		text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), file))
		if err == nil {
			err = os.WriteFile(filepath.Join(part, path.Base(file)), text, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// here is this package's folder, which tells our go.mod from those of other modules.
const here = "internal/test/servers"

// required returns the version of a module that our go.mod requires.
func required(module string) (string, error) {
	dir, err := Repository(here)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "..", "..", "..", "go.mod")
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	version := regexp.MustCompile(`(?m)^(?:require|\t)\s*` + regexp.QuoteMeta(module) + ` (\S+)`).FindSubmatch(text)
	if version == nil {
		return "", fmt.Errorf("%s does not require %s", path, module)
	}
	return string(version[1]), nil
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

// Repository looks for a path from the working folder upwards: tests run in their package's folder.
func Repository(path string) (string, error) {
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
