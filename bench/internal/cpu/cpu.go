// Package cpu tells how much CPU time this process has used.
package cpu

import (
	"syscall"
	"time"
)

// Time returns how long the processors were busy for this process.
func Time() time.Duration {
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) != nil {
		return 0
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
