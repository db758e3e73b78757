// Package listen binds TCP ports, with errors that a person can act on.
package listen

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// TCP listens on addr. When that fails, the error names the address, who holds it where the system
// tells, and what to type instead: setting, such as LISTEN or --listen. errors.Is finds the cause
// in it, such as syscall.EADDRINUSE.
func TCP(addr, setting string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, explain(addr, setting, err)
	}
	return l, nil
}

// explained has a text for people and the cause for errors.Is.
type explained struct {
	text  string
	cause error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.cause }

func explain(addr, setting string, err error) error {
	reason := strings.TrimPrefix(err.Error(), "listen tcp: ")
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		reason = errno.Error()
	}
	text := fmt.Sprintf("listen on %s: %s", addr, reason)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		holder := portHolder(addr)
		if holder == "" {
			holder = "another process"
		}
		text += fmt.Sprintf(" by %s; stop it or set %s=HOST:PORT", holder, setting)
	case errors.Is(err, syscall.EACCES):
		text += fmt.Sprintf("; set %s=HOST:PORT with a port above 1023", setting)
	default:
		text += fmt.Sprintf("; set %s=HOST:PORT", setting)
	}
	return &explained{text, err}
}
