//go:build !unix

package kafkatest

import (
	"errors"
	"runtime"
	"testing"
)

// A Server is a broker that a test may stop and start again.
type Server struct{}

func newServer() (*Server, error) {
	return nil, errors.New("a server cannot be started on " + runtime.GOOS)
}

func (s *Server) close() error { return nil }

// URL returns the broker's URL.
func (s *Server) URL() string { return "" }

// Kill kills the broker.
func (s *Server) Kill(testing.TB) {}

// Restart starts the broker again.
func (s *Server) Restart(testing.TB) {}
