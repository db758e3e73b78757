//go:build linux

package rabbittest

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const startTimeout = 90 * time.Second // on a busy machine it took 18 s

// supervise runs epmd and, as it is told, the server, until its own standard input closes, which the kernel does when the
// test process ends in whatever way; then it ends both and removes their files ($dir). The server is the leader of a process
// group, so that nothing of it can be missed, however far its start has come.
const supervise = `
server=
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 </dev/null >>"$dir/log" 2>&1 &
epmd=$!
stop() {
	[ -n "$server" ] || return 0
	if kill -KILL "$(cat "$dir/pid" 2>/dev/null)" 2>/dev/null; then
		wait "$server" # the script, which waits for the Erlang machine: no zombie is left where nobody reaps
	fi
	kill -KILL -"$server" 2>/dev/null
	wait "$server" 2>/dev/null
	server=
}
while read -r word; do
	case $word in
	start)
		rm -f "$dir/pid"
		setsid "$1" </dev/null >>"$dir/log" 2>&1 &
		server=$!
		;;
	kill) stop ;;
	esac
	echo "$word"
done
stop
kill -KILL "$epmd"
wait "$epmd" 2>/dev/null
cd / && rm -rf "$dir"
`

// A server is a RabbitMQ under its supervisor.
type server struct {
	amqp, management string // host:port
	password         string

	dir     string
	cmd     *exec.Cmd // the supervisor
	orders  io.WriteCloser
	answers *bufio.Scanner
}

func start() (*server, error) {
	script, err := findScript()
	if err != nil {
		return nil, err
	}
	cred, err := unprivileged()
	if err != nil {
		return nil, err
	}
	var s *server
	for range 2 { // a free port may be taken before the server has it
		if s, err = startOnce(script, cred); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// findScript returns the server's own start script. What Debian has on the PATH is a wrapper that changes the user.
func findScript() (string, error) {
	for _, tool := range []string{"epmd", "erl", "setsid"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", err
		}
	}
	found, _ := filepath.Glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
	if len(found) == 0 {
		return "", errors.New("no /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
	}
	return found[len(found)-1], nil
}

// unprivileged returns the user that the server runs as: nil for this process' own, and another one for root.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"rabbitmq", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{}}, nil
		}
	}
	return nil, errors.New("RabbitMQ shall not run as root, and there is neither a user rabbitmq nor nobody")
}

func startOnce(script string, cred *syscall.Credential) (s *server, err error) {
	dir, err := os.MkdirTemp("", "rabbittest-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	ports, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	s = &server{dir: dir, password: rand.Text(), amqp: "127.0.0.1:" + ports[0], management: "127.0.0.1:" + ports[1]}
	if err := s.configure(cred); err != nil {
		return nil, err
	}
	s.cmd = exec.Command("/bin/sh", "-c", supervise, "sh", script)
	s.cmd.Dir, s.cmd.Env = dir, s.environment(ports)
	// A process group of its own: Ctrl-C in a terminal must not end the supervisor before the server.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred, Setpgid: true}
	if s.orders, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.answers = bufio.NewScanner(out)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := s.launch(); err != nil {
		return nil, errors.Join(err, s.end())
	}
	return s, nil
}

// configure writes the files that the server reads.
func (s *server) configure(cred *syscall.Credential) error {
	_, port, err := net.SplitHostPort(s.management)
	if err != nil {
		return err
	}
	config := "listeners.tcp.default = " + s.amqp + `
management.tcp.ip = 127.0.0.1
management.tcp.port = ` + port + `
default_user = ` + userName + `
default_pass = ` + s.password + `
default_user_tags.administrator = true
loopback_users = none
log.console = true
log.console.level = warning
log.file = false
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 64MB
raft.wal_max_size_bytes = 33554432
`
	for name, text := range map[string]string{
		"rabbitmq.conf":   config,
		"enabled_plugins": "[rabbitmq_consistent_hash_exchange,rabbitmq_management].\n",
		"env.conf":        "",
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
		if cred != nil {
			if err := os.Chown(filepath.Join(s.dir, name), int(cred.Uid), int(cred.Gid)); err != nil {
				return err
			}
		}
	}
	if cred == nil {
		return nil
	}
	return os.Chown(s.dir, int(cred.Uid), int(cred.Gid))
}

func (s *server) environment(ports []string) []string {
	in := func(name string) string { return filepath.Join(s.dir, name) }
	return []string{
		"dir=" + s.dir, "HOME=" + s.dir, "PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC", // the cookie is in HOME
		"ERL_EPMD_PORT=" + ports[2], "ERL_EPMD_ADDRESS=127.0.0.1", "ERL_CRASH_DUMP=/dev/null",
		"RABBITMQ_NODENAME=kaptar" + ports[0] + "@localhost", "RABBITMQ_USE_LONGNAME=false",
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_DIST_PORT=" + ports[3],
		"RABBITMQ_MNESIA_BASE=" + in("mnesia"), "RABBITMQ_LOG_BASE=" + in("logs"), "RABBITMQ_PID_FILE=" + in("pid"),
		"RABBITMQ_CONFIG_FILE=" + in("rabbitmq.conf"), "RABBITMQ_ADVANCED_CONFIG_FILE=" + in("advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + in("enabled_plugins"), "RABBITMQ_CONF_ENV_FILE=" + in("env.conf"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
	}
}

// launch has the server started and waits until it answers.
func (s *server) launch() error {
	if err := s.order("start"); err != nil {
		return err
	}
	deadline := time.After(startTimeout)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.answering()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("the server did not start within %v: %w: %s", startTimeout, err, bytes.TrimSpace(text))
		}
	}
}

func (s *server) answering() error {
	conn, err := net.DialTimeout("tcp", s.amqp, time.Second)
	if err != nil {
		return err
	}
	_ = conn.Close()
	return s.manage("GET", "vhosts")
}

func (s *server) kill() error { return s.order("kill") }

// order tells the supervisor a word and waits until it has done it.
func (s *server) order(word string) error {
	if _, err := fmt.Fprintln(s.orders, word); err != nil {
		return err
	}
	if !s.answers.Scan() || s.answers.Text() != word {
		return fmt.Errorf("the supervisor does not answer to %q: %w", word, errors.Join(s.answers.Err(), io.ErrUnexpectedEOF))
	}
	return nil
}

// end lets the supervisor go and waits for it, which waits for the server.
func (s *server) end() error {
	_ = s.orders.Close()
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("end the server: %w", err)
	}
	return os.RemoveAll(s.dir) // /tmp may not let the server's user remove the folder itself
}

// freePorts returns ports below those that the system gives to outgoing connections, which could take one while the server is
// restarted.
func freePorts(n int) ([]string, error) {
	var ports []string
	for range 1000 {
		port := 20_000 + mathrand.IntN(12_000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		defer l.Close() // only now: none is given twice
		if ports = append(ports, strconv.Itoa(port)); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("no free ports between 20000 and 32000")
}
