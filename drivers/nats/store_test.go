package nats_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kv"
	"github.com/kaptar/kaptar/kv/kvtest"
)

func openStore(t *testing.T, url string) kv.Store {
	t.Helper()
	backend, err := nats.Open(t.Context(), url, nil)
	if err != nil {
		t.Fatalf("Open = %v, want nil", err)
	}
	t.Cleanup(func() {
		if err := backend.Close(context.Background()); err != nil {
			t.Errorf("Close = %v, want nil", err)
		}
	})
	s, err := backend.Store()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStoreConformance(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servers.NATS)
	kvtest.Run(t, kvtest.Harness{
		Open:    func(t *testing.T) kv.Store { return openStore(t, s.URL()) },
		Prefix:  func(t *testing.T) string { return t.Name()[strings.LastIndex(t.Name(), "/")+1:] + "/" },
		Timeout: 30 * time.Second,
	})
}

func TestStoreConformanceCluster(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	kvtest.Run(t, kvtest.Harness{
		Open:    func(t *testing.T) kv.Store { return openStore(t, c.URL()+"?replicas=3") },
		Prefix:  func(t *testing.T) string { return t.Name()[strings.LastIndex(t.Name(), "/")+1:] + "/" },
		Timeout: 30 * time.Second,
	})
}

func put(t *testing.T, s kv.Store, key, value string) {
	t.Helper()
	if _, err := s.Put(t.Context(), key, []byte(value)); err != nil {
		t.Fatalf("Put(%s) = %v, want nil", key, err)
	}
}

// TestWatchSurvivesKill: the list stands while the server is away, and what changes right after is
// told.
func TestWatchSurvivesKill(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.NATS)
	s, other := openStore(t, server.URL()), openStore(t, server.URL())
	put(t, s, "a/1", "x")
	put(t, s, "b/1", "not this one")
	f := followValues(t, s, "a/")
	f.until("a/1=x")
	for round := range 3 {
		must(t, server.Kill())
		if len(f.lists) > 0 {
			t.Fatalf("list %q was told when the server died, want none", <-f.lists)
		}
		must(t, server.Restart(t.Context()))
		value := fmt.Sprint("round", round)
		put(t, other, "a/1", value) // perhaps before the watcher is back
		if before := f.until("a/1=" + value); len(before) > 0 {
			t.Errorf("lists %q were told on the way, want none", before)
		}
		put(t, other, "a/1", value+"+")
		f.until("a/1=" + value + "+")
	}
}

// TestWatchSurvivesLoss: a bucket that was deleted, or lost with the server's files, is made again,
// and the watch follows the new one.
func TestWatchSurvivesLoss(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"deleted", "deleted and made by another", "wiped"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			server := servertest.Start(t, servers.NATS)
			s, other := openStore(t, server.URL()), openStore(t, server.URL())
			for i := range 20 {
				put(t, s, "a", fmt.Sprint(i)) // the new bucket's numbers will be below these
			}
			f := followValues(t, s, "")
			f.until("a=19")
			switch how {
			case "wiped":
				wipe(t, server)
				must(t, server.Restart(t.Context()))
			default:
				if err := admin(t, server.URL()).DeleteStream(t.Context(), "KV_kaptar"); err != nil {
					t.Fatal(err)
				}
			}
			if how == "deleted and made by another" {
				put(t, other, "b", "1")
				f.until("b=1")
			} else {
				f.until("")
			}
			put(t, s, "c", "1")
			if got, err := other.Get(t.Context(), "c"); err != nil || string(got.Value) != "1" {
				t.Errorf("Get(c) = %q, %v, want 1", got.Value, err)
			}
		})
	}
}

// TestClusterLeaderKilled: with three copies nothing that was acknowledged is lost, and watches go
// on at the others.
func TestStoreLeaderKilled(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	s, other := openStore(t, c.URL()+"?replicas=3"), openStore(t, c[1].URL()+","+c[2].URL()+","+c[0].URL()+"?replicas=3")
	put(t, s, "n", "before")
	f, g := followValues(t, s, "n"), followValues(t, other, "n")
	f.until("n=before")
	g.until("n=before")
	for round := range 2 {
		var leader *servers.Server
		until(t, "the bucket has a leader", func() bool { // a question during an election is lost
			stream, err := admin(t, c.URL()).Stream(t.Context(), "KV_kaptar")
			if err != nil || stream.CachedInfo().Cluster.Leader == "" {
				return false
			}
			leader = c.Server(t, stream.CachedInfo().Cluster.Leader)
			return true
		})
		value := fmt.Sprint("round", round)
		put(t, s, "n", value)
		must(t, leader.Kill())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // two elections of up to 9 s and more
		defer cancel()
		if got, err := other.Get(ctx, "n"); err != nil || string(got.Value) != value {
			t.Errorf("Get after the leader was killed = %q, %v, want %q", got.Value, err, value)
		}
		put(t, other, "n", value+"+")
		f.until("n=" + value + "+")
		g.until("n=" + value + "+")
		must(t, leader.Restart(t.Context()))
	}
}

// TestServerAway: Open succeeds, calls end with their context and say what they waited for, and go
// through once the server is there.
func TestStoreServerAway(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.NATS)
	must(t, server.Kill())
	s := openStore(t, server.URL())
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := s.Put(ctx, "a", nil)
	if err == nil || !strings.Contains(err.Error(), "no connection to nats://kaptar:xxxxx@"+server.Addr("")) || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("Put without a server = %v, want an error that names it, without the password", err)
	}
	f := followValues(t, s, "")
	result := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := s.Put(ctx, "a", []byte("1"))
		result <- err
	}()
	must(t, server.Restart(t.Context()))
	if err := <-result; err != nil {
		t.Errorf("Put that waited for the server = %v, want nil", err)
	}
	f.until("a=1")
}

func TestURLErrors(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.NATS)
	for name, c := range map[string]struct {
		url, want string
	}{
		"wrong password": {"nats://kaptar:secret@" + server.Addr(""), "Authorization"},
		"no password":    {"nats://" + server.Addr(""), "Authorization"},
		"bad escape":     {"nats://kaptar:secret%zz@h", "%25"},
		"no host":        {"nats://kaptar:secret@", "no host"},
		"bad bucket":     {"nats://kaptar:secret@h?bucket=a.b", `bucket="a.b"`},
		"bad replicas":   {"nats://kaptar:secret@h?replicas=many", `replicas="many"`},
		"six replicas":   {"nats://kaptar:secret@h?replicas=6", "1 to 5"},
		"bad ttl":        {"nats://kaptar:secret@h?ttl=long", `ttl="long"`},
		"short ttl":      {"nats://kaptar:secret@h?ttl=1s", "2s or more"},
		"unknown":        {"nats://kaptar:secret@h?buckett=x", `unknown parameter "buckett"`},
		"bad query":      {"nats://kaptar:secret@h?%zz", "parameters"},
	} {
		_, err := nats.Open(t.Context(), c.url, nil)
		if err == nil {
			t.Errorf("%s: Open = nil error, want one", name)
			continue
		}
		if text := err.Error(); !strings.Contains(text, c.want) || strings.Contains(text, "secret") {
			t.Errorf("%s: Open = %q, want it to contain %q and no password", name, text, c.want)
		}
	}
}

// TestCredentialsCountForAllServers: the password stands once in the list, at a server that is
// away.
func TestCredentialsCountForAllServersOfAList(t *testing.T) {
	t.Parallel()
	s := openStore(t, strings.Replace(servertest.Start(t, servers.NATS).URL(), "@", "@127.0.0.1:1,", 1))
	put(t, s, "a", "1")
}

// TestSharedURL: the URL may be the broker's and the registry's.
func TestSharedURL(t *testing.T) {
	t.Parallel()
	openStore(t, servertest.Start(t, servers.NATS).URL()+"?ack_wait=10s&atomic=true&duplicate_window=5m&max_age=1h&replicas=1&ttl=5s")
}

// TestForeignKeys: other programs may use the bucket too; what package kv does not allow is not
// seen.
func TestForeignKeys(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.NATS)
	s := openStore(t, server.URL()+"?bucket=shared")
	put(t, s, "a", "1")
	bucket, err := admin(t, server.URL()).KeyValue(t.Context(), "shared")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a=b", "/x", "y/", "weights/order-service"} {
		if _, err := bucket.PutString(t.Context(), key, "2"); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
	}
	followValues(t, s, "").until("a=1 weights/order-service=2")
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Get(t.Context(), "a"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("another client's Get of a deleted key = %v, want ErrKeyNotFound", err)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.NATS)
	backend, err := nats.Open(t.Context(), server.URL()+"?bucket=b", nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := backend.Store()
	if err != nil {
		t.Fatal(err)
	}
	ended, first := make(chan error, 1), make(chan struct{}, 10)
	go func() {
		ended <- s.Watch(t.Context(), "", func([]kv.Entry) { first <- struct{}{} })
	}()
	<-first
	for range 2 {
		if err := backend.Close(t.Context()); err != nil {
			t.Errorf("Close = %v, want nil", err)
		}
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("Watch = nil after Close, want an error")
		}
	case <-time.After(20 * time.Second):
		t.Error("Watch still runs 20s after Close")
	}
	if _, err := s.Get(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("Get after Close = %v, want an error that says so", err)
	}
}

// TestGetWhileWritten: a key that is there is found while it is written again and again.
func TestGetWhileWritten(t *testing.T) {
	t.Parallel()
	s := openStore(t, servertest.Start(t, servers.NATS).URL())
	if _, err := s.Put(t.Context(), "releases/a", []byte("0")); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.Put(ctx, "releases/a", make([]byte, 4000)); err != nil && ctx.Err() == nil {
					t.Errorf("Put = %v", err)
				}
			}
		})
	}
	missed := 0
	for range 3_000 {
		if _, err := s.Get(t.Context(), "releases/a"); errors.Is(err, kv.ErrNotFound) {
			missed++
		} else if err != nil {
			t.Errorf("Get = %v", err)
		}
	}
	stop()
	writers.Wait()
	if missed > 0 {
		t.Errorf("%d of 3000 Gets did not find a key that is there", missed)
	}
}
