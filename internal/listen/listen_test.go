package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestTakenPort(t *testing.T) {
	t.Parallel()
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	_, err = TCP(held.Addr().String(), "LISTEN")
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("TCP on a taken port: got %v, want EADDRINUSE in its chain", err)
	}
	want := []string{held.Addr().String(), "address already in use", "LISTEN="}
	if runtime.GOOS == "linux" {
		want = append(want, fmt.Sprintf("pid %d", os.Getpid()))
	}
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestBadAddress(t *testing.T) {
	t.Parallel()
	for addr, part := range map[string]string{"nonsense": "missing port", "127.0.0.1:99999": "99999", "192.0.2.1:0": "cannot assign"} {
		if _, err := TCP(addr, "LISTEN"); err == nil || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), "LISTEN=HOST:PORT") {
			t.Errorf("TCP(%q): got %v, want an error with %q and LISTEN=HOST:PORT", addr, err, part)
		}
	}
}
