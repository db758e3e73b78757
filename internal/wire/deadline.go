// Package wire holds the few names and formats that both ends of a call must agree on
// and that no standard settles.
package wire

import (
	"strconv"
	"time"
)

// DeadlineHeader carries, in an HTTP request, how many milliseconds the caller will still
// wait for the answer. It is a span, not a point in time, so that the clocks of two machines
// need not agree. gRPC has a header of its own for this (grpc-timeout).
const DeadlineHeader = "X-Request-Timeout-Ms"

// maxTimeout bounds what a peer can ask for: more is as good as no deadline, and a value
// close to the limits of time.Duration would overflow when added to a time.
const maxTimeout = 24 * time.Hour

// FormatTimeout writes d as the value of DeadlineHeader. Less than a millisecond is written
// as "1", because "0" would say that the caller has gone.
func FormatTimeout(d time.Duration) string {
	return strconv.FormatInt(max(d.Milliseconds(), 1), 10)
}

// ParseTimeout reads the value of DeadlineHeader. It reports false for anything but a
// positive decimal number without sign; values above a day are cut to a day.
func ParseTimeout(s string) (time.Duration, bool) {
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
