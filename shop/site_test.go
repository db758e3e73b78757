package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/sqldb"
)

// A shape is a way to run the shop. Its functions leave the site as they say when
// they return, and fail the test when they cannot.
type shape struct {
	name string
	// prepare starts what the shop needs beside itself, and sets the install up.
	prepare func(t *testing.T, s *site)
	// start starts all services and returns when they are ready.
	start func(t *testing.T, s *site)
	// kill ends the process that service runs in with SIGKILL.
	kill func(t *testing.T, s *site, service string)
	// revive returns when service, which was killed, is ready again.
	revive func(t *testing.T, s *site, service string)
	// database is the URL of service's database.
	database func(s *site, service string) string
	// wire is the client of the broker that topic is on.
	wire func(t *testing.T, s *site, topic string) wire
}

// Names of the shapes.
const (
	oneProcess = "one process"
	splitShape = "split"
	realShape  = "real"
)

// shapes are the three of them.
func shapes() []*shape {
	embedded := func(t *testing.T, s *site, _ string) wire { return dialNATS(t, s.in.brokerURL(t)) }
	file := func(s *site, service string) string {
		return "sqlite:" + filepath.Join(s.in.Dir, "data", service+".db")
	}
	return []*shape{
		{
			name: oneProcess, database: file, wire: embedded,
			prepare: prepareEmbedded,
			start:   func(t *testing.T, s *site) { s.whole(t) },
			kill:    func(t *testing.T, s *site, _ string) { s.killAll(t) },
			revive:  func(t *testing.T, s *site, _ string) { s.whole(t) },
		},
		{
			name: splitShape, database: file, wire: embedded,
			prepare: prepareEmbedded,
			start:   func(t *testing.T, s *site) { s.whole(t, "--split") },
			kill:    killPart,
			revive:  revivePart,
		},
		{
			name: realShape, database: func(s *site, service string) string { return s.in.Databases[service] }, wire: realWire,
			prepare: prepareReal,
			start:   startReal,
			kill:    func(_ *testing.T, s *site, service string) { s.proc(service).Kill() },
			revive:  func(t *testing.T, s *site, service string) { s.alone(t, service) },
		},
	}
}

// A site is the shop running in one of the shapes, for all scenarios.
type site struct {
	*shape
	ledger
	in      *install
	servers map[servers.Engine]*servers.Server // of the real shape
	spans   *collector

	mu     sync.Mutex
	procs  map[string]*process // by service; "" when one runs or supervises all
	past   map[string]string   // the logs of processes that have ended
	killed map[string]int      // the process of a service that was killed last
}

// fastAckWait has the broker give an event to somebody else 6 s after a process took it that was killed,
// as the least of Kafka is; the default is 30 s.
const fastAckWait = "?atomic=true&ack_wait=6s"

// prepareEmbedded chooses the password of the embedded broker, so that the settings can name its URL.
func prepareEmbedded(t *testing.T, s *site) {
	t.Helper()
	data, url := filepath.Join(s.in.Dir, "data"), "nats://kaptar:"+rand.Text()+"@"+s.in.nats
	if err := errors.Join(os.Mkdir(data, 0o700), os.WriteFile(filepath.Join(data, "broker.url"), []byte(url), 0o600)); err != nil {
		t.Fatal(err)
	}
	s.in.Extra += fmt.Sprintf("broker_url: %q\n", url+fastAckWait)
}

// everything is the key of the process that all services are in or below.
const everything = ""

// openSite starts the shop in the given shape. It ends with the test.
func openSite(t *testing.T, sh *shape, extra string) *site {
	t.Helper()
	in := newInstall(t, binary)
	in.Extra = extra
	s := &site{shape: sh, in: in, procs: make(map[string]*process), past: make(map[string]string), killed: make(map[string]int)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.keepLogs())
		}
		for _, p := range s.running() {
			p.Kill()
		}
	})
	sh.prepare(t, s)
	sh.start(t, s)
	return s
}

// as is the site's client for a test.
func (s *site) as(t *testing.T) client { return client{install: s.in, t: t} }

func (s *site) proc(name string) *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.procs[name]
}

func (s *site) running() []*process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.procs))
}

// put notes the process of a service and keeps the log of the one before.
func (s *site) put(name string, p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.procs[name]; old != nil {
		s.past[name] += old.Log()
	}
	s.procs[name] = p
}

// whole starts the program with all services.
func (s *site) whole(t *testing.T, args ...string) {
	t.Helper()
	p, err := s.in.Start(context.Background(), append([]string{"--demo"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	s.put(everything, p)
}

// alone starts a service's own process.
func (s *site) alone(t *testing.T, service string) {
	t.Helper()
	p, err := s.in.Run(context.Background(), service)
	if err != nil {
		t.Fatal(err)
	}
	s.put(service, p)
}

// killPart ends a process of the split shop.
func killPart(t *testing.T, s *site, service string) {
	t.Helper()
	pid := s.proc(everything).ServicePID(service)
	if pid == 0 {
		t.Fatalf("neither screen nor log tell the process of %s", service)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %s, process %d: %v", service, pid, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.killed[service] = pid
}

// revivePart waits for the process that the supervisor starts instead of a killed
// one.
func revivePart(t *testing.T, s *site, service string) {
	t.Helper()
	s.mu.Lock()
	pid := s.killed[service]
	s.mu.Unlock()
	eventually(t, func() string {
		if now := s.proc(everything).ServicePID(service); now == pid {
			return fmt.Sprintf("the log does not tell that %s, killed as process %d, is ready again", service, pid)
		}
		return ""
	})
	s.ready(t, service)
}

// ready waits until service says that it is ready.
func (s *site) ready(t *testing.T, service string) {
	t.Helper()
	eventually(t, func() string {
		if !isReady(s.in.HTTP(service)) {
			return service + " is not ready"
		}
		return ""
	})
}

// killAll ends every process of the shop with SIGKILL.
func (s *site) killAll(t *testing.T) {
	t.Helper()
	for _, p := range s.running() {
		p.Kill()
	}
	for _, service := range serviceNames() {
		eventually(t, func() string {
			if conn, err := net.Dial("tcp", s.in.HTTP(service)); err == nil {
				_ = conn.Close()
				return service + " is not gone"
			}
			return ""
		})
	}
}

// stopAll stops every process of the shop gracefully, all at the same time.
func (s *site) stopAll(t *testing.T) {
	t.Helper()
	for _, p := range s.running() {
		if err := p.Signal(os.Interrupt); err != nil {
			t.Fatalf("interrupt: %v", err)
		}
	}
	s.mu.Lock()
	procs := maps.Clone(s.procs)
	s.mu.Unlock()
	for service, p := range procs {
		if err := p.Wait(); err != nil {
			t.Errorf("%s after an interrupt: %v; its log:\n%s", service, err, tail(p.Log()))
		}
	}
}

// logOf returns what service has logged from the start.
func (s *site) logOf(service string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.procs[service]; p != nil {
		return s.past[service] + p.Log()
	}
	var own strings.Builder
	if p := s.procs[everything]; p != nil {
		for line := range strings.Lines(s.past[everything] + p.Log()) {
			if strings.Contains(line, `"service":"`+service+`"`) {
				own.WriteString(line)
			}
		}
	}
	return own.String()
}

// keepLogs writes the logs where they outlive the test and says where.
func (s *site) keepLogs() string {
	dir, err := os.MkdirTemp("", "shop-"+strings.ReplaceAll(s.name, " ", "-")+"-")
	if err != nil {
		return err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, p := range s.procs {
		file := filepath.Join(dir, cmp.Or(name, "all")+".log")
		if err := os.WriteFile(file, []byte(s.past[name]+p.Log()), 0o600); err != nil {
			return err.Error()
		}
	}
	return "the shop's logs are in " + dir
}

// tail is the end of a log, for a message.
func tail(log string) string {
	const most = 4 << 10
	return log[max(0, len(log)-most):]
}

// openDB opens a service's database beside the service.
func (s *site) openDB(t *testing.T, service string) *sql.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), s.database(s, service))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}
