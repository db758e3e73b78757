//go:build !unix

package proc

import (
	"errors"
	"os"
)

func (p *Process) start(opts *Options, _ []*os.File) error {
	if opts.Input != nil {
		return errors.ErrUnsupported
	}
	if p.cmd.WaitDelay == 0 {
		p.cmd.WaitDelay = lateOutput
	}
	return p.cmd.Start()
}

func (p *Process) terminate() { p.Kill() }

func (p *Process) killGroup() { _ = p.cmd.Process.Kill() } // or it has ended already

// Parent fails: no process is started with Options.Input here.
func Parent(any, int) (<-chan struct{}, []*os.File, error) { return nil, nil, errors.ErrUnsupported }

// KillOwnGroup ends this process.
func KillOwnGroup() { os.Exit(1) }
