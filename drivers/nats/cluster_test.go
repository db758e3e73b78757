package nats_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

// must ends the test with an error: of a server that cannot be killed, say.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wipe kills a NATS server and removes what it stored.
func wipe(t testing.TB, s *servers.Server) {
	t.Helper()
	must(t, s.Kill())
	must(t, os.RemoveAll(filepath.Join(s.Dir(), "data")))
}

// A cluster is several NATS servers that keep streams together.
type cluster []*servers.Server

// startCluster starts a cluster of n servers for this test alone, and waits until it takes streams.
func startCluster(t testing.TB, n int) cluster {
	t.Helper()
	servertest.Need(t, servers.NATS)
	ports, release, err := servers.FreePorts(n)
	must(t, err)
	t.Cleanup(release)
	var routes []string
	for _, port := range ports {
		routes = append(routes, fmt.Sprintf("nats-route://127.0.0.1:%d", port))
	}
	var opts []servers.Options
	for i, port := range ports {
		opts = append(opts, servers.Options{Config: fmt.Sprintf(
			"server_name: n%d\ncluster { name: kaptar, listen: \"127.0.0.1:%d\", routes: [%s], pool_size: 1 }", i, port, strings.Join(routes, ", "))})
	}
	c := cluster(servertest.StartAll(t, opts, slices.Repeat([]servers.Engine{servers.NATS}, n)...))
	nc, err := nats.Connect(c[0].URL())
	must(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(2*time.Second)) // a new leader does not answer what the last one was asked
	must(t, err)
	deadline, tick := time.After(time.Minute), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "READY", Replicas: n}) // once the leader knows all servers
		if err == nil {
			err = js.DeleteStream(t.Context(), "READY")
		}
		if err == nil {
			return c
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the cluster takes no streams within a minute: %v", err)
		}
	}
}

// URL returns one URL for all servers, with user and password once, as people write it.
func (c cluster) URL() string {
	list := []string{c[0].URL()}
	for _, s := range c[1:] {
		list = append(list, s.Addr(""))
	}
	return strings.Join(list, ",")
}

// Server returns the server of that name, as a stream tells its leader's.
func (c cluster) Server(t testing.TB, name string) *servers.Server {
	t.Helper()
	for i, s := range c {
		if name == fmt.Sprint("n", i) {
			return s
		}
	}
	t.Fatalf("no server %q in the cluster", name)
	return nil
}
