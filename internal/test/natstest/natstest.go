// Package natstest gives tests NATS servers of their own, started by package servers, alone or as a cluster.
//
//	c := natstest.StartCluster(t, 3)
//	b, err := nats.Open(t.Context(), c.URL()+"?replicas=3")
//	…
//	c[0].Kill(t)
//	c[0].Restart(t)
package natstest

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

// A Server is a NATS server whose test ends when it cannot be killed and the like.
type Server struct{ *servers.Server }

// Start starts a server.
func Start(t testing.TB) *Server {
	t.Helper()
	return &Server{servertest.Start(t, servers.NATS)}
}

// Password returns the password in URL.
func (s *Server) Password() string {
	u, err := url.Parse(s.URL())
	if err != nil {
		return ""
	}
	password, _ := u.User.Password()
	return password
}

// Kill ends the server with SIGKILL. Its files stay.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	check(t, s.Server.Kill())
}

// Restart kills the server if it runs, starts it on the same files and port, and waits until it answers.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	check(t, s.Server.Restart(t.Context()))
}

// Wipe kills the server and removes what it stored.
func (s *Server) Wipe(t testing.TB) {
	t.Helper()
	s.Kill(t)
	check(t, os.RemoveAll(filepath.Join(s.Dir(), "data")))
}

// Pause stops the server with SIGSTOP: connections stay, and nobody answers.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	check(t, s.Server.Pause())
}

// Resume lets a paused server go on.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	check(t, s.Server.Resume())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("natstest: %v", err)
	}
}

// A Cluster is several servers that keep streams together.
type Cluster []*Server

// StartCluster starts a cluster of n servers and waits until it takes streams.
func StartCluster(t testing.TB, n int) Cluster {
	t.Helper()
	ports, release, err := servers.FreePorts(n)
	check(t, err)
	t.Cleanup(release)
	var routes []string
	for _, port := range ports {
		routes = append(routes, fmt.Sprintf("nats-route://127.0.0.1:%d", port))
	}
	var opts []servers.Options
	for i, port := range ports {
		opts = append(opts, servers.Options{Config: fmt.Sprintf("server_name: %s\ncluster { name: kaptar, listen: \"127.0.0.1:%d\", routes: [%s], pool_size: 1 }",
			name(i), port, strings.Join(routes, ", "))})
	}
	var c Cluster
	for _, s := range servertest.StartAll(t, servers.NATS, opts...) {
		c = append(c, &Server{s})
	}
	c.await(t)
	return c
}

func name(i int) string { return fmt.Sprint("n", i+1) }

// await waits until the leader of the cluster knows all its servers.
func (c Cluster) await(t testing.TB) {
	t.Helper()
	nc, err := nats.Connect(c[0].URL())
	check(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(2*time.Second)) // a new leader does not answer what the last one was asked
	check(t, err)
	deadline, tick := time.After(time.Minute), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "READY", Replicas: len(c)})
		if err == nil {
			err = js.DeleteStream(t.Context(), "READY")
		}
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("natstest: the cluster takes no streams within a minute: %v", err)
		}
	}
}

// URL returns one URL for all servers, with user and password once, as people write it.
func (c Cluster) URL() string {
	list := []string{c[0].URL()}
	for _, s := range c[1:] {
		list = append(list, s.Addr(""))
	}
	return strings.Join(list, ",")
}

// Server returns the server of that name, as a stream tells its leader's.
func (c Cluster) Server(t testing.TB, of string) *Server {
	t.Helper()
	for i, s := range c {
		if name(i) == of {
			return s
		}
	}
	t.Fatalf("natstest: no server %q in the cluster", of)
	return nil
}
