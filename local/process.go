//go:build unix

package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/kaptar/kaptar"
)

// The files that a service's process finds open, beside its standard ones.
const (
	leashFile  = 3 // to read from: ends when the supervisor has ended
	reportFile = 4 // to write a report to, as a line of JSON, when there is one
	logFile    = 5 // to write the log to, in frames
)

// A report is what a service's process tells its supervisor: that it is ready, or
// the error that it ends with.
type report struct {
	Ready *kaptar.Endpoint `json:"ready,omitempty"`
	Error string           `json:"error,omitempty"`
}

// A process is a running process of one service.
type process struct {
	service        string
	cmd            *exec.Cmd
	leash          *os.File
	reports, log   *os.File
	logs           *joint
	stdout, stderr *lines

	mu    sync.Mutex
	ended bool // its number may belong to somebody else now
}

// lateOutput is how long output is waited for after the process has ended: what it
// left running may hold its files open for ever.
const lateOutput = time.Second

// startProcess starts cmd as the process of service, in a process group of its own:
// what is typed at the terminal is for the supervisor only.
func startProcess(service string, cmd *exec.Cmd, logs, stdout *joint) (*process, error) {
	p := &process{
		service: service, cmd: cmd, logs: logs,
		stdout: &lines{out: stdout, name: service}, stderr: &lines{out: logs, name: service},
	}
	var theirs []*os.File
	defer func() { closeAll(theirs) }()
	for _, end := range []struct {
		mine  **os.File
		write bool // whether mine is the end to write to
	}{{&p.leash, true}, {&p.reports, false}, {&p.log, false}} { // in the order of their numbers
		r, w, err := os.Pipe()
		if err != nil {
			closeAll([]*os.File{p.leash, p.reports, p.log})
			return nil, fmt.Errorf("local: start %s: %w", service, err)
		}
		if *end.mine = r; end.write {
			*end.mine, w = w, r
		}
		theirs = append(theirs, w)
	}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = p.stdout, p.stderr, theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = lateOutput
	if err := cmd.Start(); err != nil {
		closeAll([]*os.File{p.leash, p.reports, p.log})
		return nil, fmt.Errorf("local: start %s: %w", service, err)
	}
	return p, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // a pipe holds nothing back
		}
	}
}

// wait returns when the process has ended and all it said is passed on. It calls
// ready when the process is.
func (p *process) wait(ready func(at kaptar.Endpoint, pid int)) end {
	e := end{service: p.service}
	var readers sync.WaitGroup
	readers.Go(func() { readFrames(p.logs, p.log) })
	readers.Go(func() {
		for reports := json.NewDecoder(p.reports); ; {
			var r report
			if reports.Decode(&r) != nil {
				return // it has ended
			}
			if r.Ready != nil {
				ready(*r.Ready, p.cmd.Process.Pid)
			}
			e.reported = r.Error
		}
	})
	if e.err = p.cmd.Wait(); errors.Is(e.err, exec.ErrWaitDelay) {
		e.err = nil // it ended well
	}
	p.kill() // what it started may live on in its group
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	late := time.Now().Add(lateOutput)
	_, _ = p.log.SetReadDeadline(late), p.reports.SetReadDeadline(late) // pipes have deadlines
	readers.Wait()
	p.stdout.end()
	p.stderr.end()
	closeAll([]*os.File{p.leash, p.reports, p.log})
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		e.signal = status.Signal()
	}
	return e
}

// stop asks the process to stop, and kills it when it has not after patience.
func (p *process) stop(patience time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // or it has ended already
	time.AfterFunc(patience, p.kill)
}

// kill ends the process and what it has started.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // or nobody is left
	}
}
