package listen

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/internal/test/servers"
)

// TestMain listens where the test says, and waits to be killed.
func TestMain(m *testing.M) {
	addr := os.Getenv("LISTEN_TEST_ADDR")
	if addr == "" {
		os.Exit(m.Run())
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		panic(err)
	}
	room := make([]byte, 64<<20) // takes the system a moment to free
	for i := range room {
		room[i] = 1
	}
	os.Stdout.WriteString(l.Addr().String() + "\n")
	select {}
}

// TestPortOfAKilledProcess: who is started again at once gets the port.
func TestPortOfAKilledProcess(t *testing.T) {
	t.Parallel()
	ports, release, err := servers.FreePorts(1) // that nobody is given between two processes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	addr := fmt.Sprint("127.0.0.1:", ports[0])
	for range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "LISTEN_TEST_ADDR="+addr)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if _, err := TCP(addr, "LISTEN"); err == nil || !strings.Contains(err.Error(), "in use by pid") {
			t.Errorf("while it runs: %v, want an error that names it", err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		l, err := TCP(addr, "LISTEN")
		if err != nil {
			t.Fatalf("killed a moment ago: %v", err)
		}
		_ = l.Close()
		_ = cmd.Wait()
	}
}
