//go:build !unix

package natstest

import (
	"runtime"
	"testing"
)

type process struct{}

// Kill kills the server.
func (s *Server) Kill(testing.TB) {}

// Restart starts the server again.
func (s *Server) Restart(testing.TB) {}

// Wipe kills the server and removes what it stored.
func (s *Server) Wipe(testing.TB) {}

// Pause stops the server for a while.
func (s *Server) Pause(testing.TB) {}

// Resume lets a paused server go on.
func (s *Server) Resume(testing.TB) {}

func begin(t testing.TB, _ *Server, _ func(*Server) string) {
	t.Helper()
	t.Skip("natstest: servers are not started on " + runtime.GOOS)
}

func (c Cluster) await(testing.TB) {}

func freePorts(_ testing.TB, n int) []int { return make([]int, n) }
