//go:build unix

package servers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// supervision starts the server ("$@") as it is told, until its own standard input closes, which the kernel does when our process
// ends in whatever way; then it ends the server and removes its files, if nobody shall keep them. The server leads a process
// group, so that nothing of it can be missed, however far its start has come.
const supervision = `
server=
group=setsid
command -v setsid >/dev/null || group=
if [ -n "$S_HELPER" ]; then
	$S_HELPER </dev/null >>"$S_DIR/log" 2>&1 &
	helper=$!
fi
while read -r word; do
	case $word in
	start)
		$group "$@" </dev/null >>"$S_DIR/log" 2>&1 &
		server=$!
		echo "$server"
		;;
	wait)
		wait "$server" 2>/dev/null
		server=
		echo gone
		;;
	esac
done
if [ -n "$server" ]; then
	if [ -n "$S_LEAF" ] && kill -KILL "$(cat "$S_LEAF" 2>/dev/null)" 2>/dev/null; then
		wait "$server" 2>/dev/null # it reaps the leaf: no zombie is left where nobody else does
	fi
	kill -"$S_END" -"$server" 2>/dev/null || kill -"$S_END" "$server" 2>/dev/null
	kill -CONT "$server" 2>/dev/null
	wait "$server" 2>/dev/null
fi
if [ -n "$S_HELPER" ]; then
	kill -KILL "$helper"
	wait "$helper" 2>/dev/null
fi
[ -n "$S_KEEP" ] || { cd / && rm -rf "$S_DIR" 2>/dev/null; }
exit 0
`

// A supervisor is the shell between this process and a server. Its caller sees to it that one method runs at a time.
type supervisor struct {
	cmd     *exec.Cmd
	orders  io.WriteCloser
	answers *bufio.Scanner
	pid     int // of the server; 0: it does not run
}

// supervise starts a supervisor, which does not start the server yet.
func supervise(s *Server) (*supervisor, error) {
	what := s.what.command(s)
	if what.end == "" {
		what.end = "KILL"
	}
	keep := ""
	if s.opts.Dir != "" {
		keep = "yes"
	}
	if err := s.write("log", ""); err != nil {
		return nil, err
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", supervision, "sh"}, what.args...)...)
	cmd.Dir = s.dir
	cmd.Env = append(s.environment(), "S_DIR="+s.dir, "S_KEEP="+keep, "S_HELPER="+what.helper, "S_LEAF="+what.leaf, "S_END="+what.end)
	cmd.Env = append(cmd.Env, what.env...)
	cmd.SysProcAttr = s.as.attributes()
	orders, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &supervisor{cmd: cmd, orders: orders, answers: bufio.NewScanner(answers)}, nil
}

// environment is what a server gets of ours: little, so that it runs the same everywhere.
func (s *Server) environment() []string {
	return []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC"}
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

func (p *supervisor) order(word string) (string, error) {
	if _, err := fmt.Fprintln(p.orders, word); err != nil {
		return "", err
	}
	if !p.answers.Scan() {
		return "", fmt.Errorf("the supervisor does not answer to %q: %w", word, errors.Join(p.answers.Err(), io.ErrUnexpectedEOF))
	}
	return p.answers.Text(), nil
}

func (p *supervisor) start() error {
	answer, err := p.order("start")
	if err != nil {
		return err
	}
	p.pid, err = strconv.Atoi(answer)
	return err
}

func (p *supervisor) running() bool { return p.pid != 0 && !p.exited() }

// exited reports whether the server has ended by itself, as far as the system tells.
func (p *supervisor) exited() bool {
	if p.pid == 0 {
		return true
	}
	_, found, known := state(p.pid)
	return known && !found
}

// kill ends the server and all its children with SIGKILL and waits until they are gone.
func (p *supervisor) kill() error {
	if p.pid == 0 {
		return nil
	}
	all := p.stopAll()
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = syscall.Kill(-p.pid, syscall.SIGKILL)
	return p.wait(all)
}

// stop ends the server in order, and with SIGKILL when it takes too long.
func (p *supervisor) stop() error {
	if p.pid == 0 {
		return nil
	}
	all := tree(p.pid)
	_ = syscall.Kill(p.pid, syscall.SIGTERM)
	late := time.AfterFunc(stopTimeout, func() { _ = syscall.Kill(-p.pid, syscall.SIGKILL) })
	defer late.Stop()
	for _, pid := range all { // a paused one hears nothing
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	return p.wait(all)
}

func (p *supervisor) wait(all []int) error {
	if _, err := p.order("wait"); err != nil {
		return err
	}
	p.pid = 0
	return gone(all)
}

// gone waits until no process of all is there.
func gone(all []int) error {
	deadline, tick := time.After(stopTimeout), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for {
		all = slices.DeleteFunc(all, func(pid int) bool { _, found, _ := state(pid); return !found })
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

func (p *supervisor) pause(stop bool) error {
	if p.pid == 0 {
		return errors.New("it does not run")
	}
	if stop {
		p.stopAll()
		return nil
	}
	for _, pid := range tree(p.pid) {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

// stopAll stops the server and its children, parents first, so that there are no new ones, and returns their ids.
func (p *supervisor) stopAll() []int {
	for before := 0; ; {
		all := tree(p.pid)
		for _, pid := range all {
			_ = syscall.Kill(pid, syscall.SIGSTOP)
		}
		if len(all) == before {
			return all
		}
		before = len(all)
	}
}

// close lets the supervisor go, which ends the server.
func (p *supervisor) close() error {
	_ = p.orders.Close()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("its supervisor: %w", err)
	}
	return nil
}

// state returns the parent of a process that runs. A zombie does not, unless it has threads that are not gone yet. Where there is no
// /proc nothing is known of parents.
func state(pid int) (parent int, found, known bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		if _, err := os.Stat("/proc/self/stat"); err == nil {
			return 0, false, true
		}
		return 0, !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH), false
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // a name may have blanks
	const threads = 17                                                        // its place after the name, see proc(5)
	if len(fields) <= threads || (fields[0] == "Z" || fields[0] == "X") && fields[threads] == "1" {
		return 0, false, true
	}
	parent, err = strconv.Atoi(fields[1])
	return parent, err == nil, true
}

// belonging returns the processes that were started with the folder dir or one below it, by their environment and by where
// they work, for PostgreSQL's write over their environment. Where there is no /proc there are none.
func belonging(dir string) (pids []int) {
	found, _ := os.ReadDir("/proc")
	for _, f := range found {
		pid, err := strconv.Atoi(f.Name())
		if err != nil {
			continue
		}
		environment, _ := os.ReadFile("/proc/" + f.Name() + "/environ") // one that has ended has none, and one that is not ours
		cwd, _ := os.Readlink("/proc/" + f.Name() + "/cwd")
		if below(cwd, dir) {
			pids = append(pids, pid)
			continue
		}
		for _, v := range strings.Split(string(environment), "\x00") {
			if of, ok := strings.CutPrefix(v, "S_DIR="); ok && below(of, dir) {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+string(filepath.Separator))
}

// endAll kills processes and waits until they are gone.
func endAll(pids []int) error {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return gone(pids)
}

// tree returns a process and all its descendants, parents first.
func tree(root int) []int {
	children := map[int][]int{}
	found, _ := os.ReadDir("/proc")
	for _, f := range found {
		if pid, err := strconv.Atoi(f.Name()); err == nil {
			if parent, found, _ := state(pid); found {
				children[parent] = append(children[parent], pid)
			}
		}
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}
