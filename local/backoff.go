package local

import "time"

// The delays before a service is started again.
const (
	firstDelay  = 200 * time.Millisecond
	longestWait = 10 * time.Second
	// healthyLife is how long a process must have lived for its end to count as the
	// first one.
	healthyLife = 30 * time.Second
)

// nextDelay returns how long to wait before the next start of a service that lived
// for the time lived; last is the delay before its last start, 0 for the first.
func nextDelay(last, lived time.Duration) time.Duration {
	if last == 0 || lived >= healthyLife {
		return firstDelay
	}
	return min(2*last, longestWait)
}
