package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kaptar/kaptar/internal/proc"
	"github.com/kaptar/kaptar/internal/test/waittest"
)

// A process is a running process of the shop. It ends with this process.
type process struct {
	*proc.Process
	lock string // the file that it and the processes of its services have locked, if there is one

	// Ready is how long it took from exec until the process was ready.
	Ready time.Duration

	screen, log waittest.Buffer // what it writes
}

// poll is how often a process that starts is looked at.
const poll = 5 * time.Millisecond

// Start starts the whole shop with more arguments and returns once it says that it is ready. The
// process is killed when ctx ends.
func (in *install) Start(ctx context.Context, args ...string) (*process, error) {
	return in.launch(ctx, append(in.Args(), args...), func(p *process) bool {
		return strings.Contains(p.screen.String(), "services are ready")
	})
}

// Run starts one service alone, with more arguments, and returns once its /readyz says that it is
// ready. The process is killed when ctx ends.
func (in *install) Run(ctx context.Context, service string, args ...string) (*process, error) {
	args = append([]string{"run", service, "--config", filepath.Join(in.Dir, "config.yml")}, args...)
	return in.launch(ctx, args, func(*process) bool { return isReady(in.HTTP(service)) })
}

// isReady reports whether the service at address says that it is ready.
func isReady(address string) bool {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get("http://" + address + "/readyz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// launch starts a process and returns once ready reports true.
func (in *install) launch(ctx context.Context, args []string, ready func(*process) bool) (*process, error) {
	if err := in.writeConfig(); err != nil {
		return nil, err
	}
	p := &process{lock: filepath.Join(in.Dir, "data", "lock")}
	cmd := exec.CommandContext(ctx, in.Binary, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = in.Dir, &p.screen, &p.log
	begun := time.Now()
	var err error
	if p.Process, err = proc.Start(cmd, nil); err != nil {
		return nil, err
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-p.Done():
			return p, fmt.Errorf("the shop ended before it was ready: %v\n%s", p.Wait(), p.Log())
		case <-tick.C:
			if ready(p) {
				p.Ready = time.Since(begun)
				return p, nil
			}
		}
	}
}

// Log returns what the shop has logged so far.
func (p *process) Log() string { return p.log.String() }

// ServicePID returns the id of the process that a split shop runs service in now, by its screen and
// its log; 0 when they tell of none.
func (p *process) ServicePID(service string) int {
	name := regexp.QuoteMeta(service)
	pid := last(`(?m)^ +`+name+` .*\bpid (\d+)$`, p.screen.String())
	if again := last(`(?m)service `+name+` is ready again.*?"?pid"?[:=](\d+)`, p.log.String()); again != 0 {
		pid = again
	}
	return pid
}

// last returns the number in the last match of pattern, or 0.
func last(pattern, text string) int {
	all := regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1)
	if len(all) == 0 {
		return 0
	}
	n, err := strconv.Atoi(all[len(all)-1][1])
	if err != nil {
		return 0
	}
	return n
}

// Kill ends the process with SIGKILL and waits until it is gone, with the processes of its services: they
// would go on for a moment, and write.
func (p *process) Kill() {
	p.Process.Kill()
	<-p.Done()
	lock, err := os.Open(p.lock)
	if err != nil {
		return // it runs one service
	}
	defer lock.Close()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for ; syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil; <-tick.C {
		for _, service := range serviceNames() {
			if pid := p.ServicePID(service); pid != 0 {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have gone with its supervisor
			}
		}
	}
}
