package rabbitmq

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const heldBytes = 32 << 10 // that are written together

// A wire is a connection that limits how long a write may block. It can also hold small writes back
// and send them together, since the library makes one for each message.
type wire struct {
	net.Conn

	mu      sync.Mutex
	holders int
	held    []byte

	ended atomic.Pointer[error] // the first error of Read; not under mu, which a slow write holds
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.ended.CompareAndSwap(nil, &err)
	}
	return n, err
}

// reason returns why the connection has ended, or err if that is not known.
func (w *wire) reason(err error) error {
	if ended := w.ended.Load(); ended != nil {
		return *ended
	}
	return err
}

// Write implements net.Conn. An error may belong to an earlier write that was held back.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.holders == 0 {
		return w.write(p)
	}
	if w.held = append(w.held, p...); len(w.held) < heldBytes {
		return len(p), nil
	}
	return len(p), w.flush()
}

// hold holds writes back until release, or until there are heldBytes.
func (w *wire) hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holders++
}

// release writes what is held back, including that of other holders.
func (w *wire) release() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holders--
	return w.flush()
}

// flush closes the connection when it fails, since part of what the server should get is missing.
// The caller holds mu.
func (w *wire) flush() error {
	if len(w.held) == 0 {
		return nil
	}
	_, err := w.write(w.held)
	w.held = w.held[:0]
	if err != nil {
		_ = w.Close()
	}
	return err
}

func (w *wire) write(p []byte) (int, error) {
	if err := w.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return w.Conn.Write(p)
}
