// Package natstest gives tests NATS servers of their own that run as processes and may be killed, alone or as a cluster.
//
//	s := natstest.Start(t)
//	b, err := driver.Open(t.Context(), s.URL())
//	…
//	s.Kill(t)
//	s.Restart(t)
//
// A server is built once from the module that go.mod names, into the user's cache. It runs as an unprivileged user on loopback,
// with JetStream on disk and sync always, and wants user and password. It ends with the test, and with the test process even
// when that is killed.
package natstest

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// User is the only user of every server.
const User = "kaptar"

// A Server is one NATS server process.
type Server struct {
	name     string
	password string
	dir      string
	port     int
	process
}

// Name returns the name that the server has in a cluster.
func (s *Server) Name() string { return s.name }

// Addr returns host:port. It stays the same.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// Password returns the password of User.
func (s *Server) Password() string { return s.password }

// URL returns the URL with user and password.
func (s *Server) URL() string { return "nats://" + User + ":" + s.password + "@" + s.Addr() }

// Log returns what the server printed.
func (s *Server) Log() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(text)
}

// Start starts a server. config holds further lines of its configuration.
func Start(t testing.TB, config ...string) *Server {
	t.Helper()
	s := &Server{name: "n1", password: rand.Text()}
	begin(t, s, func(*Server) string { return strings.Join(config, "\n") })
	return s
}

// A Cluster is several servers that keep streams together.
type Cluster []*Server

// StartCluster starts a cluster of n servers and waits until it takes streams.
func StartCluster(t testing.TB, n int) Cluster {
	t.Helper()
	var c Cluster
	password := rand.Text()
	var routes []string
	ports := freePorts(t, n)
	for i := range n {
		c = append(c, &Server{name: fmt.Sprint("n", i+1), password: password})
		routes = append(routes, fmt.Sprintf("nats-route://127.0.0.1:%d", ports[i]))
	}
	for i, s := range c {
		begin(t, s, func(*Server) string {
			return fmt.Sprintf("cluster { name: kaptar, listen: \"127.0.0.1:%d\", routes: [%s], pool_size: 1 }\n", ports[i], strings.Join(routes, ", "))
		})
	}
	c.await(t)
	return c
}

// URL returns one URL for all servers, with user and password once, as people write it.
func (c Cluster) URL() string {
	var addresses []string
	for _, s := range c {
		addresses = append(addresses, s.Addr())
	}
	return "nats://" + User + ":" + c[0].password + "@" + strings.Join(addresses, ",")
}

// Server returns the server of that name.
func (c Cluster) Server(t testing.TB, name string) *Server {
	t.Helper()
	for _, s := range c {
		if s.name == name {
			return s
		}
	}
	t.Fatalf("natstest: no server %q in the cluster", name)
	return nil
}
