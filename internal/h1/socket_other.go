//go:build !unix

package h1

import "syscall"

// peeker returns nil: there is no way to read without waiting.
func peeker(syscall.RawConn) func(p []byte) (int, error) { return nil }
