package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// fences are the code blocks of the README by language, in order.
func fences(t *testing.T, language string) []string {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllSubmatch(readme, -1) {
		out = append(out, string(m[1]))
	}
	return out
}

// TestReadmeCommands runs what the README tells to type: the shop with the
// README's arguments, then each curl, on the ports of this install.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil && os.Getenv("CI") == "" {
		t.Skip("the README's commands need curl: ", err)
	}
	blocks := fences(t, "sh")
	if len(blocks) != 5 || strings.TrimSpace(blocks[0]) != "go run ./shop --demo" || strings.TrimSpace(blocks[1]) != "make test" ||
		strings.TrimSpace(blocks[3]) != "go run ./shop --split --demo" || strings.TrimSpace(blocks[4]) != "make servers" {
		t.Fatalf("the README's commands are %q; this test knows: run the shop, make test, curl it, run it split, make servers", blocks)
	}
	for _, args := range [][]string{{"--demo"}, {"--split", "--demo"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			curls(t, open(t, "", args...), blocks[2])
		})
	}
}

// curls types the README's curls.
func curls(t *testing.T, s *shop, block string) {
	ports := strings.NewReplacer("localhost:8080", s.HTTP("gateway"), "localhost:8082", s.HTTP("order-service"), "localhost:8090", s.HTTP("bank"), ".kaptar/", filepath.Join(s.Dir, "data")+"/")
	env := os.Environ()
	run := func(command string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", command)
		cmd.Env = env
		return cmd.CombinedOutput()
	}
	for line := range strings.Lines(block) {
		line, comment, _ := strings.Cut(strings.TrimSpace(line), " # ")
		if name, value, ok := strings.Cut(line, "="); ok && !strings.Contains(name, " ") {
			out, err := run("printf %s " + ports.Replace(value))
			if err != nil {
				t.Fatalf("%s: %v %s", line, err, out)
			}
			env = append(env, name+"="+string(out))
			continue
		}
		status := 200
		switch code, _, told := strings.Cut(comment, ":"); {
		case told:
			status, _ = strconv.Atoi(code)
		case strings.Contains(line, "/users/999"):
			status = 404
		case strings.Contains(line, " -d "):
			status = 201
		}
		out, err := run(ports.Replace(line) + ` -w '\n%{http_code}'`)
		body, code, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		if i := strings.LastIndex(code, "\n"); i >= 0 {
			code = code[i+1:]
		}
		if want := strconv.Itoa(status); err != nil || strings.TrimSpace(code) != want {
			t.Errorf("%s\ngot %s %v, want status %s", line, out, err, want)
		}
		if !strings.Contains(line, "/metrics") && !json.Valid([]byte(body)) {
			t.Errorf("%s\nanswers with no JSON: %s", line, body)
		}
	}
}

// TestReadmeProgram builds the README's service and runs it.
func TestReadmeProgram(t *testing.T) {
	t.Parallel()
	blocks := fences(t, "go")
	if len(blocks) != 1 {
		t.Fatalf("the README has %d Go blocks; this test knows one", len(blocks))
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"main.go":                          blocks[0],
		"migrations/sqlite/0001_users.sql": "-- +goose Up\nCREATE TABLE users (id INTEGER PRIMARY KEY, username TEXT NOT NULL);\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(dir, "users")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, filepath.Join(dir, "main.go")).CombinedOutput(); err != nil {
		t.Fatalf("the README's program does not build: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), bin, "config")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "DATABASE_URL=sqlite:users.db")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "sqlite:users.db") {
		t.Errorf("its command config: %v, want the database's URL in\n%s", err, out)
	}
}
