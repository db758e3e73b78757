package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A program is one that is weighed, in MB, stripped.
type program struct {
	what, path string
	tags       string
	budget     float64 // 0: none
}

// programs are built the way the README says for production, except hello: that is what somebody
// gets who has read nothing. Without grpcnotrace, grpc links html/template for a debugging page,
// and the linker then keeps every exported method of every type.
func programs() []program {
	const production = "grpcnotrace"
	return []program{
		{"hello world, without a build tag", "shop/internal/hello", "", 20},
		{"PostgreSQL and Kafka", "shop/internal/thin", production, 28},
		{"PostgreSQL and Kafka, without a build tag", "shop/internal/thin", "", 0},
		{"shop", "shop", production, 60},
	}
}

// maxRequires is how many modules the go.mod of hello may require.
const maxRequires = 45

// build builds p and returns where it is and its MB.
func (p program) build(ctx context.Context, dir string) (bin string, mb float64, err error) {
	bin = filepath.Join(dir, filepath.Base(p.path)+p.tags)
	out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags="+p.tags, "-ldflags=-s -w", "-o", bin,
		"github.com/kaptar/kaptar/"+p.path).CombinedOutput()
	if err != nil {
		return "", 0, fmt.Errorf("build of %s: %w\n%s", p.path, err, out)
	}
	info, err := os.Stat(bin)
	if err != nil {
		return "", 0, err
	}
	return bin, float64(info.Size()) / 1e6, nil
}

// requires makes a module of its own of hello in dir and returns how many modules its go.mod
// requires once it is tidy. It begins with the versions of this repository, so that no network is
// needed.
func requires(ctx context.Context, dir string) (int, error) {
	root, err := goTool(ctx, ".", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return 0, err
	}
	root = strings.TrimSpace(root)
	for _, f := range []struct{ from, to string }{{"shop/internal/hello/main.go", "main.go"}, {"go.mod", "go.mod"}, {"go.sum", "go.sum"}} {
		text, err := os.ReadFile(filepath.Join(root, f.from))
		if err != nil {
			return 0, err
		}
		if err := os.WriteFile(filepath.Join(dir, f.to), text, 0o600); err != nil {
			return 0, err
		}
	}
	const kaptar = "github.com/kaptar/kaptar"
	if _, err := goTool(ctx, dir, "mod", "edit", "-module=example.com/hello", "-require="+kaptar+"@v0.0.0", "-replace="+kaptar+"="+root); err != nil {
		return 0, err
	}
	// -e: the tests of modules far away need some that nobody has downloaded.
	if _, err := goTool(ctx, dir, "mod", "tidy", "-e"); err != nil {
		return 0, err
	}
	text, err := goTool(ctx, dir, "mod", "edit", "-json")
	if err != nil {
		return 0, err
	}
	var mod struct{ Require []struct{ Path string } }
	if err := json.Unmarshal([]byte(text), &mod); err != nil {
		return 0, err
	}
	return len(mod.Require), nil
}

// goTool runs the go command in dir.
func goTool(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "GOPROXY=off")
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return string(out), err
}

// A budget holds for what somebody builds who imports little, so it is looked at with every test
// run.
func TestWeight(t *testing.T) {
	t.Parallel()
	for _, p := range programs() {
		if p.budget == 0 || p.path == "shop" { // what the whole weighs is told by make bench-shop
			continue
		}
		bin, mb, err := p.build(t.Context(), t.TempDir())
		if err != nil || mb > p.budget {
			t.Errorf("%s: %.1f MB, %v; want at most %g", p.what, mb, err, p.budget)
		}
		if err == nil && p.path == "shop/internal/hello" {
			lacks(t, bin)
		}
	}
	n, err := requires(t.Context(), t.TempDir())
	if err != nil || n == 0 || n > maxRequires {
		t.Errorf("hello world's go.mod requires %d modules, %v; want at most %d", n, err, maxRequires)
	}
}

// lacks asks a program that imports package kaptar alone for what it has not linked: the error says
// which line to add.
func lacks(t *testing.T, bin string) {
	cmd := exec.CommandContext(t.Context(), bin, "run", "--listen=127.0.0.1:0")
	cmd.Env = append(os.Environ(), "OTEL_EXPORTER_OTLP_ENDPOINT=http://ada:s3cret@h:4317")
	out, err := cmd.CombinedOutput()
	if want := `add import _ "github.com/kaptar/kaptar/telemetry/otlp"`; err == nil || !strings.Contains(string(out), want) || strings.Contains(string(out), "s3cret") {
		t.Errorf("an OTLP endpoint without exporters: %v, want %s and no password in\n%s", err, want, out)
	}
}
