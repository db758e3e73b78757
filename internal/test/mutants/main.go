// Command mutants breaks the promises of the toolkit one at a time and sees that tests notice: make mutants. Each mutant is one
// change of one line, built as an overlay, so the tree is never touched. It ends with status 1 when a mutant survives.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A mutant is a promise and the change that breaks it.
type mutant struct {
	promise  string
	file     string // from the repository's root
	old, new string // old occurs once
	pkg      string // whose tests must fail
	run      string // which of them, as go test -run; "" for all
}

const testTimeout = 5 * time.Minute // for the tests against one mutant

func main() {
	since := flag.String("since", "", "try only mutants whose file or tests differ from this `revision`")
	limit := flag.Duration("for", 24*time.Hour, "start no further mutant after this `time`")
	flag.Parse()
	all := mutants()
	if *since != "" {
		changed, err := changes(*since)
		if err != nil {
			fmt.Fprintln(os.Stderr, "mutants:", err)
			os.Exit(1)
		}
		all = touched(all, changed)
	}
	survivors, err := run(context.Background(), all, time.Now().Add(*limit))
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	if err != nil || survivors > 0 {
		os.Exit(1)
	}
}

// changes returns the files that differ from a revision.
func changes(since string) ([]string, error) {
	out, err := exec.Command("git", "diff", "--name-only", since).Output()
	if err != nil {
		return nil, fmt.Errorf("git diff --name-only %s: %w", since, err)
	}
	return strings.Fields(string(out)), nil
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

// run tries mutants until the deadline, and at least one.
func run(ctx context.Context, all []mutant, deadline time.Time) (survivors int, err error) {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary directory
	tried := 0
	for _, m := range all {
		begun := time.Now()
		if tried > 0 && begun.After(deadline) {
			break
		}
		killed, err := try(ctx, dir, m)
		if err != nil {
			return survivors, fmt.Errorf("%s: %w", m.promise, err)
		}
		tried++
		result := "killed  "
		if !killed {
			result = "SURVIVED"
			survivors++
		}
		fmt.Printf("%s %5.1f s  %s\n", result, time.Since(begun).Seconds(), m.promise)
	}
	fmt.Printf("%d mutants, %d survived, %d not tried for lack of time\n", tried, survivors, len(all)-tried)
	return survivors, nil
}

// try runs the tests against m. A mutant that does not compile is an error: it would pass for killed.
func try(ctx context.Context, dir string, m mutant) (killed bool, err error) {
	overlay, err := m.overlay(dir)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	// In GOFLAGS it also reaches the programs that tests build.
	env := append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay)
	build := exec.CommandContext(ctx, "go", "vet", m.pkg)
	build.Env = env
	if out, err := build.CombinedOutput(); err != nil {
		return false, fmt.Errorf("does not build: %w\n%s", err, out)
	}
	test := exec.CommandContext(ctx, "go", "test", "-count=1", "-failfast", "-timeout", "2m", "-run", m.run, m.pkg)
	test.Env = env
	return test.Run() != nil, nil
}

// overlay writes the mutated file and go's description of it, and returns the latter's name.
func (m mutant) overlay(dir string) (string, error) {
	text, err := m.mutate()
	if err != nil {
		return "", err
	}
	original, err := filepath.Abs(filepath.FromSlash(m.file))
	if err != nil {
		return "", err
	}
	mutated, description := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {original: mutated}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(mutated, text, 0o600); err != nil {
		return "", err
	}
	return description, os.WriteFile(description, list, 0o600)
}

// mutate returns the file with the change.
func (m mutant) mutate() ([]byte, error) {
	text, err := os.ReadFile(filepath.FromSlash(m.file))
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(text, []byte(m.old)); n != 1 {
		return nil, fmt.Errorf("%s has %d times what is to be changed: %s", m.file, n, strings.TrimSpace(m.old))
	}
	return bytes.Replace(text, []byte(m.old), []byte(m.new), 1), nil
}
