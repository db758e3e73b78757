package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/internal/test/cluster"
)

// binary is the shop's program, built once for all tests here. KAPTAR_SHOP_BINARY
// names another one to test: one with a fault in it, which the suite has to find.
var binary string

// built is a folder for what is built during the tests.
var built string

func TestMain(m *testing.M) {
	cluster.Init()
	flag.Parse()
	// These tests load the machine, so -parallel counts for those of other packages, which mostly wait.
	if err := flag.Set("test.parallel", strconv.Itoa(runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "shop")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built = dir
	if binary = os.Getenv("KAPTAR_SHOP_BINARY"); binary != "" {
		return m.Run()
	}
	binary = filepath.Join(dir, "shop")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// A client calls the services of one install for one test, as a user or as the operator.
type client struct {
	*install
	t    testing.TB
	user int64 // 0: the operator
}

// A shop is an install of the program with all services in one process.
type shop struct {
	client
	*process
}

// open starts a shop in a directory of its own; extra is YAML for its settings.
func open(t *testing.T, extra string, args ...string) *shop {
	t.Helper()
	in := newInstall(t, binary)
	in.Extra = extra
	s := &shop{client: client{install: in, t: t}}
	s.start(args...)
	return s
}

// start starts the shop, again if need be, on the same ports and data.
func (s *shop) start(args ...string) {
	s.t.Helper()
	p, err := s.install.Start(context.Background(), args...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.process = p
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("the shop's log:\n%s", p.Log())
		}
		p.Kill()
	})
}

// interrupt stops the shop as Ctrl-C does and checks that it stops gracefully.
func (s *shop) interrupt() {
	s.t.Helper()
	if err := s.Signal(os.Interrupt); err != nil {
		s.t.Fatal(err)
	}
	if err := s.process.Wait(); err != nil {
		s.t.Errorf("after an interrupt: %v; its log:\n%s", err, s.Log())
	}
}

// shopArgs is a command line without the program.
type shopArgs []string

func (a shopArgs) same() []string { return a }

// refused starts a shop that must not start and checks what it says.
func refused(t *testing.T, want int, args func(shopArgs) []string, yaml string, says []string) {
	t.Helper()
	in := newInstall(t, binary)
	in.Extra = yaml
	stdout, stderr, code := in.Fail(t.Context(), args(in.Args()))
	if code != want {
		t.Errorf("exit code %d, want %d; it said %s%s", code, want, stdout, stderr)
	}
	for _, part := range says {
		if !strings.Contains(stderr, part) {
			t.Errorf("it does not say %q, but:\n%s", part, stderr)
		}
	}
	if strings.Contains(stderr, "panic") || strings.Contains(stderr, "goroutine ") {
		t.Errorf("it shows a stack:\n%s", stderr)
	}
	for _, service := range []string{"gateway", "user-service", "bank"} {
		if conn, err := net.Dial("tcp", in.HTTP(service)); err == nil {
			conn.Close()
			t.Errorf("%s was left listening", service)
		}
	}
}
