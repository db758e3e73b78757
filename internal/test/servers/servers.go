package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kaptar/kaptar/internal/proc"
)

// An Engine is a kind of server.
type Engine string

// The engines.
const (
	Postgres   Engine = "postgres"
	Kafka      Engine = "kafka"
	RabbitMQ   Engine = "rabbitmq"
	NATS       Engine = "nats" // with JetStream
	Consul     Engine = "consul"
	Redis      Engine = "redis"
	Prometheus Engine = "prometheus"
	Jaeger     Engine = "jaeger"
	// VictoriaLogs keeps logs.
	VictoriaLogs Engine = "victorialogs"
	Kubernetes   Engine = "kubernetes" // the API server alone, with etcd
)

// Engines returns all engines.
func Engines() []Engine {
	return []Engine{Postgres, Kafka, RabbitMQ, NATS, Consul, Redis, Prometheus, Jaeger, VictoriaLogs, Kubernetes}
}

// Parse returns the engine of that name. The error for another name lists those that are known.
func Parse(name string) (Engine, error) {
	_, err := describe(Engine(name))
	return Engine(name), err
}

// ErrMissing is wrapped by Start's error when an engine is not installed, or cannot run on this
// system.
var ErrMissing = errors.New("not installed")

var (
	errGiven  = errors.New("it was not started here")
	errClosed = errors.New("it is closed")
)

const (
	startTimeout = 90 * time.Second // on a busy machine RabbitMQ took 18 s
	stopTimeout  = 20 * time.Second
	logTail      = 64 << 10
)

// Options say how a server is started. Nil and the zero value mean: in a temporary folder, on free
// ports.
type Options struct {
	// Dir is the folder for the server's files, which is made if it is not there. Close keeps it,
	// and a later Start finds the data in it, on the same ports, also after a crash of the server,
	// of this process or of the machine: what is left of that is ended first. A folder whose server
	// runs is an error. If this process runs as root, the user nobody must be able to enter the
	// folder. Default: a temporary folder, which Close removes.
	Dir string
	// Port is the port of URL. With the engine's usual port (6379, 5432, …) the further addresses
	// are at their usual ports too. Default: free ports below those that the system gives to
	// outgoing connections. A given port that is taken is an error.
	Port int
	// Config has lines for the server's configuration file, after those that this package writes.
	// For Prometheus it is the path of the file to run with (default: one without targets), for
	// Jaeger and Kubernetes flags, one a line.
	Config string
	// Logins are names and passwords, of letters and digits. With any, Kafka listens at
	// Addr("sasl") too, for clients that log in as one of them by PLAIN, SCRAM-SHA-256 or
	// SCRAM-SHA-512. Those of SCRAM are written at the first start in Dir. Other engines ignore it.
	Logins map[string]string
	// TLS is a folder with ca.pem, server.pem and client.pem, the last two with their keys, which are
	// read at each start. With it PostgreSQL, RabbitMQ, NATS, Consul, Redis and the listener
	// "sasl" of Kafka take TLS alone, from clients with a certificate of ca.pem. URL has the
	// client's files in the parameters ca, cert and key, for PostgreSQL in its own. Other engines
	// ignore it.
	TLS string
}

// A Server is a running server, or one that was killed. Its methods may be called concurrently.
type Server struct {
	engine Engine
	what   description
	opts   Options
	given  *url.URL // not nil: started by somebody else
	at     *url.URL // with given: where it is

	program string // what find returned
	dir     string
	ports   map[string]int
	unhold  func()    // lets other processes have the ports
	lock    io.Closer // of a folder of the caller's
	as      *account

	mu     sync.Mutex
	closed bool
	main   *proc.Process // nil: not started yet, or killed
	helper *proc.Process // what runs beside it over restarts; nil for most engines
}

// Start starts a server and waits until it answers, 90 s at most. The error wraps ErrMissing when
// it is not installed, and has the end of the server's log when it did not start. Nothing is
// installed here. ctx limits the start, not the server's life.
func Start(ctx context.Context, e Engine, opts *Options) (*Server, error) {
	s, err := start(ctx, e, opts, FreePorts)
	if err != nil {
		return nil, fmt.Errorf("servers: start %s: %w", e, err)
	}
	return s, nil
}

// At returns a server that is already running and is not ours to kill: Kill, Restart, Pause and
// Resume return an error, Close does nothing. Its further addresses are at their usual ports.
func At(e Engine, rawURL string) (*Server, error) {
	what, err := describe(e)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(rawURL)
	at := u
	if err == nil && e == Kubernetes { // whose URL has the namespace in the place of a host
		at, err = url.Parse(u.Query().Get("server"))
	}
	if err != nil || at.Host == "" {
		return nil, fmt.Errorf("servers: the URL of %s names no host, want e.g. %s", e, what.example)
	}
	return &Server{engine: e, what: what, given: u, at: at}, nil
}

// Variable is the environment variable that names a server of an engine to use instead of starting one,
// e.g. KAPTAR_TEST_POSTGRES.
func Variable(e Engine) string { return "KAPTAR_TEST_" + strings.ToUpper(string(e)) }

// Given is At for the URL that Variable has, if it has one, and else Start.
func Given(ctx context.Context, e Engine, opts *Options) (*Server, error) {
	if given := os.Getenv(Variable(e)); given != "" {
		return At(e, given)
	}
	return Start(ctx, e, opts)
}

// Provide is Given, after Install if the engine is missing. What that does is written to out.
func Provide(ctx context.Context, out io.Writer, e Engine, opts *Options) (*Server, error) {
	s, err := Given(ctx, e, opts)
	if errors.Is(err, ErrMissing) {
		if err = Install(ctx, out, string(e)); err == nil {
			s, err = Given(ctx, e, opts)
		}
	}
	return s, err
}

// Engine returns the kind of server.
func (s *Server) Engine() Engine { return s.engine }

// URL returns where the server answers. It stays the same over Kill and Restart. The forms are
// kafka://host:port, amqp://guest:guest@host:port, nats://kaptar:s3cr3t@host:port,
// consul://host:port, redis://host:port, postgres://…/postgres?sslmode=disable, http://host:port
// for Prometheus, Jaeger and VictoriaLogs, whose queries are there, and
// kubernetes://default?server=https://host:port&token_file=…&ca=… with the token of an
// administrator.
func (s *Server) URL() string {
	if s.given != nil {
		return s.given.String()
	}
	return s.what.url(s)
}

// Addr returns host:port of a further address: "management" and "prometheus" of RabbitMQ; "sasl" of
// Kafka with Options.Logins; "dns" of Consul; "otlp-grpc" and "otlp-http" of Jaeger. The empty name
// is the address of URL. It returns "" for a name that the engine does not have.
func (s *Server) Addr(name string) string {
	for _, p := range s.what.ports {
		switch {
		case p.name != name || p.inner || !s.uses(p):
		case s.given == nil:
			return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports[name]))
		case name == "" && s.at.Port() != "":
			return s.at.Host
		default:
			return net.JoinHostPort(s.at.Hostname(), strconv.Itoa(p.usual))
		}
	}
	return ""
}

// uses reports whether the server listens on a port with its options.
func (s *Server) uses(p port) bool { return !p.logins || len(s.opts.Logins) > 0 }

// Names returns the names that Addr has further addresses for.
func (s *Server) Names() []string {
	var names []string
	for _, p := range s.what.ports {
		if p.name != "" && !p.inner && s.uses(p) {
			names = append(names, p.name)
		}
	}
	return names
}

// UsualPorts returns the ports of an engine that people expect it on, by the names of Addr. An
// unknown engine has none.
func UsualPorts(e Engine) map[string]int {
	what, err := describe(e)
	if err != nil {
		return nil
	}
	ports := map[string]int{}
	for _, p := range what.ports {
		if !p.inner && !p.logins {
			ports[p.name] = p.usual
		}
	}
	return ports
}

// Idle returns an error if a server with Options.Dir dir runs.
func Idle(dir string) error {
	lock, err := tryLock(filepath.Join(dir, lockFile))
	if err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	return lock.Close()
}

// Running reports whether the server runs. It does not after Kill and Close, and when it has ended
// by itself.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running()
}

// Dir returns the folder with the server's files.
func (s *Server) Dir() string { return s.dir }

// Log returns what the server has printed since Start, the last 64 KiB.
func (s *Server) Log() string {
	text, _ := os.ReadFile(s.path("log")) // or it has printed nothing
	return string(text[max(0, len(text)-logTail):])
}

// Kill ends the server with SIGKILL, as a crash does, and waits until it is gone. Its files stay. A
// server that does not run is no error. Before it kills RabbitMQ it lets a second pass: that writes
// the name of a new quorum queue to disk after half a second, and a queue whose name was not
// written has no leader after a crash, for ever.
func (s *Server) Kill() error {
	return s.do("kill", func() error {
		if s.what.beforeKill > 0 && s.running() {
			<-time.After(s.what.beforeKill)
		}
		return s.kill()
	})
}

// Restart starts the server on the same files and ports, after killing it if it runs, and waits
// until it answers.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Kill(); err != nil {
		return err
	}
	return s.do("restart", func() error { return s.launch(ctx) })
}

// Pause stops the server with SIGSTOP: connections stay open, and nothing answers.
func (s *Server) Pause() error { return s.do("pause", func() error { return s.pause(true) }) }

// Resume lets a paused server go on.
func (s *Server) Resume() error { return s.do("resume", func() error { return s.pause(false) }) }

// Close ends the server and removes its files if the folder was a temporary one. With a folder of
// the caller's the server ends in order. The second Close does nothing.
func (s *Server) Close() error {
	err := s.do("close", func() error {
		s.closed = true
		defer s.release()
		return s.end()
	})
	if errors.Is(err, errGiven) || errors.Is(err, errClosed) {
		return nil
	}
	return err
}

// do runs f under the lock, on a server that is ours and not closed.
func (s *Server) do(verb string, f func() error) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.given != nil:
		err = errGiven
	case s.closed:
		err = errClosed
	default:
		err = f()
	}
	if err != nil {
		err = fmt.Errorf("servers: %s %s: %w", verb, s.engine, err)
	}
	return err
}

// end ends the server and what runs beside it.
func (s *Server) end() (err error) {
	if s.opts.Dir != "" {
		err = s.stop()
	}
	err = errors.Join(err, s.kill())
	s.stopHelper()
	if s.opts.Dir == "" && s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir)) // /tmp may not let the server's user remove the folder itself
	}
	return err
}

// release lets other processes have the ports.
func (s *Server) release() {
	if s.unhold != nil {
		s.unhold()
	}
	if s.lock != nil {
		_ = s.lock.Close()
		s.lock = nil
	}
}
