package local

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaptar/kaptar/internal/listen"
)

// startTimeout bounds the start of the embedded broker; recovering a large store takes longer than
// the usual few milliseconds.
const startTimeout = 30 * time.Second

// authTimeout is how long a client may take to send its password. The server's default of two
// seconds is too short on a machine that is busy starting everything at once.
const authTimeout = 10 * time.Second

// maxPayload leaves room for headers beside the largest message (driver.MaxSize).
const maxPayload = 2 << 20

// maxStore is larger than any disk. The server's own limit would be the free space at its start,
// and would not grow with it.
const maxStore = 1 << 50

// embedded is the broker of one Run, a NATS server that starts when it is first needed.
type embedded struct {
	url, listen   string
	password, dir string
	free          io.Closer // holds the port until then
	log           *slog.Logger

	mu     sync.Mutex
	server *server.Server // nil: it does not run
	over   chan struct{}  // closed by stop; nil: it was never started
}

// has reports whether a URL is that of the embedded broker, with any parameters.
func (e *embedded) has(url string) bool {
	server, _, _ := strings.Cut(url, "?")
	return server == e.url
}

func (e *embedded) start(ctx context.Context) (err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over == nil {
		_ = e.free.Close()
		if e.server, err = e.open(ctx); err != nil {
			return fmt.Errorf("local: embedded broker: %w", err)
		}
		e.over = make(chan struct{})
		go e.tend() //nolint:gosec // until stop, and not as long as the start
	}
	return nil
}

// running returns the address of the broker, or "" when it does not run.
func (e *embedded) running() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over == nil {
		return ""
	}
	return e.listen
}

// startNATS starts a NATS server with JetStream on address, its store under dir. Clients need the
// password: other users of the machine reach the address too. Every message is on disk before it is
// acknowledged (SyncAlways). By default the server syncs every two minutes, and a power failure
// loses what was acknowledged in between.
func startNATS(ctx context.Context, address, password, dir string, to *slog.Logger) (*server.Server, error) {
	host, portText, _ := net.SplitHostPort(address) // Options.sources has checked it
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 { // the server would take 4222 for 0; Run has chosen one by now
		return nil, fmt.Errorf("--nats-listen %s: port %q: expected a number from 1 to 65535", address, portText)
	}
	// Binding first gives an error that says who holds the port.
	probe, err := listen.TCP(address, "--nats-listen")
	if err != nil {
		return nil, err
	}
	if err := probe.Close(); err != nil {
		return nil, err
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "kaptar", Host: host, Port: int(port),
		Username: brokerUser, Password: password, AuthTimeout: authTimeout.Seconds(),
		JetStream: true, StoreDir: dir, SyncAlways: true, JetStreamMaxStore: maxStore,
		MaxPayload: maxPayload, NoSigs: true, DisableShortFirstPing: true,
	})
	if err != nil {
		return nil, err
	}
	log := newServerLog(to)
	s.SetLoggerV2(log, false, false, false)
	started := make(chan struct{})
	go func() {
		s.Start()
		close(started)
	}()
	if err := await(ctx, s, log); err != nil {
		<-started // a start that goes on beside the shutdown would leave files behind
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("did not start with its files in %s: %w", dir, err)
	}
	return s, nil
}

// await returns when the server is ready, or with the reason why it is not.
func await(ctx context.Context, s *server.Server, log *serverLog) error {
	ready := make(chan bool, 1)
	go func() { ready <- s.ReadyForConnections(startTimeout) }()
	select {
	case ok := <-ready:
		if ok && s.JetStreamEnabled() {
			return nil
		}
		return fmt.Errorf("not ready after %v: %v", startTimeout, log.last.Load())
	case err := <-log.fatal:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stopTimeout bounds the stop of the embedded broker.
const stopTimeout = 5 * time.Second

// stop shuts the server down, if it runs. Its store is always complete, so nothing is lost if the
// stop is cut short.
func (e *embedded) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over == nil {
		return
	}
	close(e.over)
	if e.server != nil {
		shutDown(e.server)
	}
}

func shutDown(s *server.Server) {
	s.Shutdown()
	stopped := make(chan struct{})
	go func() {
		s.WaitForShutdown()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(stopTimeout):
	}
}

// serverLog logs the broker's warnings and errors, and keeps the last one for a failed start.
type serverLog struct {
	to    *slog.Logger
	fatal chan error   // gets what keeps the server from starting
	last  atomic.Value // the last complaint, a string
}

func newServerLog(to *slog.Logger) *serverLog {
	l := &serverLog{to: to, fatal: make(chan error, 1)}
	l.last.Store("no reason given")
	return l
}

var _ server.Logger = (*serverLog)(nil)

func (l *serverLog) Noticef(string, ...any)         {}
func (l *serverLog) Debugf(string, ...any)          {}
func (l *serverLog) Tracef(string, ...any)          {}
func (l *serverLog) Errorf(format string, v ...any) { l.tell(slog.LevelError, format, v) }

// Warnf leaves out what the server says of a password that is not hashed: it is random, made for this
// server, and read from a file that only its owner can read.
func (l *serverLog) Warnf(format string, v ...any) {
	if !strings.HasPrefix(format, "Plaintext passwords detected") {
		l.tell(slog.LevelWarn, format, v)
	}
}

func (l *serverLog) tell(level slog.Level, format string, v []any) {
	text := strings.TrimSpace(fmt.Sprintf(format, v...))
	l.last.Store(text)
	l.to.Log(context.Background(), level, "embedded broker: "+text)
}

// Fatalf implements server.Logger. It must return: the server calls it instead of returning an
// error, and then stops starting.
func (l *serverLog) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Errorf(format, v...):
	default: // the first one tells
	}
}
