package mutants

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/proc"
)

// A mutant is a promise and the change that breaks it.
type mutant struct {
	promise  string
	file     string // from the repository's root
	old, new string // old occurs once
	pkg      string // whose tests must fail
	run      string // which of them, as go test -run; "" for all
}

var (
	which = flag.String("mutants", "", "`revision`: try the mutants that differ from it in their file or their tests; \"all\": every mutant")
	limit = flag.Duration("for", 24*time.Hour, "start no further mutant after this `time`")
)

// TestMutants tries mutants. Without the flag it tries none, since each takes as long as the tests
// of its package.
func TestMutants(t *testing.T) {
	t.Chdir("../../..")
	all := mutants()
	switch *which {
	case "":
		return
	case "all":
	default:
		out, err := exec.Command("git", "diff", "--name-only", *which).CombinedOutput()
		if err != nil {
			t.Fatalf("git diff --name-only %s: %v: %s", *which, err, out)
		}
		all = touched(all, strings.Fields(string(out)))
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] }) // other runs have time for others
	begun, tried := time.Now(), 0
	for _, m := range all {
		if tried > 0 && time.Since(begun) > *limit {
			break
		}
		tried++
		t.Run(m.promise, func(t *testing.T) {
			if !m.killed(t) {
				t.Errorf("%s: no test of %s fails without %q", m.file, m.pkg, m.old)
			}
		})
	}
	t.Logf("tried %d mutants of %d", tried, len(all))
}

// touched returns the mutants whose file is in a package that has changed, or whose tests are.
func touched(all []mutant, changed []string) (out []mutant) {
	for _, m := range all {
		dirs := []string{path.Dir(m.file), path.Clean(m.pkg)}
		if slices.ContainsFunc(changed, func(f string) bool {
			return strings.HasSuffix(f, ".go") && slices.Contains(dirs, path.Dir(f))
		}) {
			out = append(out, m)
		}
	}
	return out
}

// killed runs the tests against m. A mutant that does not compile ends the test: it would pass for
// killed.
func (m mutant) killed(t *testing.T) bool {
	t.Helper()
	// In GOFLAGS the overlay also reaches the programs that tests build.
	env := append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+m.overlay(t))
	build := exec.CommandContext(t.Context(), "go", "vet", m.pkg)
	build.Env = env
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("does not build: %v\n%s", err, out)
	}
	test := exec.Command("go", "test", "-count=1", "-failfast", "-timeout", "2m", "-run", m.run, m.pkg)
	test.Env = env
	p, err := proc.Start(test, nil) // go test leaves the tests running when it is killed
	if err != nil {
		t.Fatal(err)
	}
	return p.Wait() != nil
}

// overlay writes the mutated file and go's description of it, and returns the latter's name.
func (m mutant) overlay(t *testing.T) string {
	t.Helper()
	original, err := filepath.Abs(filepath.FromSlash(m.file))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	mutated, description := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {original: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{mutated: m.mutate(t), description: list} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return description
}

// mutate returns the file with the change.
func (m mutant) mutate(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(m.file))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(text, []byte(m.old)); n != 1 {
		t.Fatalf("%s has %d times what is to be changed: %s", m.file, n, strings.TrimSpace(m.old))
	}
	return bytes.Replace(text, []byte(m.old), []byte(m.new), 1)
}

// TestMutantsFit keeps the list from rotting: every change still has its line, and compiles.
func TestMutantsFit(t *testing.T) {
	t.Chdir("../../..")
	packages := listed(t)
	for _, m := range mutants() {
		t.Run(m.promise, func(t *testing.T) {
			t.Parallel()
			if err := packages.compile(m.file, m.mutate(t)); err != nil {
				t.Errorf("with the change the package does not compile: %v", err)
			}
		})
	}
}

// packages are those of the module and what they import, by import path.
type packages map[string]struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	ImportMap               map[string]string
}

// listed compiles what has changed, and lists all.
func listed(t *testing.T) packages {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,ImportMap", "./...")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	all, next := packages{}, json.NewDecoder(bytes.NewReader(out))
	for next.More() {
		p := all[""]
		if err := next.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
	return all
}

// compile checks the types of file's package with text in its place.
func (all packages) compile(file string, text []byte) error {
	p := all[path.Join("github.com/kaptar/kaptar", path.Dir(file))]
	set := token.NewFileSet()
	var files []*ast.File
	for _, name := range p.GoFiles {
		var with any // nil: what is on the disk
		if name == path.Base(file) {
			with = text
		}
		f, err := parser.ParseFile(set, filepath.Join(p.Dir, name), with, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	check := types.Config{Importer: importer.ForCompiler(set, "gc", func(imported string) (io.ReadCloser, error) {
		return os.Open(all[cmp.Or(p.ImportMap[imported], imported)].Export)
	})}
	_, err := check.Check(p.ImportPath, set, files, nil)
	return err
}

// TestTouched: a change asks for the mutants of its packages and of their tests, and of no other.
func TestTouched(t *testing.T) {
	t.Parallel()
	all := []mutant{{file: "run.go", pkg: "."}, {file: "sqldb/sqlite.go", pkg: "./sqldb"}, {file: "shop/order/store.go", pkg: "./shop"}}
	for changed, want := range map[string]int{
		"run.go": 1, "live_test.go": 1, "sqldb/new.go": 1, "shop/order/x.go": 1, "shop/system_test.go": 1, "README.md": 0, "sqldb/doc.md": 0, "kv/kv.go": 0,
	} {
		if got := touched(all, []string{changed}); len(got) != want {
			t.Errorf("a change of %s touches %v, want %d", changed, got, want)
		}
	}
}
