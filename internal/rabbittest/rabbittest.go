// Package rabbittest gives tests a virtual host of their own on a real RabbitMQ.
//
//	func TestMain(m *testing.M) { rabbittest.Main(m) }
//
//	func TestOrders(t *testing.T) {
//		b, err := driver.Open(t.Context(), rabbittest.URL(t))
//		…
//	}
//
// The package starts one server for this test process from installed files, as an unprivileged user, with a node name,
// ports, cookie, epmd and folder of its own, and ends it in Main. It ends with the process even when that is killed. A
// service of the machine that is called rabbitmq-server is neither used nor disturbed.
package rabbittest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// callTimeout bounds one call of the management interface, on a machine that is busy.
const callTimeout = 30 * time.Second

// userName is the server's only user.
const userName = "kaptar"

// shared is a server that all tests of the process use.
type shared struct {
	mu      sync.Mutex
	inMain  bool
	started bool
	server  *server
	err     error
}

// one is the server of this test process; a process has one TestMain and so one server.
var one shared

// Main runs the tests of a package, ends the server if URL started one, and exits the process.
func Main(m *testing.M) {
	one.mu.Lock()
	one.inMain = true
	one.mu.Unlock()
	code := m.Run()
	if err := one.close(); err != nil {
		fmt.Fprintln(os.Stderr, "rabbittest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// URL returns the URL of a new, empty virtual host that is deleted after the test. Its user may do everything there. The
// plugins rabbitmq_management and rabbitmq_consistent_hash_exchange are enabled. Without a server the test is skipped with
// the reason, or fails when CI is set. The package's TestMain must call Main.
func URL(t testing.TB) string {
	t.Helper()
	s := open(t)
	name := "kaptar-" + strings.ToLower(rand.Text()[:16])
	if err := s.manage(http.MethodPut, "vhosts/"+name); err != nil {
		t.Fatalf("rabbittest: create a virtual host: %v", err)
	}
	t.Cleanup(func() {
		if err := s.manage(http.MethodDelete, "vhosts/"+name); err != nil {
			t.Errorf("rabbittest: delete the virtual host: %v", err)
		}
	})
	return "amqp://" + s.user() + "@" + s.amqp + "/" + name
}

// Kill ends the server with SIGKILL, as a crash does, for all tests of the process. Restart starts it again. Before that it
// lets a moment pass: RabbitMQ 3.10 writes the name of a new quorum queue to disk after half a second, and a queue whose name was
// not written has no leader after the crash, for ever.
func Kill(t testing.TB) {
	t.Helper()
	s := open(t)
	<-time.After(time.Second)
	if err := s.kill(); err != nil {
		t.Fatalf("rabbittest: kill the server: %v", err)
	}
}

// Restart is Kill, if the server runs, and starts it with what it had stored, at the same address. It returns when the server
// answers.
func Restart(t testing.TB) {
	t.Helper()
	Kill(t)
	s := open(t)
	if err := s.launch(); err != nil {
		t.Fatalf("rabbittest: restart the server: %v", err)
	}
}

// open returns the server, starting it at the first call.
func open(t testing.TB) *server {
	t.Helper()
	s, err := one.open()
	if err != nil {
		text := fmt.Sprintf("no RabbitMQ: %v; install it (Debian: apt install rabbitmq-server)", err)
		if os.Getenv("CI") != "" {
			t.Fatal(text)
		}
		t.Skip(text)
	}
	return s
}

func (s *shared) open() (*server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.inMain {
		return nil, errors.New("TestMain does not call rabbittest.Main, so nothing would end the server")
	}
	if !s.started {
		s.started = true
		s.server, s.err = start()
	}
	return s.server, s.err
}

func (s *shared) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return nil
	}
	running := s.server
	s.server, s.err = nil, errors.New("the server has ended, with Main")
	return running.end()
}

// manage makes a call of the management interface.
func (s *server) manage(method, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+s.management+"/api/"+path, nil)
	if err != nil {
		return err
	}
	r.SetBasicAuth(userName, s.password)
	// No connection is kept: the server may be killed in between.
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return err
}

func (s *server) user() string { return url.UserPassword(userName, s.password).String() }
