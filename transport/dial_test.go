package transport

import (
	"context"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// TestDialAgain: a dial whose process stood still is made again, and one that had its time is not.
func TestDialAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name              string
		took, callersTime time.Duration
		dials             int
	}{
		{"no answer", dialTimeout, time.Minute, 1},
		{"stood still", 2 * dialTimeout, time.Minute, 2},
		{"stood still until the caller had gone", 2 * dialTimeout, 2 * dialTimeout, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.callersTime)
				defer cancel()
				dials := 0
				_, err := dial(func(context.Context, string, string) (net.Conn, error) {
					if dials++; dials > 1 {
						return nil, nil
					}
					time.Sleep(c.took)
					synctest.Wait()
					return nil, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
				}).again(ctx, "tcp", "instance")
				if dials != c.dials || (err == nil) != (dials == 2) {
					t.Errorf("%d dials, %v, want %d", dials, err, c.dials)
				}
			})
		})
	}
}
