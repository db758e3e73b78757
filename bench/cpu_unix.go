//go:build unix

package main

import (
	"syscall"
	"time"
)

// cpuTime returns how long the processors were busy for this process.
func cpuTime() time.Duration {
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) != nil {
		return 0
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
