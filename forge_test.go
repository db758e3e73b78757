package kaptar_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/kaptar/kaptar"
)

// TestErrorCannotForgeLines: an error that quotes what a server said does not move the cursor or begin a line of its own.
func TestErrorCannotForgeLines(t *testing.T) {
	t.Parallel()
	service := kaptar.Service{Name: "a", Setup: func(*kaptar.App) error {
		return errors.New("server said \x1b[1A\x1b[2Kfine\r\n12:00:00.000 INFO  a all is well\u2028\u202e")
	}}
	var out strings.Builder
	code := (&kaptar.Program{Services: []kaptar.Service{service}}).Main([]string{"run", "--listen=127.0.0.1:0", "--set", "x\x1b[1A\n=1"}, &out, &out)
	if code != 1 || strings.ContainsAny(out.String(), "\x1b\r\u2028\u202e") {
		t.Errorf("exit code %d after %q", code, out.String())
	}
	out.Reset()
	code = (&kaptar.Program{Services: []kaptar.Service{service}}).Main([]string{"run", "--listen=127.0.0.1:0"}, &out, &out)
	if code != 1 || strings.ContainsAny(out.String(), "\x1b\r\u2028\u202e") || strings.Contains(out.String(), "\n12:00") || !strings.Contains(out.String(), "all is well") {
		t.Errorf("exit code %d after %q", code, out.String())
	}
}
