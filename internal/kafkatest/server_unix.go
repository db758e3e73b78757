//go:build unix

package kafkatest

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

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const startTimeout = 90 * time.Second

// supervise runs the server ("$@") until it reads a line or its standard input closes, which the kernel does when the test
// process ends in whatever way. Then it kills the server, and removes its files ($dir) unless the line says keep. Nobody
// needs the data afterwards, and an orderly stop would take seconds.
const supervise = `
"$@" </dev/null >>"$dir/log" 2>&1 &
pid=$!
read -r word
kill -KILL "$pid" 2>/dev/null
wait "$pid" 2>/dev/null
[ "$word" = keep ] || { cd / && rm -rf "$dir"; }
exit 0
`

// A Server is a broker that a test may kill and start again on the same files and ports.
type Server struct {
	dir, java        string
	port, controller int
	cred             *syscall.Credential

	mu    sync.Mutex
	cmd   *exec.Cmd // nil: not running
	leash io.WriteCloser
}

// URL returns the broker's URL, "kafka://127.0.0.1:port". It stays the same.
func (s *Server) URL() string { return "kafka://" + s.address() }

func (s *Server) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Kill ends the broker with SIGKILL and waits until it is gone.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if err := s.halt("keep\n"); err != nil {
		t.Fatalf("kafkatest: kill the broker: %v", err)
	}
}

// Restart kills the broker if it runs, starts it on the same files and ports, and waits until it answers.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Kill(t)
	if err := s.launch(); err != nil {
		t.Fatalf("kafkatest: start the broker again: %v", err)
	}
}

func newServer() (s *Server, err error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, errors.New("java is not on the PATH")
	}
	lib, err := jars()
	if err != nil {
		return nil, err
	}
	s = &Server{java: java}
	if s.cred, err = unprivileged(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "kafkatest-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(s.dir)
		}
	}()
	if err := s.copyJars(lib); err != nil {
		return nil, err
	}
	for range 3 { // a free port may be taken before the server has it
		if err = s.prepare(); err != nil {
			return nil, err
		}
		if err = s.launch(); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// copyJars puts the jars where the server's user can read them, which the cache folder of another user is not.
func (s *Server) copyJars(lib string) error {
	if err := os.Mkdir(filepath.Join(s.dir, "lib"), 0o755); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(lib, "*.jar"))
	if err != nil {
		return err
	}
	for _, from := range found {
		to := filepath.Join(s.dir, "lib", filepath.Base(from))
		if os.Link(from, to) == nil {
			continue
		}
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// prepare chooses ports, writes the settings and formats the storage.
func (s *Server) prepare() error {
	var err error
	if s.port, err = freePort(); err != nil {
		return err
	}
	if s.controller, err = freePort(); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "data")); err != nil {
		return err
	}
	for name, text := range map[string]string{"server.properties": s.properties(), "log4j.properties": log4j} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if s.cred != nil {
		if err := os.Chown(s.dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			return err
		}
	}
	args := s.jvm("64m", "kafka.tools.StorageTool", "format", "-t", "a2FwdGFyLWthZmthLXRlc3", "-c", "server.properties")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = s.dir, environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format the storage: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

const log4j = `log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %p %c: %m%n
`

// properties has one node that is broker and controller, short waits, and little memory.
func (s *Server) properties() string {
	return fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:%[2]d
listeners=PLAINTEXT://127.0.0.1:%[1]d,CONTROLLER://127.0.0.1:%[2]d
advertised.listeners=PLAINTEXT://127.0.0.1:%[1]d
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=%[3]s
auto.create.topics.enable=false
offsets.topic.num.partitions=2
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
controller.quorum.election.timeout.ms=200
controller.quorum.fetch.timeout.ms=1000
broker.heartbeat.interval.ms=200
broker.session.timeout.ms=1000
log.cleaner.enable=false
log.index.size.max.bytes=65536
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
background.threads=2
`, s.port, s.controller, filepath.Join(s.dir, "data"))
}

func (s *Server) jvm(heap string, mainAndArgs ...string) []string {
	return append([]string{
		s.java, "-Xmx" + heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xshare:auto",
		"-Djava.io.tmpdir=" + s.dir, "-Djava.awt.headless=true", "-Dlog4j.configuration=file:" + filepath.Join(s.dir, "log4j.properties"),
		"-cp", filepath.Join(s.dir, "lib") + "/*",
	}, mainAndArgs...)
}

func environment() []string {
	return []string{"LC_ALL=C.UTF-8", "PATH=" + os.Getenv("PATH"), "TZ=UTC"}
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

// launch runs the server under its supervisor and waits until it answers.
func (s *Server) launch() error {
	args := append([]string{"-c", supervise, "sh"}, s.jvm("384m", "kafka.Kafka", "server.properties")...)
	cmd := exec.Command("/bin/sh", args...)
	cmd.Dir, cmd.Env = s.dir, append(environment(), "dir="+s.dir)
	// A process group of its own: Ctrl-C in a terminal must not end the supervisor before the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true}
	leash, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.mu.Lock()
	s.cmd, s.leash = cmd, leash
	s.mu.Unlock()
	if err := s.await(); err != nil {
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

func (s *Server) close() error {
	return errors.Join(s.halt("remove\n"), os.RemoveAll(s.dir)) // /tmp may not let the server's user remove the folder itself
}

// await waits until the broker says in its metadata that it is there.
func (s *Server) await() error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.address()), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		problem := present(ctx, cl)
		if problem == nil {
			return nil
		}
		text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		if ctx.Err() != nil || bytes.Contains(text, []byte("Exiting Kafka")) || bytes.Contains(text, []byte("Fatal error during")) {
			return fmt.Errorf("the server did not start: %w: %s", problem, bytes.TrimSpace(text))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func present(ctx context.Context, cl *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{}
	answer, err := cl.SeedBrokers()[0].Request(ctx, request)
	if err != nil {
		return err
	}
	if m := answer.(*kmsg.MetadataResponse); len(m.Brokers) == 0 || m.ControllerID < 0 {
		return errors.New("its metadata names no broker")
	}
	return nil
}

// freePort returns a loopback port below those that the system hands out to connections, so that it is still free when
// the server starts again.
func freePort() (int, error) {
	for range 100 {
		port := 20_000 + rand.IntN(12_000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port from 20000 to 32000 in 100 tries")
}
