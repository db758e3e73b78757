// Package deadline holds what both ends of a call share about time: the header that carries what
// is left of it, and a context whose deadline can move.
package deadline

import (
	"strconv"
	"time"
)

// Header carries, in an HTTP request, how many milliseconds the caller will still wait for the
// answer. It is a span, not a point in time, so that the clocks of two machines need not agree.
// gRPC has a header of its own for this (grpc-timeout).
const Header = "X-Request-Timeout-Ms"

// maxTimeout bounds what a peer can ask for: more is as good as no deadline, and a value close to
// the limits of time.Duration would overflow when added to a time.
const maxTimeout = 24 * time.Hour

// Format writes d as the value of Header. Less than a millisecond is written as "1", because "0"
// would say that the caller has gone.
func Format(d time.Duration) string {
	return strconv.FormatInt(max(d.Milliseconds(), 1), 10)
}

// Parse reads the value of Header. It reports false for anything but a positive decimal number
// without sign; values above a day are cut to a day.
func Parse(s string) (time.Duration, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var ms int64
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		ms = ms*10 + int64(c-'0')
	}
	if ms <= 0 {
		return 0, false
	}
	if ms > maxTimeout.Milliseconds() {
		return maxTimeout, true
	}
	return time.Duration(ms) * time.Millisecond, true
}
