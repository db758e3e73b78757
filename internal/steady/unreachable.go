package steady

import (
	"context"
	"errors"
	"net"
)

// Unreachable reports whether err means that a server was not connected or did not answer in time.
func Unreachable(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	timed, may := errors.AsType[net.Error](err)
	return ok && op.Op == "dial" || may && timed.Timeout() || errors.Is(err, context.DeadlineExceeded)
}
