package local_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// openTerminal returns both ends of a new terminal.
func openTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	var number, locked int32
	for request, arg := range map[uintptr]*int32{0x80045430 /* TIOCGPTN */ : &number, 0x40045431 /* TIOCSPTLCK */ : &locked} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), request, uintptr(unsafe.Pointer(arg))); errno != 0 {
			t.Fatal(errno)
		}
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}

// The services log in colours when the supervisor is on a terminal, although they
// are not, unless the settings say something else.
func TestSplitOnTerminal(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		env, want string
	}{
		{"LOG_FORMAT=", "\x1b[36m"},
		{"NO_COLOR=1", " INFO  "},
		{"LOG_FORMAT=json", `"level":"INFO"`},
	} {
		p := newProgram(t)
		master, terminal := openTerminal(t)
		p.terminal, p.env = terminal, []string{test.env}
		go func() {
			for r := bufio.NewReader(master); ; {
				line, err := r.ReadString('\n')
				io.WriteString(&p.log, line)
				if err != nil {
					return
				}
			}
		}()
		p.startSplit()
		p.get("beta", "/pid")
		p.logged("/pid", "beta", test.want)
		p.signal(syscall.SIGTERM)
		p.logged("supervisor", "stopped", test.want)
		if code := p.wait(); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
		if colours := strings.Contains(p.log.String(), "\x1b["); colours != strings.HasPrefix(test.want, "\x1b") {
			t.Errorf("with %s there are colours: %v", test.env, colours)
		}
	}
}

// A list of processes shows which service each is, and no secret that was given on the command line.
func TestSplitCommandLine(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.startSplit("--set", "services.alpha.redis_url=redis://:hunter2@h", "--redis-url", "redis://:hunter2@other")
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid("alpha")))
	if err != nil {
		t.Fatal(err)
	}
	if args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00"); len(args) != 2 || args[1] != "--split-service=alpha" {
		t.Errorf("the command line of alpha's process is %q, want the program and --split-service=alpha", args)
	}
	if got := p.get("alpha", "/settings"); !strings.Contains(got, "redis://:hunter2@h ") {
		t.Errorf("alpha's settings are %q, want those of the command line", got)
	}
}
