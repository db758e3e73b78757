// Package pgtest gives tests a database on a real PostgreSQL.
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
//	func TestOrders(t *testing.T) {
//		db, err := sqldb.Open(t.Context(), pgtest.URL(t))
//		…
//	}
//
// The server is the one at KAPTAR_TEST_POSTGRES (a URL whose role may create databases), or else one that the package
// starts for this test process from installed binaries, on a free loopback port, and stops in Main. It ends with the
// process even when that is killed.
package pgtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers "pgx"
)

// EnvURL names the environment variable with the URL of a server to use instead of starting one.
const EnvURL = "KAPTAR_TEST_POSTGRES"

// shared is a server that all tests of the process use.
type shared struct {
	mu      sync.Mutex
	inMain  bool
	started bool
	admin   string // URL of a database from which others are created
	err     error
	stop    func() error
}

// one is the server of this test process; a process has one TestMain and so one server.
var one shared

// Main runs the tests of a package, stops the server if URL started one, and exits the process.
func Main(m *testing.M) {
	one.mu.Lock()
	one.inMain = true
	one.mu.Unlock()
	code := m.Run()
	if err := one.close(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// URL returns the URL of a new, empty database that is dropped after the test. Without a server the test is skipped
// with the reason, or fails when CI is set. The package's TestMain must call Main.
func URL(t testing.TB) string {
	t.Helper()
	admin, err := one.open()
	if err != nil {
		text := fmt.Sprintf("no PostgreSQL: %v; install it (Debian: apt install postgresql) or set %s=postgres://…", err, EnvURL)
		if os.Getenv("CI") != "" {
			t.Fatal(text)
		}
		t.Skip(text)
	}
	name := "kaptar_" + strings.ToLower(rand.Text()[:16])
	if err := execute(admin, "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		t.Fatalf("pgtest: create a database: %v", err)
	}
	t.Cleanup(func() {
		if err := execute(admin, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("pgtest: drop the database: %v", err)
		}
	})
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatalf("pgtest: %s is no URL", EnvURL)
	}
	u.Path = "/" + name
	return u.String()
}

// open returns the admin URL, starting the server at the first call.
func (s *shared) open() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if given := os.Getenv(EnvURL); given != "" {
		return given, nil
	}
	if !s.inMain {
		return "", errors.New("TestMain does not call pgtest.Main, so nothing would stop the server")
	}
	if !s.started {
		s.started = true
		s.admin, s.stop, s.err = start()
	}
	return s.admin, s.err
}

func (s *shared) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop == nil {
		return nil
	}
	stop := s.stop
	s.stop = nil
	return stop()
}

func execute(admin, statement string) error {
	db, err := sql.Open("pgx", admin)
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err = db.ExecContext(ctx, statement)
	return err
}
