//go:build unix

package proc

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// guard waits for the end of its input, which comes when the process that has the other end has
// ended, however it did. Whatever else is in its process group ends with it.
const guard = `trap '' INT TERM QUIT HUP
read -r _
eval "$1"
kill -KILL -$$
`

// start starts the guard, if there is one, and then the process in its group. The guard comes
// first: there is no moment at which nobody would see the end of this process.
func (p *Process) start(opts *Options, theirs []*os.File) error {
	attr := new(syscall.SysProcAttr)
	if p.cmd.SysProcAttr != nil {
		*attr = *p.cmd.SysProcAttr
	}
	attr.Setpgid = true
	if p.cmd.WaitDelay == 0 {
		p.cmd.WaitDelay = lateOutput
	}
	if opts.Input != nil {
		p.cmd.ExtraFiles = append(theirs, p.cmd.ExtraFiles...)
		p.cmd.SysProcAttr = attr
		if err := p.cmd.Start(); err != nil {
			return err
		}
		p.group = p.cmd.Process.Pid
		return nil
	}
	leader := *attr
	p.guard = exec.Command("/bin/sh", "-c", guard, "guard of "+p.cmd.Path, opts.Orphaned)
	p.guard.Dir, p.guard.Env, p.guard.Stdin, p.guard.SysProcAttr = p.cmd.Dir, p.cmd.Env, theirs[0], &leader
	if err := p.guard.Start(); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	p.group = p.guard.Process.Pid
	attr.Pgid = p.group
	p.cmd.SysProcAttr = attr
	if err := p.cmd.Start(); err != nil {
		p.killGroup()
		_ = p.guard.Wait() // it was killed
		return err
	}
	return nil
}

func (p *Process) terminate() {
	_ = p.Signal(syscall.SIGTERM) // or it has ended already
	_ = p.Signal(syscall.SIGCONT) // a paused one hears nothing
}

func (p *Process) killGroup() { _ = syscall.Kill(-p.group, syscall.SIGKILL) } // or nobody is left

// Parent is for a program that was started with Options.Input: it decodes the input into v and
// returns a channel that is closed when the process that started this one has ended, and the files
// from number 4 on: those of Options.Outputs, then the command's ExtraFiles, of which there are n
// in all. What this process starts does not get them. It fails in a process that was not started
// so. It may be called once.
func Parent(v any, n int) (lost <-chan struct{}, files []*os.File, err error) {
	for fd := lifelineFile; fd < firstOutput+n; fd++ {
		syscall.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("|%d", fd)))
	}
	lifeline := files[0]
	if info, err := lifeline.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return nil, nil, fmt.Errorf("proc: file %d is no pipe from a parent process", lifelineFile)
	}
	if err := json.NewDecoder(lifeline).Decode(v); err != nil {
		return nil, nil, fmt.Errorf("proc: input of the parent process: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		var b [1]byte
		for {
			if n, err := lifeline.Read(b[:]); n == 0 && err != nil {
				close(ended)
				return
			}
		}
	}()
	return ended, files[1:], nil
}

// KillOwnGroup ends this process and all in its process group at once, if it leads one: it is what
// a program does that has to stop at once when its parent has ended.
func KillOwnGroup() {
	if syscall.Getpgrp() == os.Getpid() {
		_ = syscall.Kill(0, syscall.SIGKILL)
	}
	os.Exit(1)
}
