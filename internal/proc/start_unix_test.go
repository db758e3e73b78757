//go:build unix

package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/waittest"
)

// The test binary is also the programs that the tests start.
const roleEnv = "KAPTAR_PROC_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "parent": // starts a process in the directory, says when it runs, and hangs
		os.Unsetenv(roleEnv)
		cmd := exec.Command("/bin/sh", "-c", "sleep 1000 & echo $! >child; echo $$ >pid.new; mv pid.new pid; wait")
		if _, err := Start(cmd, &Options{Orphaned: "echo bye >bye; mv bye orphaned"}); err != nil {
			panic(err)
		}
		select {}
	case "parent of one that follows":
		if _, err := Start(self("follower"), &Options{Input: 1, Outputs: []io.Writer{io.Discard}}); err != nil {
			panic(err)
		}
		select {}
	case "follower":
		follow()
	}
	os.Exit(m.Run())
}

// follow tells what it was given, and says in a file when its parent has ended.
func follow() {
	var input any
	lost, files, err := Parent(&input, 1)
	if err != nil {
		fmt.Print(err)
		os.Exit(2)
	}
	fmt.Printf("input %v", input)
	files[0].WriteString("output\n")
	tell("pid", strconv.Itoa(os.Getpid()))
	<-lost
	tell("lost", "yes")
	os.Exit(0)
}

func tell(file, text string) {
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		panic(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		panic(err)
	}
}

func self(role string) *exec.Cmd {
	program, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	return cmd
}

// read waits for a file.
func read(t *testing.T, path string) string {
	t.Helper()
	var text []byte
	eventually(t, path+" is there", func() (ok bool) {
		var err error
		text, err = os.ReadFile(path)
		return err == nil
	})
	return strings.TrimSpace(string(text))
}

func eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	waittest.Until(t, what, check)
}

// gone waits until the process runs no longer.
func gone(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "process "+pid+" is gone", func() bool {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return errors.Is(syscall.Kill(n, 0), syscall.ESRCH)
		}
		return strings.Contains(string(stat), ") Z") // nobody here takes in orphans
	})
}

// A process ends with the one that started it, with all that it has started itself.
func TestParentKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	parent := self("parent")
	parent.Dir = dir
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	pid, child := read(t, filepath.Join(dir, "pid")), read(t, filepath.Join(dir, "child"))
	_ = parent.Process.Kill()
	_ = parent.Wait()
	gone(t, pid)
	gone(t, child)
	if got := read(t, filepath.Join(dir, "orphaned")); got != "bye" {
		t.Errorf("the command for orphans wrote %q", got)
	}
}

func TestParentOfFollowerKilled(t *testing.T) {
	t.Parallel()
	parent := self("parent of one that follows")
	parent.Dir = t.TempDir()
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	pid := read(t, filepath.Join(parent.Dir, "pid"))
	_ = parent.Process.Kill()
	_ = parent.Wait()
	read(t, filepath.Join(parent.Dir, "lost"))
	gone(t, pid)
}

func TestInputAndOutputs(t *testing.T) {
	t.Parallel()
	cmd := self("follower")
	cmd.Dir = t.TempDir()
	var stdout, output bytes.Buffer
	cmd.Stdout = &Lines{W: &stdout, Prefix: "p: "}
	big := strings.Repeat("x", 1<<19) // more than a pipe takes
	p, err := Start(cmd, &Options{Input: big, Outputs: []io.Writer{&Lines{W: &output}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(cmd.Dir, "pid")); got != strconv.Itoa(p.PID()) {
		t.Errorf("it is process %s, want %d", got, p.PID())
	}
	p.Kill()
	if err := p.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("Wait = %v, want that it was killed", err)
	}
	if got, want := stdout.String(), "p: input "+big+"\n"; got != want {
		t.Errorf("standard output is %.100q, want %.100q", got, want)
	}
	if output.String() != "output\n" {
		t.Errorf("output is %q", output.String())
	}
}

func TestParentWithoutOne(t *testing.T) {
	t.Parallel()
	cmd := self("follower")
	var out bytes.Buffer
	cmd.Stdout = &out
	p, err := Start(cmd, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err == nil || !strings.Contains(out.String(), "no pipe from a parent") {
		t.Errorf("it ended with %v and said %q", err, out.String())
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ script, want string }{
		"gracefully": {"trap 'exit 7' TERM; touch pid; while :; do sleep 0.01; done", "exit status 7"},
		"by force":   {"trap '' TERM; touch pid; while :; do sleep 0.01; done", "signal: killed"},
		"when it is paused": {"trap 'exit 7' TERM; touch pid; kill -STOP $$; while :; do sleep 0.01; done",
			"exit status 7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("/bin/sh", "-c", test.script)
			cmd.Dir = t.TempDir()
			p, err := Start(cmd, nil)
			if err != nil {
				t.Fatal(err)
			}
			read(t, filepath.Join(cmd.Dir, "pid"))
			if name == "when it is paused" { // or it might be continued first, and paused then
				eventually(t, "it is paused", func() bool {
					stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
					return err != nil || strings.Contains(string(stat), ") T")
				})
			}
			timeout := time.Minute
			if name == "by force" {
				timeout = 50 * time.Millisecond
			}
			p.Stop(timeout)
			if err := p.Wait(); err == nil || err.Error() != test.want {
				t.Errorf("Wait = %v, want %s", err, test.want)
			}
			p.Stop(0) // of one that has ended
			p.Kill()
		})
	}
}

// What a process has left behind in its group is killed, and does not hold up its end.
func TestLeftBehind(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/bin/sh", "-c", "sleep 1000 & echo $!")
	var out bytes.Buffer
	cmd.Stdout = &Lines{W: &out}
	p, err := Start(cmd, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("Wait = %v, want nil", err)
	}
	gone(t, strings.TrimSpace(out.String()))
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]*Options{"with a guard": nil, "alone": {Input: 1}, "bad input": {Input: func() {}}} {
		if _, err := Start(exec.Command("/nowhere/program"), opts); err == nil || !strings.Contains(err.Error(), "/nowhere/program") {
			t.Errorf("%s: Start = %v, want an error that names the program", name, err)
		}
	}
}

// Ctrl-C at the terminal goes to the group of this process, and so not to its children.
func TestOwnGroup(t *testing.T) {
	t.Parallel()
	p, err := Start(exec.Command("sleep", "1000"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	if group, err := syscall.Getpgid(p.PID()); err != nil || group == syscall.Getpgrp() {
		t.Errorf("its process group is %d, %v, want one of its own", group, err)
	}
}
