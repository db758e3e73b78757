package rabbitmq

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
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

// TestReason: the library has only "not open" to say when the server's refusal was read before the
// first write. The error tells what was read, by TLS and without.
func TestReason(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tls  bool
		read error
		want string
	}{
		"certificate refused": {true, errors.New("remote error: tls: certificate required"), "the parameters cert and key: remote error: tls: certificate required"},
		"cut":                 {true, syscall.ECONNRESET, "the parameters cert and key: connection reset by peer"},
		"end by TLS":          {true, io.EOF, "EOF"},
		"end without TLS":     {false, io.EOF, "use amqps://: EOF"},
	} {
		near, far := net.Pipe()
		_ = far.Close()
		w := &wire{Conn: broken{near, c.read}}
		if _, err := w.Read(make([]byte, 1)); err == nil {
			t.Fatalf("%s: Read = nil error, want one", name)
		}
		b := &Broker{}
		b.opts.tls.On = c.tls
		if err := b.explain(t.Context(), &amqp.URI{}, w, amqp.ErrClosed); !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s: explain = %v, want %q", name, err, c.want)
		}
	}
}

// broken is a connection from which nothing but err is read.
type broken struct {
	net.Conn
	err error
}

func (b broken) Read([]byte) (int, error) { return 0, b.err }
