package servers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kaptar/kaptar/internal/tlsfiles"
)

// start is Start with the source of free ports for a test.
func start(ctx context.Context, e Engine, opts *Options, free func(n int) ([]int, func(), error)) (started *Server, err error) {
	what, err := describe(e)
	if err != nil {
		return nil, err
	}
	s := &Server{engine: e, what: what}
	if opts != nil {
		s.opts = *opts
	}
	program, err := what.look()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMissing, err)
	}
	if s.as, err = unprivileged(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.end())
			s.release()
		}
	}()
	if err := errors.Join(s.makeDir(), s.takeDir()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for try := 1; ; try++ { // a free port may be taken before the server has it
		fixed, err := s.choosePorts(free)
		if err != nil {
			return nil, err
		}
		if s.program, err = s.as.share(program, s.path("program")); err != nil {
			return nil, err
		}
		if err = s.launch(ctx); err == nil {
			return s, nil
		}
		s.stopHelper()
		if fixed || try == 3 || s.takenPort() == 0 {
			return nil, err
		}
		s.release()
		if err := errors.Join(s.end(), s.makeDir()); err != nil { // only a temporary one comes here
			return nil, err
		}
	}
}

// makeDir makes the folder for the server's files.
func (s *Server) makeDir() (err error) {
	if s.opts.Dir == "" {
		s.dir, err = os.MkdirTemp("", "kaptar-"+string(s.engine)+"-")
	} else if s.dir, err = filepath.Abs(s.opts.Dir); err == nil {
		err = os.MkdirAll(s.dir, 0o755)
	}
	if err != nil {
		return err
	}
	if err := s.as.own(s.dir); err != nil {
		return err
	}
	if where := s.as.barred(s.dir); where != "" {
		return fmt.Errorf("the user %s, whose the server is when this process is root's, cannot enter %s: choose another folder", s.as, where)
	}
	return nil
}

// lockFile is locked while the server of a folder of the caller's runs.
const lockFile = "lock"

// takeDir locks a folder of the caller's, and ends what a crash left running there.
func (s *Server) takeDir() (err error) {
	if s.opts.Dir == "" {
		return nil
	}
	if s.lock, err = tryLock(s.path(lockFile)); err != nil {
		return err
	}
	if err := endAll(belonging(s.dir)); err != nil {
		return fmt.Errorf("left by a crash: %w", err)
	}
	return s.write("log", "")
}

// portsFile keeps the ports in a folder of the caller's: the data of some engines has them inside.
const portsFile = "ports.json"

// choosePorts sets s.ports. It reports whether they are given, by the options or by an earlier start
// in the same folder.
func (s *Server) choosePorts(free func(n int) ([]int, func(), error)) (fixed bool, err error) {
	s.ports = map[string]int{}
	if s.opts.Dir != "" {
		text, err := os.ReadFile(s.path(portsFile))
		if fixed = err == nil; fixed {
			err = json.Unmarshal(text, &s.ports)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, fmt.Errorf("%s: %w", s.path(portsFile), err)
		}
	}
	if s.opts.Port != 0 {
		fixed = true
		s.ports[""] = s.opts.Port
		for _, p := range s.what.ports {
			if s.opts.Port == s.what.ports[0].usual && !p.inner {
				s.ports[p.name] = p.usual
			}
		}
	}
	var without []string
	for _, p := range s.what.ports {
		if s.ports[p.name] == 0 && s.uses(p) {
			without = append(without, p.name)
		}
	}
	var chosen []int
	if chosen, s.unhold, err = free(len(without)); err != nil {
		return false, err
	}
	for i, name := range without {
		s.ports[name] = chosen[i]
	}
	if taken := s.takenPort(); fixed && taken != 0 {
		return true, fmt.Errorf("port %d on 127.0.0.1 is taken by another program", taken)
	}
	if s.opts.Dir == "" {
		return fixed, nil
	}
	text, err := json.Marshal(s.ports)
	if err != nil {
		return false, err
	}
	return fixed, os.WriteFile(s.path(portsFile), text, 0o644)
}

// takenPort returns one of the server's ports that another program listens on, or 0.
func (s *Server) takenPort() int {
	for _, p := range s.what.ports {
		if !s.uses(p) {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports[p.name])))
		if err != nil {
			return s.ports[p.name]
		}
		_ = l.Close()
	}
	return 0
}

// launch starts the server and waits until it answers.
func (s *Server) launch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.copyTLS(); err != nil {
		return err
	}
	if s.what.prepare != nil {
		if err := s.what.prepare(ctx, s); err != nil {
			return err
		}
	}
	if err := s.begin(); err != nil {
		return err
	}
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	var problem error
	for {
		if err := s.answers(ctx); err == nil || problem == nil || ctx.Err() == nil { // the end of ctx is no news
			problem = err
		}
		exited := !s.running()
		if problem == nil && !exited {
			return nil
		}
		if exited || ctx.Err() != nil {
			text := strings.TrimSpace(s.Log())
			_ = s.kill()
			if exited {
				return fmt.Errorf("it ended at once; its log:\n%s", text)
			}
			return fmt.Errorf("it does not answer: %w; its log:\n%s", problem, text)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// answers asks the server once, and gives up when it has ended: another program may hold its port
// and not answer.
func (s *Server) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	go func(done <-chan struct{}) {
		select {
		case <-done:
			cancel()
		case <-ctx.Done():
		}
	}(s.main.Done())
	return s.what.ready(ctx, s)
}

// write writes a file that the server's user can read, and makes its folder.
func (s *Server) write(name, text string) error {
	path := s.path(name)
	if dir := filepath.Dir(path); dir != s.dir {
		if err := errors.Join(os.MkdirAll(dir, 0o755), s.as.own(dir)); err != nil {
			return err
		}
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	return s.as.own(path)
}

// copyTLS copies the files of Options.TLS that the server needs to where its user can read them.
// PostgreSQL wants nobody else to.
func (s *Server) copyTLS() error {
	if s.opts.TLS == "" {
		return nil
	}
	for _, name := range []string{"ca.pem", "server.pem"} {
		text, err := os.ReadFile(filepath.Join(s.opts.TLS, name))
		if err != nil {
			return err
		}
		if err := errors.Join(s.write(name, string(text)), os.Chmod(s.path(name), 0o600)); err != nil {
			return err
		}
	}
	return nil
}

// client returns the parameters of a URL for TLS, with what stands before them, and the files that
// they name; without Options.TLS neither.
func (s *Server) client(before string) (parameters string, files tlsfiles.Files) {
	if s.opts.TLS == "" {
		return "", files
	}
	at := func(name string) string { return filepath.Join(s.opts.TLS, name) }
	files = tlsfiles.Files{On: true, CA: at("ca.pem"), Cert: at("client.pem"), Key: at("client.pem")}
	return before + url.Values{"ca": {files.CA}, "cert": {files.Cert}, "key": {files.Key}}.Encode(), files
}

// path returns the path of a file in the server's folder.
func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }
