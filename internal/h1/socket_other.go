//go:build !unix

package h1

import "syscall"

// peekRaw is for systems whose sockets can be read without waiting.
func peekRaw(syscall.RawConn) func(p []byte) (int, error) { return nil }
