package steady

import (
	"context"
	"errors"
	"net"
)

// Unreachable reports whether err says that there was no connection to a server, or no answer in time:
// waiting may help then. It does not of a name or address that is no address, nor of an answer.
func Unreachable(err error) bool {
	if _, ok := errors.AsType[*net.AddrError](err); ok {
		return false
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return true
	}
	timed, ok := errors.AsType[net.Error](err)
	return ok && timed.Timeout() || errors.Is(err, context.DeadlineExceeded)
}
