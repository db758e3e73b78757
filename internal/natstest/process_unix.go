//go:build unix

package natstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	startTimeout = 60 * time.Second
	mainPackage  = "github.com/nats-io/nats-server/v2"
)

// supervise runs the server ("$@") until it reads a line or its standard input closes, which the kernel does when the test
// process ends in whatever way. Then it kills the server, and removes its files ($dir) unless the line says keep.
const supervise = `
"$@" </dev/null >>"$dir/log" 2>&1 &
pid=$!
while read -r word; do
	case $word in
	stop) kill -STOP "$pid" ;;
	cont) kill -CONT "$pid" ;;
	*) break ;;
	esac
	echo "$word"
done
kill -KILL "$pid" 2>/dev/null
wait "$pid" 2>/dev/null
[ "$word" = keep ] || { cd / && rm -rf "$dir"; }
exit 0
`

// process is what the operating system knows of a server.
type process struct {
	cred *syscall.Credential

	mu      sync.Mutex
	cmd     *exec.Cmd // nil: not running
	leash   io.WriteCloser
	answers io.Reader
}

// Kill ends the server with SIGKILL and waits until it is gone. Its files stay.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if err := s.halt("keep\n"); err != nil {
		t.Fatalf("natstest: kill %s: %v", s.name, err)
	}
}

// Restart kills the server if it runs, starts it on the same files and port, and waits until it answers.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Kill(t)
	if err := s.launch(); err != nil {
		t.Fatalf("natstest: start %s again: %v", s.name, err)
	}
}

// Wipe kills the server and removes what it stored.
func (s *Server) Wipe(t testing.TB) {
	t.Helper()
	s.Kill(t)
	if err := os.RemoveAll(filepath.Join(s.dir, "data")); err != nil {
		t.Fatalf("natstest: wipe %s: %v", s.name, err)
	}
}

// Pause stops the server with SIGSTOP: connections stay, and nobody answers.
func (s *Server) Pause(t testing.TB) { s.order(t, "stop\n") }

// Resume lets a paused server go on.
func (s *Server) Resume(t testing.TB) { s.order(t, "cont\n") }

func (s *Server) order(t testing.TB, word string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := make([]byte, len(word))
	if s.cmd == nil {
		t.Fatalf("natstest: %s does not run", s.name)
	}
	if _, err := io.WriteString(s.leash, word); err != nil {
		t.Fatalf("natstest: %s: %v", s.name, err)
	}
	if _, err := io.ReadFull(s.answers, answer); err != nil {
		t.Fatalf("natstest: %s: %v", s.name, err)
	}
}

// begin starts s for the first time and has it removed after the test.
func begin(t testing.TB, s *Server, extra func(*Server) string) {
	t.Helper()
	fail := func(err error) { t.Fatalf("natstest: start %s: %v", s.name, err) }
	var err error
	if s.cred, err = unprivileged(); err != nil {
		fail(err)
	}
	if s.dir, err = os.MkdirTemp("", "natstest-"); err != nil {
		fail(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.halt("remove\n"), os.RemoveAll(s.dir)); err != nil {
			t.Errorf("natstest: end %s: %v", s.name, err)
		}
		if t.Failed() && os.Getenv("KAPTAR_TEST_LOGS") != "" {
			t.Logf("log of %s:\n%s", s.name, s.Log())
		}
	})
	s.port = freePorts(t, 1)[0]
	config := fmt.Sprintf(`server_name: %s
listen: "127.0.0.1:%d"
authorization { user: %s, password: %q }
jetstream { store_dir: %q, max_mem: 64MB, max_file: 2GB, sync_interval: always }
%s
`, s.name, s.port, User, s.password, filepath.Join(s.dir, "data"), extra(s))
	if err := os.WriteFile(filepath.Join(s.dir, "nats.conf"), []byte(config), 0o644); err != nil {
		fail(err)
	}
	if err := install(filepath.Join(s.dir, "nats-server")); err != nil {
		fail(err)
	}
	if s.cred != nil {
		if err := os.Chown(s.dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			fail(err)
		}
	}
	if err := s.launch(); err != nil {
		fail(err)
	}
}

// install puts the server's program at path. It is built once for each version of server and compiler.
func install(path string) error {
	goCommand := func(args ...string) ([]byte, error) {
		out, err := exec.Command("go", args...).Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("go %s: %w: %s", args[0], err, bytes.TrimSpace(exit.Stderr))
		}
		return bytes.TrimSpace(out), err
	}
	version, err := goCommand("list", "-m", "-f", "{{.Version}}", mainPackage)
	if err != nil {
		return err
	}
	compiler, err := goCommand("env", "GOVERSION")
	if err != nil {
		return err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	dir := filepath.Join(cache, "kaptar", "nats-server")
	built := filepath.Join(dir, fmt.Sprintf("%s-%s", version, compiler))
	if _, err := os.Stat(built); err != nil {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		fresh := fmt.Sprintf("%s.%d.%d", built, os.Getpid(), rand.Int64())
		if _, err := goCommand("build", "-o", fresh, mainPackage); err != nil {
			return err
		}
		if err := os.Rename(fresh, built); err != nil { // at once, for test processes that run at the same time
			return err
		}
	}
	if os.Link(built, path) == nil { // where the server's user can run it
		return nil
	}
	program, err := os.ReadFile(built)
	if err != nil {
		return err
	}
	return os.WriteFile(path, program, 0o755)
}

// launch runs the server under its supervisor and waits until it answers.
func (s *Server) launch() error {
	cmd := exec.Command("/bin/sh", "-c", supervise, "sh", filepath.Join(s.dir, "nats-server"), "-c", filepath.Join(s.dir, "nats.conf"))
	cmd.Dir, cmd.Env = s.dir, []string{"LC_ALL=C.UTF-8", "TZ=UTC", "PATH=" + os.Getenv("PATH"), "dir=" + s.dir}
	// A process group of its own: Ctrl-C in a terminal must not end the supervisor before the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true}
	leash, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.mu.Lock()
	s.cmd, s.leash, s.answers = cmd, leash, answers
	s.mu.Unlock()
	if err := s.ready(); err != nil {
		return errors.Join(err, s.halt("keep\n"))
	}
	return nil
}

// halt gives the supervisor a word and waits for it.
func (s *Server) halt(word string) error {
	s.mu.Lock()
	cmd, leash := s.cmd, s.leash
	s.cmd, s.leash = nil, nil
	s.mu.Unlock()
	if cmd == nil {
		return nil
	}
	_, _ = io.WriteString(leash, word)
	_ = leash.Close()
	return cmd.Wait()
}

// ready waits until the server takes connections.
func (s *Server) ready() error {
	deadline, tick := time.After(startTimeout), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		nc, err := nats.Connect(s.URL())
		if err == nil {
			nc.Close()
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("it did not answer within %v: %w: %s", startTimeout, err, s.Log())
		}
	}
}

// await waits until the cluster has a leader and all its servers are there.
func (c Cluster) await(t testing.TB) {
	t.Helper()
	nc, err := nats.Connect(c[0].URL())
	if err != nil {
		t.Fatalf("natstest: cluster: %v", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatalf("natstest: cluster: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx, js, len(c))
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("natstest: the cluster takes no streams within %v: %v\n%s", startTimeout, err, c[0].Log())
		}
	}
}

// try makes a stream on all servers. Without a leader of the cluster nobody answers.
func try(ctx context.Context, js jetstream.JetStream, servers int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "READY", Replicas: servers}); err != nil {
		return err
	}
	return js.DeleteStream(ctx, "READY")
}

// unprivileged returns the user that the server runs as: nil for this process' own, and nobody for root.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, fmt.Errorf("the server shall not run as root: %w", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{}}, nil
}

// freePorts returns loopback ports below those that the system hands out to connections, so that they are still free when
// a server starts again.
func freePorts(t testing.TB, n int) (ports []int) {
	t.Helper()
	for range 1000 {
		port := 20_000 + rand.IntN(12_000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		defer l.Close() // only now: none is given twice
		if ports = append(ports, port); len(ports) == n {
			return ports
		}
	}
	t.Fatal("natstest: no free ports from 20000 to 32000")
	return nil
}
