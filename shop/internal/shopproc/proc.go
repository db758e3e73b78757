package shopproc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Proc is a running process of the shop.
type Proc struct {
	// Ready is how long it took from exec until the process was ready.
	Ready time.Duration

	cmd    *exec.Cmd
	begun  time.Time
	exited chan struct{}
	err    error

	mu     sync.Mutex
	log    bytes.Buffer
	screen bytes.Buffer
}

// errExited tells that the process ended before it was ready.
var errExited = errors.New("the shop exited before it was ready")

// poll is how often a service that starts is asked whether it is ready.
const poll = 20 * time.Millisecond

// Start starts the whole shop with more arguments and returns once it says that it
// is ready. The process is killed when ctx ends.
func (in *Install) Start(ctx context.Context, args ...string) (*Proc, error) {
	ready := make(chan struct{})
	said := false
	p, err := in.launch(ctx, append(in.Args(), args...), func(line string) {
		if !said && strings.Contains(line, "services are ready") {
			said = true
			close(ready)
		}
	})
	if err != nil {
		return nil, err
	}
	return p, p.await(ready)
}

// Run starts one service alone, with more arguments, and returns once its /readyz
// says that it is ready. The process is killed when ctx ends.
func (in *Install) Run(ctx context.Context, service string, args ...string) (*Proc, error) {
	args = append([]string{"run", service, "--config", filepath.Join(in.Dir, "config.yml")}, args...)
	p, err := in.launch(ctx, args, func(string) {})
	if err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	go func() {
		tick := time.NewTicker(poll)
		defer tick.Stop()
		for !Ready(in.HTTP(service)) {
			select {
			case <-tick.C:
			case <-p.exited:
				return
			}
		}
		close(ready)
	}()
	return p, p.await(ready)
}

// Ready reports whether the service at address says that it is ready.
func Ready(address string) bool {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get("http://" + address + "/readyz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// launch starts a process and hands its lines on standard output to see.
func (in *Install) launch(ctx context.Context, args []string, see func(line string)) (*Proc, error) {
	if err := in.writeConfig(); err != nil {
		return nil, fmt.Errorf("shopproc: %w", err)
	}
	p := &Proc{cmd: exec.CommandContext(ctx, in.Binary, args...), exited: make(chan struct{})}
	p.cmd.Dir = in.Dir
	p.cmd.Stderr = p
	p.cmd.WaitDelay = time.Second // for output that a process of its own still holds
	tie(p.cmd)
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("shopproc: %w", err)
	}
	begun := time.Now()
	started := make(chan error)
	go func() {
		// What ties the process to this one ties it to the thread that starts it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.wait(stdout, see)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("shopproc: %w", err)
	}
	p.begun = begun
	return p, nil
}

// await returns when ready is closed, or with an error when the process ends first.
func (p *Proc) await(ready <-chan struct{}) error {
	select {
	case <-ready:
		p.Ready = time.Since(p.begun)
		return nil
	case <-p.exited:
		return fmt.Errorf("shopproc: %w: %w\n%s", errExited, p.err, p.Log())
	}
}

// wait reads standard output and waits for the end.
func (p *Proc) wait(stdout io.Reader, see func(line string)) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		p.mu.Lock()
		p.screen.Write(append(lines.Bytes(), '\n'))
		p.mu.Unlock()
		see(lines.Text())
	}
	p.err = p.cmd.Wait()
	close(p.exited)
}

// Write keeps what the shop logs.
func (p *Proc) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

// Log returns what the shop has logged so far.
func (p *Proc) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// PID returns the process id.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// ServicePID returns the id of the process that a split shop runs service in now, by
// its screen and its log; 0 when they tell of none.
func (p *Proc) ServicePID(service string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := regexp.QuoteMeta(service)
	pid := last(`(?m)^ +`+name+` .*\bpid (\d+)$`, p.screen.Bytes())
	if again := last(`(?m)service `+name+` is ready again.*?"?pid"?[:=](\d+)`, p.log.Bytes()); again != 0 {
		pid = again
	}
	return pid
}

// last returns the number in the last match of pattern, or 0.
func last(pattern string, text []byte) int {
	all := regexp.MustCompile(pattern).FindAllSubmatch(text, -1)
	if len(all) == 0 {
		return 0
	}
	n, err := strconv.Atoi(string(all[len(all)-1][1]))
	if err != nil {
		return 0
	}
	return n
}

// Signal sends sig to the process, without waiting.
func (p *Proc) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Wait waits for the process to end and returns what exec.Cmd.Wait does.
func (p *Proc) Wait() error {
	<-p.exited
	return p.err
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (p *Proc) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil {
		return err
	}
	<-p.exited
	return nil
}
