//go:build !unix

package cpu

import "time"

// Time returns 0: unknown.
func Time() time.Duration { return 0 }
