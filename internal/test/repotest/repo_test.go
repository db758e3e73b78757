package repotest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/kaptar/kaptar"

const root = "../../.."

// run returns what a command prints when started at the root of the repository.
func run(name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	return out, nil
}

// A file is one file of the repository, with a path relative to its root.
type file struct {
	path, text string
}

func (f file) is(suffix string) bool { return strings.HasSuffix(f.path, suffix) }

// files returns the files that are in the repository or would be with git add.
var files = sync.OnceValues(func() ([]file, error) {
	out, err := run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return nil, err
	}
	names := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	slices.Sort(names)
	var all []file
	for _, name := range slices.Compact(names) {
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed but not yet from the index
		}
		if err != nil {
			return nil, err
		}
		all = append(all, file{name, string(text)})
	}
	return all, nil
})

// A source is a Go file.
type source struct {
	file
	fset   *token.FileSet
	syntax *ast.File
}

func (s source) test() bool      { return s.is("_test.go") }
func (s source) generated() bool { return ast.IsGenerated(s.syntax) }
func (s source) dir() string     { return path.Dir(s.path) }

// offence describes what is wrong at a node.
func (s source) offence(n ast.Node, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", s.path, s.fset.Position(n.Pos()).Line, fmt.Sprintf(format, args...))
}

// lines returns how many lines a node has.
func (s source) lines(n ast.Node) int {
	return s.fset.Position(n.End()).Line - s.fset.Position(n.Pos()).Line + 1
}

func parse(all []file) ([]source, error) {
	var sources []source
	fset := token.NewFileSet()
	for _, f := range all {
		if !f.is(".go") || strings.Contains("/"+f.path, "/testdata/") {
			continue
		}
		syntax, err := parser.ParseFile(fset, f.path, f.text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		sources = append(sources, source{f, fset, syntax})
	}
	return sources, nil
}

var sources = sync.OnceValues(func() ([]source, error) {
	all, err := files()
	if err != nil {
		return nil, err
	}
	return parse(all)
})

// A pkg is what go list tells about a package; paths are relative to the module, "." is its root.
type pkg struct {
	ImportPath, Name           string
	Imports, TestImports, Deps []string
	XTestImports               []string
}

var packages = sync.OnceValues(func() ([]pkg, error) {
	out, err := run("go", "list", "-json=ImportPath,Name,Imports,TestImports,XTestImports,Deps", "./...")
	if err != nil {
		return nil, err
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
})

// rel returns an import path relative to the module, and whether it is in it.
func rel(importPath string) (string, bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// get ends the test when what it needs cannot be had.
func get[T any](t *testing.T, f func() ([]T, error)) []T {
	t.Helper()
	all, err := f()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("nothing found")
	}
	return all
}

// report fails the test for each offence.
func report(t *testing.T, offences []string) {
	t.Helper()
	for _, o := range offences {
		t.Error(o)
	}
}
