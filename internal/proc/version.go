package proc

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// versionTimeout is how long a program has to tell its version.
const versionTimeout = 10 * time.Second

// CheckVersion runs the command version of the program at path, to check that its service of that
// name has that version. The error says what to do. When ctx ends the program is killed.
func CheckVersion(ctx context.Context, path, service, version string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("binary %q: expected an absolute path", path)
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("binary %s: its command version: %w: build a program of kaptar there, with %s %s", path, err, service, version)
	}
	for line := range strings.Lines(string(out)) {
		name, says, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case name != service:
		case says != version:
			return fmt.Errorf("binary %s: its %s is %q, not %q: build %[4]q there, or name the version that it has", path, service, says, version)
		default:
			return nil
		}
	}
	return fmt.Errorf("binary %s: it has no service %s: build a program of kaptar there that has", path, service)
}
