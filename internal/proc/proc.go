// Package proc supervises child processes. A process that it starts never outlives this one,
// however this one ends, SIGKILL included, and neither does what that process has started in its
// process group. There are two ways:
//
//   - By default a small shell, the guard, leads the process group and kills it when this process
//     has ended. Any program can be started so; it needs a /bin/sh.
//   - A program made for it stops by itself, gracefully: it is started with [Options].Input and
//     calls [Parent]. It needs nothing else on the machine.
//
// On systems other than unix there are no process groups and no guard: processes can be started and
// killed, Stop kills at once, and [Options].Input is refused.
package proc

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
)

// Options say how a process is started. The zero value, and nil, start one with a guard.
type Options struct {
	// Input, if not nil, is sent to the process as JSON, which it reads by calling Parent. There is
	// no guard then: the process itself has to stop when its parent has ended.
	Input any
	// Outputs get what the process writes to its files 4, 5 and so on; only with Input. The
	// command's ExtraFiles come after them.
	Outputs []io.Writer
	// Orphaned is a shell command that the guard runs when this process has ended, before it kills
	// the group with SIGKILL. It runs in the directory, with the environment and as the user of the
	// process, and ignores SIGINT, SIGTERM, SIGQUIT and SIGHUP.
	Orphaned string
}

// firstOutput is the file of a process that Options.Outputs begin with; the one before it is
// Parent's.
const (
	lifelineFile = 3
	firstOutput  = 4
)

// lateOutput is how long output is waited for after a process has ended: what it left running may
// hold its files open for ever. Otherwise they are closed with it, and the time is for a machine that
// stands still just then.
const lateOutput = 5 * time.Second

// A Process is a running child. Its methods may be called concurrently.
type Process struct {
	cmd      *exec.Cmd
	group    int       // the process group; 0 where there is none
	guard    *exec.Cmd // leads the group; nil with Options.Input
	lifeline *os.File  // its other end is read by the guard, or by Parent
	done     chan struct{}
	err      error // of Wait; to be read once done is closed

	mu    sync.Mutex
	ended bool // nobody is left in the group, whose number may belong to others now
}

// Start starts cmd, which it owns from then on, in a process group of its own: a signal typed at
// the terminal is for this process only. Output may go to a *[Lines], which is flushed at the end.
func Start(cmd *exec.Cmd, opts *Options) (*Process, error) {
	opts = cmp.Or(opts, new(Options))
	p := &Process{cmd: cmd, done: make(chan struct{})}
	var theirs, mine []*os.File
	fail := func(err error) (*Process, error) {
		closeAll(append(mine, theirs...))
		return nil, fmt.Errorf("proc: start %s: %w", cmd.Path, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	p.lifeline, theirs, mine = w, append(theirs, r), append(mine, w)
	for range opts.Outputs {
		r, w, err := os.Pipe()
		if err != nil {
			return fail(err)
		}
		theirs, mine = append(theirs, w), append(mine, r)
	}
	input, err := json.Marshal(opts.Input)
	if err != nil {
		return fail(err)
	}
	if err := p.start(opts, theirs); err != nil {
		return fail(err)
	}
	closeAll(theirs)
	if opts.Input != nil {
		// More than a pipe takes waits for its reader, or until the pipe is closed.
		go func() { _, _ = w.Write(append(input, '\n')) }()
	}
	go p.wait(opts.Outputs, mine)
	return p, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // a pipe keeps nothing back
	}
}

// wait passes on what the process says until it has ended, and ends what it has left behind.
func (p *Process) wait(outputs []io.Writer, mine []*os.File) {
	var readers sync.WaitGroup
	for i, w := range outputs {
		readers.Go(func() { _, _ = io.Copy(w, mine[i+1]) })
	}
	err := p.cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well; what it left running held its output
	}
	p.Kill()
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	if p.guard != nil {
		_ = p.guard.Wait() // it was killed
	}
	late := time.Now().Add(lateOutput)
	for _, f := range mine[1:] {
		_ = f.SetReadDeadline(late)
	}
	readers.Wait()
	for _, w := range append(outputs, p.cmd.Stdout, p.cmd.Stderr) {
		if l, ok := w.(*Lines); ok {
			l.flush()
		}
	}
	closeAll(mine)
	p.err = err
	close(p.done)
}

// PID returns the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended, everything that it has left in its group is killed,
// and all its output is written.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for Done and returns what exec.Cmd.Wait does.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Signal sends sig to the process alone. See Done for one that has ended.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Stop asks the process to end, with SIGTERM, and kills its group after timeout. It does not wait.
func (p *Process) Stop(timeout time.Duration) {
	p.terminate()
	go func() {
		select {
		case <-p.done:
		case <-time.After(timeout):
			p.Kill()
		}
	}()
}

// Kill ends the process and all in its group with SIGKILL. It does not wait.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.killGroup()
	}
}

// The waits of Keep.
const (
	firstWait   = 200 * time.Millisecond
	longestWait = 10 * time.Second
	// healthyLife is how long a run must have lasted for its end to count as the first one.
	healthyLife = 30 * time.Second
)

// Keep calls run again whenever it returns, until ctx ends. Between two runs it waits, 200 ms at
// first and then twice as long each time up to 10 s; after a run of 30 s it begins anew. Before
// each wait it calls again with its length; false ends Keep.
func Keep(ctx context.Context, run func(), again func(wait time.Duration) bool) {
	backoff := steady.Backoff{First: firstWait, Max: longestWait}
	for ctx.Err() == nil {
		begun := time.Now()
		run()
		if time.Since(begun) >= healthyLife {
			backoff.Reset()
		}
		wait := backoff.Next().Round(time.Millisecond)
		if ctx.Err() != nil || !again(wait) || !steady.Sleep(ctx, wait) {
			return
		}
	}
}
