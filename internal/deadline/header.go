// Package deadline holds what both ends of a call share about time: the header with the time left,
// and a context whose deadline can move.
package deadline

import (
	"strconv"
	"time"
)

// Header carries, in an HTTP request, for how many more milliseconds the caller waits for the
// answer. It is a duration, not a point in time, so the clocks of two machines need not agree. gRPC
// has its own header for this (grpc-timeout).
const Header = "X-Request-Timeout-Ms"

// maxTimeout bounds what a peer can ask for, in milliseconds. More than a day is as good as no
// deadline, and a value near the limit of time.Duration would overflow when added to a time.
const maxTimeout = 24 * 60 * 60 * 1000

// Format returns d as a value of Header. Less than a millisecond is "1", because "0" would mean
// that the caller has gone.
func Format(d time.Duration) string {
	return strconv.FormatInt(max(d.Milliseconds(), 1), 10)
}

// Parse reads the value of Header. It reports false for anything but a positive decimal number
// without sign; values above a day are cut to a day.
func Parse(s string) (time.Duration, bool) {
	ms, err := strconv.ParseUint(s, 10, 60)
	if err != nil || ms == 0 {
		return 0, false
	}
	return time.Duration(min(ms, maxTimeout)) * time.Millisecond, true
}
