//go:build !unix

package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
)

type account struct{}

func unprivileged() (*account, error) {
	return nil, fmt.Errorf("%w: a server cannot be started on %s", ErrMissing, runtime.GOOS)
}

func (a *account) String() string                       { return "" }
func (a *account) own(string) error                     { return nil }
func (a *account) barred(string) string                 { return "" }
func (a *account) share(path, _ string) (string, error) { return path, nil }

func locked(_ string, f func() error) error { return f() }
func tryLock(string) (io.Closer, error)     { return nil, errors.ErrUnsupported }
func belonging(string) []int                { return nil }
func endAll([]int) error                    { return nil }

func (s *Server) run(context.Context, string, ...string) error { return errors.ErrUnsupported }
func (s *Server) begin() error                                 { return errors.ErrUnsupported }
func (s *Server) running() bool                                { return false }
func (s *Server) pause(bool) error                             { return errors.ErrUnsupported }
func (s *Server) kill() error                                  { return nil }
func (s *Server) stop() error                                  { return nil }
func (s *Server) stopHelper()                                  {}
