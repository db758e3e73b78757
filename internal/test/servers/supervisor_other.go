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

func (a *account) String() string                              { return "" }
func (a *account) own(string) error                            { return nil }
func (a *account) barred(string) string                        { return "" }
func (a *account) share(path, _ string) (string, error)        { return path, nil }
func belonging(string) []int                                   { return nil }
func endAll([]int) error                                       { return nil }
func tryLock(string) (io.Closer, error)                        { return nil, errors.ErrUnsupported }
func locked(_ string, f func() error) error                    { return f() }
func (s *Server) run(context.Context, string, ...string) error { return errors.ErrUnsupported }

type supervisor struct{}

func supervise(*Server) (*supervisor, error) { return nil, errors.ErrUnsupported }

func (p *supervisor) start() error     { return errors.ErrUnsupported }
func (p *supervisor) running() bool    { return false }
func (p *supervisor) exited() bool     { return true }
func (p *supervisor) kill() error      { return nil }
func (p *supervisor) stop() error      { return nil }
func (p *supervisor) pause(bool) error { return errors.ErrUnsupported }
func (p *supervisor) close() error     { return nil }
