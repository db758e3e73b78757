//go:build unix

package server

import "syscall"

// descriptors returns how many files and connections the process may have open. The Go runtime has
// already raised the soft limit to the hard one.
func descriptors() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, 1<<20))
}
