//go:build unix

package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kaptar/kaptar/internal/proc"
)

// remove is what the guard of a server in a temporary folder does when this process was killed. The
// server, which is killed right after it, may still write, so the folder is removed again from
// outside of its process group.
const remove = `rm -rf "$S_DIR" 2>/dev/null
setsid sh -c 'for i in 1 2 3; do sleep 1; rm -rf "$S_DIR" && break; done' </dev/null >/dev/null 2>&1 &`

// environment is what a server gets of ours: little, so that it runs the same everywhere. S_DIR
// tells whose a process is.
func (s *Server) environment() []string {
	return []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC", "S_DIR=" + s.dir}
}

// run runs a program to its end in the server's folder, as its user.
func (s *Server) run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = s.dir, s.environment(), s.as.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, bytes.TrimSpace(out))
	}
	return nil
}

// begin starts the server, and what runs beside it over restarts.
func (s *Server) begin() (err error) {
	what := s.what.command(s)
	if s.helper == nil && what.helper != nil {
		if s.helper, err = s.spawn(what.helper, nil, ""); err != nil {
			return err
		}
	}
	orphaned := ""
	if s.opts.Dir == "" {
		orphaned = remove
	}
	s.main, err = s.spawn(what.args, what.env, orphaned)
	return err
}

func (s *Server) spawn(args, env []string, orphaned string) (*proc.Process, error) {
	log, err := os.OpenFile(s.path("log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the process has its own
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = s.dir, append(s.environment(), env...), s.as.attributes()
	cmd.Stdout, cmd.Stderr = log, log
	return proc.Start(cmd, &proc.Options{Orphaned: orphaned})
}

// running reports whether the server runs, and has not ended by itself.
func (s *Server) running() bool {
	if s.main == nil {
		return false
	}
	select {
	case <-s.main.Done():
		return false
	default:
		return true
	}
}

// processes returns the server's own ones, without its guard and without the helper.
func (s *Server) processes() []int {
	guard, helper := group(s.main.PID()), 0
	if s.helper != nil {
		helper = group(s.helper.PID())
	}
	return slices.DeleteFunc(belonging(s.dir), func(pid int) bool { return pid == guard || group(pid) == helper })
}

func group(pid int) int {
	id, _ := syscall.Getpgid(pid)
	return id
}

// freeze stops the server's processes, until there are no new ones, and returns them.
func (s *Server) freeze() []int {
	for before := 0; ; {
		all := s.processes()
		signal(all, syscall.SIGSTOP)
		if len(all) == before {
			return all
		}
		before = len(all)
	}
}

func signal(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, sig) // or it has ended
	}
}

func (s *Server) pause(stop bool) error {
	switch {
	case !s.running():
		return errors.New("it does not run")
	case stop:
		s.freeze()
	default:
		signal(s.processes(), syscall.SIGCONT)
	}
	return nil
}

// kill ends the server and all its children with SIGKILL and waits until they are gone.
func (s *Server) kill() error {
	if s.main == nil {
		return nil
	}
	all := s.freeze()
	signal(all, syscall.SIGKILL) // some have groups of their own
	s.main.Kill()
	<-s.main.Done()
	s.main = nil
	return gone(all)
}

// stop ends the server in order, and with SIGKILL when it takes too long.
func (s *Server) stop() error {
	if s.main == nil {
		return nil
	}
	all := s.processes()
	s.main.Stop(stopTimeout)
	signal(all, syscall.SIGCONT) // a paused one hears nothing
	<-s.main.Done()
	s.main = nil
	return gone(all)
}

// stopHelper ends what runs beside the server.
func (s *Server) stopHelper() {
	if s.helper != nil {
		s.helper.Kill()
		<-s.helper.Done()
		s.helper = nil
	}
}

// endAll kills processes and waits until they are gone.
func endAll(pids []int) error {
	signal(pids, syscall.SIGKILL)
	return gone(pids)
}

// gone waits until no process of all is there.
func gone(all []int) error {
	deadline, tick := time.After(stopTimeout), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for {
		all = slices.DeleteFunc(all, func(pid int) bool { return !alive(pid) })
		if len(all) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("processes %v are still there", all)
		}
	}
}

// alive reports whether a process runs. A zombie does not, unless it has threads that are not gone
// yet.
func alive(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // a name may have blanks
	const threads = 17                                                        // its index after the name, see proc(5)
	return len(fields) > threads && (fields[0] != "Z" && fields[0] != "X" || fields[threads] != "1")
}

// belonging returns the processes that were started with the folder dir or one below it, by their
// environment and by where they work, for PostgreSQL's write over their environment. Where there is
// no /proc there are none.
func belonging(dir string) (pids []int) {
	below := func(path string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
	found, _ := filepath.Glob("/proc/[0-9]*")
	for _, path := range found {
		environment, _ := os.ReadFile(path + "/environ") // one that has ended has none, and one that is not ours
		cwd, _ := os.Readlink(path + "/cwd")
		ours := func(v string) bool { return strings.HasPrefix(v, "S_DIR=") && below(v[len("S_DIR="):]) }
		if !below(cwd) && !slices.ContainsFunc(strings.Split(string(environment), "\x00"), ours) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(path)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
