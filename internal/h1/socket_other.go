//go:build !unix

package h1

import "syscall"

// peeker returns nil: there is no way to read without waiting, so a connection that was idle is
// believed to be alive, and nothing to have come over it.
func peeker(syscall.RawConn) func(p []byte) (int, error) { return nil }
