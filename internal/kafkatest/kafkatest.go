// Package kafkatest gives tests a real Apache Kafka: one broker in KRaft mode, with its files in a temporary folder.
//
//	func TestMain(m *testing.M) { kafkatest.Main(m) }
//
//	func TestOrders(t *testing.T) {
//		b, err := driver.Open(t.Context(), kafkatest.URL(t))
//		…
//	}
//
// The server's jars are fetched once by Maven, as tools/kafka/pom.xml says, into the user's cache folder. It runs on Java 17
// or newer, on free loopback ports, and ends with the test process even when that is killed.
package kafkatest

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
)

// EnvURL names the environment variable with the URL of a broker to use instead of starting one, "kafka://host:9092".
// Tests that stop their server start one all the same.
const EnvURL = "KAPTAR_TEST_KAFKA"

// shared is what all tests of the process use.
type shared struct {
	mu      sync.Mutex
	inMain  bool
	started bool
	server  *Server
	err     error
	all     []*Server
}

// one is the server of this test process; a process has one TestMain and so one server.
var one shared

// Main runs the tests of a package, stops the servers that URL and Start started, and exits the process.
func Main(m *testing.M) {
	one.mu.Lock()
	one.inMain = true
	one.mu.Unlock()
	code := m.Run()
	if err := one.close(); err != nil {
		fmt.Fprintln(os.Stderr, "kafkatest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// URL returns the URL of a broker that all tests of the process share: give topics and groups names of their own. Without a
// broker the test is skipped with the reason, or fails when CI is set. The package's TestMain must call Main.
func URL(t testing.TB) string {
	t.Helper()
	if given := os.Getenv(EnvURL); given != "" {
		return given
	}
	one.mu.Lock()
	if !one.started && one.inMain {
		one.started = true
		one.server, one.err = one.start()
	}
	s, err := one.server, one.err
	if !one.inMain {
		err = errNoMain
	}
	one.mu.Unlock()
	if err != nil {
		missing(t, err)
	}
	return s.URL()
}

// Start starts a broker for one test, which may Kill and Restart it; it is stopped after the test. Without Java or Maven it
// does what URL does.
func Start(t testing.TB) *Server {
	t.Helper()
	one.mu.Lock()
	s, err := (*Server)(nil), errNoMain
	if one.inMain {
		s, err = one.start()
	}
	one.mu.Unlock()
	if err != nil {
		missing(t, err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Errorf("kafkatest: stop the broker: %v", err)
		}
	})
	return s
}

var errNoMain = errors.New("TestMain does not call kafkatest.Main, so nothing would stop the server")

func missing(t testing.TB, err error) {
	t.Helper()
	text := fmt.Sprintf("no Kafka: %v; install what it needs (Debian: apt install openjdk-17-jre-headless maven) or set %s=kafka://…", err, EnvURL)
	if os.Getenv("CI") != "" {
		t.Fatal(text)
	}
	t.Skip(text)
}

// start starts a server. The caller holds s.mu.
func (s *shared) start() (*Server, error) {
	server, err := newServer()
	if err == nil {
		s.all = append(s.all, server)
	}
	return server, err
}

func (s *shared) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, server := range s.all {
		errs = append(errs, server.close())
	}
	return errors.Join(errs...)
}
