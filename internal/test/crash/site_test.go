package crash

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/proc"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/sqldb"
)

// A site is the servers and the processes of one run.
type site struct {
	t       *testing.T
	dir     string
	store   string     // the folder of the databases and of the servers' files; "": dir, and others
	config  string     // more lines for the servers' configuration
	random  *rand.Rand // of the test's goroutine
	engines []*engine
	members []*member
	power   sync.RWMutex // while it is locked no process starts
	// settings are those of all processes, by key, and databases the URLs by service.
	settings, databases map[string]string

	quiet time.Duration // at least, between two kills

	kills    atomic.Int64 // SIGKILLs that ended a process
	pauses   atomic.Int64
	failures atomic.Int64 // processes that ended by themselves, as those do that find no broker at their start
}

// An engine is a server that can be killed.
type engine struct {
	*servers.Server
	busy  atomic.Bool // it is killed or started
	kills atomic.Int64
}

// A shape makes the servers of a site, and its settings and databases.
type shape struct {
	name  string
	open  func(s *site)
	kills int // without the flag
}

// startServers starts servers, all at the same time.
func (s *site) startServers(all ...servers.Engine) (urls []string) {
	s.t.Helper()
	s.engines = make([]*engine, len(all))
	var starts sync.WaitGroup
	for i, e := range all {
		servertest.Need(s.t, e)
		opts := servers.Options{Config: s.config}
		if s.store != "" {
			opts.Dir = filepath.Join(s.store, string(e))
		}
		starts.Go(func() { s.engines[i] = &engine{Server: servertest.Start(s.t, e, opts)} })
	}
	starts.Wait()
	for _, e := range s.engines {
		if e == nil {
			s.t.FailNow() // Start has said why
		}
		urls = append(urls, e.URL())
	}
	return urls
}

func (s *site) sqliteNATS() {
	s.settings["broker_url"] = s.startServers(servers.NATS)[0] + "?atomic=true&ack_wait=6s"
	s.sqlite()
}

// sqlite has a database for each service, where package local has them.
func (s *site) sqlite() {
	for _, service := range []string{"bank", "ledger", "vault"} {
		s.databases[service] = "sqlite:" + filepath.Join(cmp.Or(s.store, s.dir), service+".db")
	}
}

// servers has the log on Kafka and the rest on RabbitMQ.
func (s *site) servers() {
	urls := s.startServers(servers.Postgres, servers.Kafka, servers.RabbitMQ)
	s.settings["topics."+logTopic+".url"] = urls[1] + "?partitions=6&ack_wait=6s"
	s.rabbitMQ(urls[2])
	s.quiet = time.Second
	s.postgres(urls[0])
}

// rabbitMQ is the broker. There mandatory=true keeps in the outbox what is committed before the ledger
// has begun: without it RabbitMQ drops and confirms that.
func (s *site) rabbitMQ(url string) {
	s.settings["broker_url"] = url + "?partitions=6&ack_wait=6s&from_beginning=now&mandatory=true"
}

// postgres has a database for each service.
func (s *site) postgres(server string) {
	admin, err := sqldb.Open(context.Background(), server)
	if err != nil {
		s.t.Fatal(err)
	}
	defer admin.Close()
	at, err := url.Parse(server)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, service := range []string{"bank", "ledger", "vault"} {
		if _, err := admin.ExecContext(context.Background(), "CREATE DATABASE "+service+" TEMPLATE template0"); err != nil {
			s.t.Fatal(err)
		}
		at.Path = service
		s.databases[service] = at.String()
	}
}

// openSite starts the servers of a shape; settings are of all processes.
func openSite(t *testing.T, sh shape, seed uint64, settings map[string]string) *site {
	t.Helper()
	s := &site{
		t: t, dir: t.TempDir(), random: rand.New(rand.NewPCG(seed, 0)),
		settings: map[string]string{"log_format": "text"}, databases: map[string]string{},
	}
	sh.open(s)
	s.settings["dir"] = s.dir
	maps.Copy(s.settings, settings)
	return s
}

// A member is a process that is started again whenever it has ended, as an orchestrator does.
type member struct {
	name string
	site *site
	args []string
	log  tail

	kills atomic.Int64

	mu  sync.Mutex
	now *proc.Process
}

// with returns a command line of the program's, with the settings of a service's processes.
func (s *site) with(service string, settings map[string]string, args ...string) []string {
	args = append(args, "--set", "database_url="+s.databases[service])
	for _, more := range []map[string]string{s.settings, settings} {
		for key, value := range more {
			args = append(args, "--set", key+"="+value)
		}
	}
	return args
}

// program is the command that runs the program.
func (s *site) program(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), asProgram+"=1")
	return cmd
}

// run starts a process of a service, until the end of the test.
func (s *site) run(name, service string, settings map[string]string) *member {
	s.t.Helper()
	return s.started(name, s.with(service, settings, "run", service, "--set", "member="+name)...)
}

// started runs a process of the program, until the end of the test.
func (s *site) started(name string, args ...string) *member {
	s.t.Helper()
	m := &member{name: name, site: s, args: args}
	s.members = append(s.members, m)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for starts := 0; ctx.Err() == nil; starts++ {
			m.once(ctx, starts)
		}
	}()
	s.t.Cleanup(func() {
		cancel()
		<-done
		if s.t.Failed() {
			s.t.Logf("the log of %s:\n%s", name, m.log.String())
		}
	})
	return m
}

// stopTime is what a process has for a graceful stop.
const stopTime = 20 * time.Second

// once runs the process until it ends.
func (m *member) once(ctx context.Context, starts int) {
	cmd := m.site.program(append(m.args, "--set", fmt.Sprint("seed=", starts))...)
	cmd.Stdout, cmd.Stderr = &m.log, &m.log
	p, err := m.start(cmd)
	if err != nil {
		m.site.t.Errorf("start %s: %v", m.name, err)
		steady.Sleep(ctx, time.Second)
		return
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Stop(stopTime)
	}
	err = p.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == -1 { // a signal
		m.site.kills.Add(1)
		m.kills.Add(1)
	} else if ctx.Err() == nil {
		m.site.failures.Add(1)
		steady.Sleep(ctx, 200*time.Millisecond)
	}
}

// start starts the process when there is power.
func (m *member) start(cmd *exec.Cmd) (p *proc.Process, err error) {
	m.site.power.RLock()
	defer m.site.power.RUnlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, err = proc.Start(cmd, nil); err == nil {
		m.now = p
	}
	return p, err
}

// kill ends the process, if there is one just now, and returns it.
func (m *member) kill() *proc.Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now != nil {
		m.now.Kill()
	}
	return m.now
}

// kill kills the server and starts it again.
func (e *engine) kill(s *site) {
	defer e.busy.Store(false)
	e.end(s)
	e.start(s)
}

func (e *engine) end(s *site) {
	if err := e.Kill(); err != nil {
		s.t.Errorf("kill %s: %v", e.Engine(), err)
	}
	s.kills.Add(1)
	e.kills.Add(1)
}

func (e *engine) start(s *site) {
	err := e.Restart(context.Background())
	for tries := 1; err != nil && tries < 3; tries++ { // on a machine that is busy
		s.t.Logf("restart %s: %v", e.Engine(), err)
		err = e.Restart(context.Background())
	}
	if err != nil {
		s.t.Errorf("restart %s: %v", e.Engine(), err)
	}
}

// pause stops the process with SIGSTOP for a while, as a machine does that swaps or migrates. Its
// connections and leases stay, and what it was given comes to others meanwhile.
func (m *member) pause(d time.Duration) {
	m.mu.Lock()
	p := m.now
	m.mu.Unlock()
	if p == nil || p.Signal(syscall.SIGSTOP) != nil {
		return // it has just ended
	}
	m.site.pauses.Add(1)
	select {
	case <-time.After(d):
	case <-p.Done(): // killed
	}
	_ = p.Signal(syscall.SIGCONT) // it may have ended
}

// restarting reports whether a server is away. Two at a time would leave no time in which processes start.
func (s *site) restarting() bool {
	return slices.ContainsFunc(s.engines, func(e *engine) bool { return e.busy.Load() })
}

// A tail is the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailLength = 16 << 10

func (l *tail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, b...)
	if len(l.text) > 4*tailLength {
		l.text = append(l.text[:0], l.text[len(l.text)-tailLength:]...)
	}
	return len(b), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// killUntil kills processes and servers at random moments, now and then two at once, until so many
// SIGKILLs have struck, and pauses some processes. Everybody is killed once; then a server is one of
// six, a pause one of eight.
func (s *site) killUntil(n int64, progress func()) {
	var later sync.WaitGroup
	defer later.Wait()
	first := s.random.Perm(len(s.members) + len(s.engines))
	for s.kills.Load() < n || len(first) > 0 {
		for range 1 + s.random.IntN(6)/5 {
			victim, must := s.random.IntN(len(s.members)), len(first) > 0
			switch {
			case must:
				victim, first = first[0], first[1:]
			case s.random.IntN(6) == 0:
				victim = len(s.members) + s.random.IntN(len(s.engines))
			case s.random.IntN(8) == 0:
				m, d := s.members[victim], time.Duration(1+s.random.IntN(9))*time.Second // and so longer than the brokers wait
				later.Go(func() { m.pause(d) })
				continue
			}
			switch at := victim - len(s.members); {
			case at < 0:
				s.members[victim].kill()
			case !s.restarting():
				s.engines[at].busy.Store(true)
				later.Go(func() { s.engines[at].kill(s) })
			case must: // later
				first = append(first, victim)
			}
		}
		<-time.After(s.quiet + time.Duration(100+s.random.IntN(900))*time.Millisecond)
		if progress != nil {
			progress()
		}
	}
}

// toll says how often each was killed.
func (s *site) toll() string {
	var parts []string
	for _, m := range s.members {
		parts = append(parts, fmt.Sprint(m.name, " ", m.kills.Load()))
	}
	for _, e := range s.engines {
		parts = append(parts, fmt.Sprint(e.Engine(), " ", e.kills.Load()))
	}
	return strings.Join(parts, ", ")
}

// halt ends the writing, and the kills from inside.
func (s *site) halt() {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, haltFile), nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// A books is the databases of the services, opened beside their processes.
type books struct{ bank, ledger, vault *sql.DB }

// books waits until the services have made their tables. Without a saga there is no vault.
func (s *site) books(withVault bool) *books {
	s.t.Helper()
	b := new(books)
	s.open("bank", "kaptar_groups", &b.bank)
	s.open("ledger", "kaptar_groups", &b.ledger)
	if withVault {
		s.open("vault", "moves", &b.vault)
	}
	return b
}

// close ends their connections.
func (b *books) close() {
	for _, db := range []*sql.DB{b.bank, b.ledger, b.vault} {
		if db != nil {
			_ = db.Close()
		}
	}
}

func (s *site) open(service, table string, db **sql.DB) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), liveness)
	defer cancel()
	var err error
	if *db, err = sqldb.Open(ctx, s.databases[service]); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = (*db).Close() })
	for !errors.Is((*db).QueryRowContext(ctx, `SELECT 1 FROM `+table+` WHERE 1 = 0`).Scan(new(int)), sql.ErrNoRows) {
		if !steady.Sleep(ctx, 50*time.Millisecond) {
			s.t.Fatalf("%s has no tables after %v", service, liveness)
		}
	}
}

// bytes is how long a file of the site is.
func (s *site) bytes(name string) int64 {
	info, err := os.Stat(filepath.Join(s.dir, name))
	if err != nil {
		return 0
	}
	return info.Size()
}
