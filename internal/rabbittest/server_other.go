//go:build !linux

package rabbittest

import (
	"errors"
	"runtime"
)

type server struct{ amqp, management, password string }

func start() (*server, error) {
	return nil, errors.New("a server cannot be started on " + runtime.GOOS)
}

func (s *server) launch() error { return nil }
func (s *server) kill() error   { return nil }
func (s *server) end() error    { return nil }
