// Package listen binds TCP ports, with errors that a person can act on.
package listen

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"
)

// A port whose holder is ending is retried: a supervisor starts a service right after killing it,
// and the system needs a moment to close its sockets.
const (
	tries = 40
	pause = 50 * time.Millisecond
)

// TCP listens on addr. It waits up to 2 s for a holder that is ending or cannot be found. The error
// names the address, the holder if the system tells, and what to set instead: setting, such as
// LISTEN or --listen. errors.Is finds the cause, such as syscall.EADDRINUSE.
func TCP(addr, setting string) (net.Listener, error) {
	for try := 1; ; try++ {
		l, err := net.Listen("tcp", addr)
		if err == nil {
			return l, nil
		}
		holder, stays := "", true
		if errors.Is(err, syscall.EADDRINUSE) {
			holder, stays = portHolder(addr)
		}
		if stays || try == tries {
			return nil, explain(addr, setting, holder, err)
		}
		time.Sleep(pause)
	}
}

// explained has a text for people and the cause for errors.Is.
type explained struct {
	text  string
	cause error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.cause }

func explain(addr, setting, holder string, err error) error {
	reason := strings.TrimPrefix(err.Error(), "listen tcp: ")
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		reason = errno.Error()
	}
	text := fmt.Sprintf("listen on %s: %s", addr, reason)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		text += fmt.Sprintf(" by %s; stop it or set %s=HOST:PORT", cmp.Or(holder, "another process"), setting)
	case errors.Is(err, syscall.EACCES):
		text += fmt.Sprintf("; set %s=HOST:PORT with a port above 1023", setting)
	default:
		text += fmt.Sprintf("; set %s=HOST:PORT", setting)
	}
	return &explained{text, err}
}
