// Package tutorial does what docs/tutorial.md tells to do, to the letter, as a module of its own.
package tutorial

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kaptartest"
)

const kaptar = "github.com/kaptar/kaptar"

// A file of the tutorial stands behind its name: `books/books.go`:
var file = regexp.MustCompile("(?s)\n`([^`\n]+)`:\n\n```[a-z]+\n(.*?)```")

// commands are the blocks of shell commands.
var commands = regexp.MustCompile("(?s)\n```sh\n(.*?)```")

func TestTutorial(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/tutorial.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := module(t)
	files := file.FindAllStringSubmatch(string(text), -1)
	if len(files) != 9 {
		t.Errorf("the tutorial has %d files; this test knows 9", len(files))
	}
	for _, f := range files {
		write(t, filepath.Join(dir, f[1]), f[2])
	}
	program := filepath.Join(dir, "library")
	run(t, dir, nil, "go", "build", "-o", program, ".")
	var curls string
	for _, block := range commands.FindAllStringSubmatch(string(text), -1) {
		if strings.HasPrefix(block[1], "curl") {
			curls = block[1]
		}
	}
	lend(t, dir, program, curls, string(text))
	run(t, dir, nil, "go", "test", "./...")
	deploy(t, dir, string(text))
}

// module makes an empty module that requires this repository as it is, with its versions of
// everything else, so that no network is needed.
func module(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(text))
	}
	run(t, dir, nil, "go", "mod", "edit", "-module=example.com/library", "-require="+kaptar+"@v0.0.0", "-replace="+kaptar+"="+root)
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs a command in dir, with env beside the test's own environment, and returns what it prints.
func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append(env, "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// lend runs the program and asks it what the tutorial asks, on ports of this test.
func lend(t *testing.T, dir, program, curls, text string) {
	t.Helper()
	ports := map[string]string{"localhost:8081": free(t), "localhost:8082": free(t)}
	cmd := exec.CommandContext(t.Context(), program, "--nats-listen="+free(t))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "BOOKS_LISTEN="+ports["localhost:8081"], "LOANS_LISTEN="+ports["localhost:8082"])
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the library printed:\n%s", out.String())
		}
	})
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop := func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // an ended one is found below
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Second):
			return fmt.Errorf("it still runs: %w", cmd.Process.Kill())
		}
	}
	kaptartest.Eventually(t, "the library is ready", func() error {
		for _, address := range ports {
			resp, err := http.Get("http://" + address + "/readyz")
			if err != nil {
				return err
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("%s: %s", address, resp.Status)
			}
		}
		return nil
	})
	for line := range strings.Lines(curls) {
		for says, is := range ports {
			line = strings.ReplaceAll(line, says, is)
		}
		run(t, dir, nil, "bash", "-c", strings.TrimSpace(line)+" -f")
	}
	want := regexp.MustCompile("The second answer is `([^`]+)`").FindStringSubmatch(text)
	kaptartest.Eventually(t, "the loan is counted", func() error {
		resp, err := http.Get("http://" + ports["localhost:8081"] + "/books/42")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && (want == nil || strings.TrimSpace(string(body)) != want[1]) {
			err = fmt.Errorf("the book is %s, the tutorial says %q", body, want)
		}
		return err
	})
	if err := stop(); err != nil {
		t.Errorf("the library did not stop gracefully: %v\n%s", err, out.String())
	}
}

// deploy builds the program of one service and asks it for its settings, as the tutorial does last.
func deploy(t *testing.T, dir, text string) {
	t.Helper()
	all := commands.FindAllStringSubmatch(text, -1)
	lines := strings.Split(strings.TrimSpace(all[len(all)-1][1]), "\n")
	if len(lines) != 3 || lines[0] != "go mod tidy" || !strings.HasSuffix(lines[2], "./loans-service config") {
		t.Fatalf("the last commands are %q; this test knows a tidy (it may need a network, so it is left out), a build and a config", lines)
	}
	run(t, dir, nil, "bash", "-c", lines[1])
	run(t, dir, nil, "./loans-service", "deadletters", "--help")
	out := run(t, dir, nil, "bash", "-c", lines[2])
	for _, want := range []string{"kafka://kafka:9092", "consul://consul:8500", "environment"} {
		if !strings.Contains(out, want) {
			t.Errorf("config does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "loans:secret") {
		t.Errorf("config shows a password:\n%s", out)
	}
}

func free(t *testing.T) string {
	t.Helper()
	return fmt.Sprint("127.0.0.1:", servertest.Port(t))
}
