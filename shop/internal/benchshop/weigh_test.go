package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

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
