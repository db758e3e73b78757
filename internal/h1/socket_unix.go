//go:build unix

package h1

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// peeker returns a function that reads without waiting.
func peeker(raw syscall.RawConn) func(p []byte) (int, error) {
	var p []byte
	var n int
	var err error
	read := func(fd uintptr) { n, err = syscall.Read(int(fd), p) } // the descriptor is non-blocking
	return func(into []byte) (int, error) {
		p = into
		e := raw.Control(read)
		p = nil
		switch {
		case e != nil:
			return 0, e
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
			return 0, os.ErrDeadlineExceeded
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}
