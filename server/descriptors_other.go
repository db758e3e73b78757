//go:build !unix

package server

// descriptors returns a number of connections that every system can have open.
func descriptors() int { return 1 << 16 }
