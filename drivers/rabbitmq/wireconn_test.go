package rabbitmq

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// TestHold: small writes go together, in order, and at the latest when one of the holders releases
// them.
func TestHold(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	w := &wire{Conn: near}
	reads := make(chan string, 10)
	go func() {
		defer close(reads)
		buf := make([]byte, 1<<20)
		for {
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			reads <- string(buf[:n])
		}
	}()
	write := func(text string) {
		t.Helper()
		if n, err := io.WriteString(w, text); n != len(text) || err != nil {
			t.Fatalf("Write of %d bytes = %d, %v", len(text), n, err)
		}
	}
	write("a") // nobody holds
	w.hold()
	write("b")
	w.hold()
	write("c")
	if err := w.release(); err != nil {
		t.Fatal(err)
	}
	write("d") // the other one still holds
	write(strings.Repeat("e", heldBytes))
	if err := w.release(); err != nil {
		t.Fatal(err)
	}
	write("f")
	_ = w.Close()
	var got []string
	for text := range reads {
		got = append(got, text)
	}
	want := []string{"a", "bc", "d" + strings.Repeat("e", heldBytes), "f"}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the server read pieces of %d, want %d: a, bc, d with many e, f", len(got), len(want))
	}
}

// TestHoldLost: what was held back and did not go out is an error of release and ends the
// connection, whose reader tells the rest.
func TestHoldLost(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	w := &wire{Conn: near}
	w.hold()
	if _, err := io.WriteString(w, "a"); err != nil {
		t.Fatalf("Write while held = %v, want nil", err)
	}
	_ = far.Close()
	if err := w.release(); err == nil {
		t.Error("release to a closed connection = nil, want an error")
	}
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Read after a failed release = %v, want that it is closed", err)
	}
}
