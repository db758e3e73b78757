package nats_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/discovery/discoverytest"
	"github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kv"
)

// A testRegistry is the registry of a backend of its own.
type testRegistry struct {
	discovery.Registry
	backend *nats.Backend
}

func (r *testRegistry) Close() error { return r.backend.Close(context.Background()) }

func openRegistry(t *testing.T, url string) *testRegistry {
	t.Helper()
	backend, err := nats.Open(t.Context(), url, nil)
	if err != nil {
		t.Fatalf("Open = %v, want nil", err)
	}
	registry, err := backend.Registry()
	if err != nil {
		t.Fatal(err)
	}
	r := &testRegistry{registry, backend}
	t.Cleanup(func() { _ = r.Close() }) // the server may be away
	return r
}

func registryHarness(url string) discoverytest.Harness {
	return discoverytest.Harness{
		Open:    func(t *testing.T) discovery.Registry { return openRegistry(t, url) },
		Service: func(t *testing.T) string { return "a.b/ő " + t.Name() },
		Timeout: 40 * time.Second,
	}
}

func TestRegistryConformance(t *testing.T) {
	t.Parallel()
	discoverytest.Run(t, registryHarness(servertest.Start(t, servers.NATS).URL()))
}

func TestRegistryConformanceCluster(t *testing.T) {
	t.Parallel()
	discoverytest.Run(t, registryHarness(startCluster(t, 3).URL()+"?replicas=3"))
}

// A follower is a watch in the background that shows each list in one line.
type follower struct {
	t     *testing.T
	lists chan string
}

func follow[T any](t *testing.T, name string, watch func(ctx context.Context, name string, update func([]T)) error, show func(T) string) *follower {
	t.Helper()
	f := &follower{t, make(chan string, 1000)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- watch(ctx, name, func(list []T) {
			var all []string
			for _, one := range list {
				all = append(all, show(one))
			}
			f.lists <- strings.Join(all, " ")
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Watch(%q) = %v, want nil", name, err)
		}
	})
	return f
}

// followInstances shows the IDs, followValues keys with their values.
func followInstances(t *testing.T, r discovery.Resolver, service string) *follower {
	t.Helper()
	return follow(t, service, r.Watch, func(in discovery.Instance) string { return in.ID })
}

func followValues(t *testing.T, s kv.Store, prefix string) *follower {
	t.Helper()
	return follow(t, prefix, s.Watch, func(e kv.Entry) string { return e.Key + "=" + string(e.Value) })
}

// until waits for a list and returns those that came before it.
func (f *follower) until(want string) (before []string) {
	f.t.Helper()
	expired := time.After(60 * time.Second)
	for {
		select {
		case got := <-f.lists:
			if got == want {
				return before
			}
			before = append(before, got)
		case <-expired:
			f.t.Fatalf("lists were %q, want %q within 60s", before, want)
		}
	}
}

// quiet fails if a list is told within d.
func (f *follower) quiet(d time.Duration, what string) {
	f.t.Helper()
	select {
	case got := <-f.lists:
		f.t.Errorf("list %q was told %s, want none", got, what)
	case <-time.After(d):
	}
}

func register(t *testing.T, r discovery.Registrar, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := r.Register(t.Context(), discovery.Instance{ID: id, Service: "s", HTTP: "10.0.0.1:80" + strconv.Itoa(int(id[0]))}); err != nil {
			t.Fatalf("Register(%s) = %v, want nil", id, err)
		}
	}
}

// testTTL lets a machine stand still for 5 s between two signs of life, which come every third of it.
const testTTL = 8 * time.Second

// TestStaysWhileRefreshed: an instance outlives its time many times over, and nobody is told of its
// signs of life.
func TestStaysWhileRefreshed(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.NATS)
	url := server.URL() + "?ttl=" + testTTL.String()
	r := openRegistry(t, url)
	register(t, r, "a")
	f := followInstances(t, openRegistry(t, url), "s")
	f.until("a")
	f.quiet(3*testTTL, "while the instance was refreshed")
	if err := r.Deregister(t.Context(), discovery.Instance{ID: "a", Service: "s"}); err != nil {
		t.Fatal(err)
	}
	f.until("")
	f.quiet(3*time.Second, "after the instance was deregistered")
}

// TestCloseAndDeregisterAreToldAtOnce: and the instances do not come back.
func TestCloseAndDeregisterAreToldAtOnce(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.NATS)
	url := server.URL() + "?ttl=1m"
	r := openRegistry(t, url)
	f := followInstances(t, openRegistry(t, url), "s")
	f.until("")
	register(t, r, "a", "b", "c")
	f.until("a b c")
	start := time.Now()
	if err := r.Deregister(t.Context(), discovery.Instance{ID: "b", Service: "s"}); err != nil {
		t.Fatal(err)
	}
	f.until("a c")
	if err := r.Close(); err != nil {
		t.Errorf("Close = %v, want nil", err)
	}
	f.until("")
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v until the instances were gone, want about none", took)
	}
	if err := r.Close(); err != nil {
		t.Errorf("second Close = %v, want nil", err)
	}
	if err := r.Register(t.Context(), discovery.Instance{ID: "d", Service: "s"}); err == nil {
		t.Error("Register after Close = nil, want an error")
	}
}

// TestServerRestart: whatever the server was away for and whatever it lost, watchers see no change,
// and instances are listed again.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		away time.Duration
		lose func(*testing.T, *servers.Server)
	}{
		"shortly":              {0, func(t *testing.T, s *servers.Server) { must(t, s.Kill()) }},
		"for longer than ttl":  {testTTL + 2*time.Second, func(t *testing.T, s *servers.Server) { must(t, s.Kill()) }},
		"with loss of files":   {0, func(t *testing.T, s *servers.Server) { wipe(t, s) }},
		"paused, shortly":      {time.Second, func(t *testing.T, s *servers.Server) { must(t, s.Pause()) }},
		"paused for two times": {2*testTTL + time.Second, func(t *testing.T, s *servers.Server) { must(t, s.Pause()) }},
		"bucket deleted": {0, func(t *testing.T, s *servers.Server) {
			if err := admin(t, s.URL()).DeleteStream(t.Context(), "KV_kaptar-instances"); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := servertest.Start(t, servers.NATS)
			url := server.URL() + "?ttl=" + testTTL.String()
			r, other := openRegistry(t, url), openRegistry(t, url)
			f := followInstances(t, other, "s")
			f.until("")
			register(t, r, "a", "b")
			f.until("a b")
			c.lose(t, server)
			f.quiet(c.away, "while the server was away")
			switch {
			case strings.HasPrefix(name, "paused"):
				must(t, server.Resume())
			case name != "bucket deleted":
				must(t, server.Restart(t.Context()))
			}
			f.quiet(testTTL+2*time.Second, "when the server was back")
			followInstances(t, openRegistry(t, url), "s").until("a b")
			register(t, r, "c")
			f.until("a b c")
		})
	}
}

// TestClusterLeaderKilled: the list stands while the bucket has no leader.
func TestRegistryLeaderKilled(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	url := c.URL() + "?replicas=3&ttl=" + testTTL.String()
	r, other := openRegistry(t, url), openRegistry(t, url)
	register(t, r, "a", "b")
	f := followInstances(t, other, "s")
	f.until("a b")
	stream, err := admin(t, c.URL()).Stream(t.Context(), "KV_kaptar-instances")
	if err != nil {
		t.Fatal(err)
	}
	must(t, c.Server(t, stream.CachedInfo().Cluster.Leader).Kill())
	f.quiet(15*time.Second, "while the leader was away, or when another was elected")
	register(t, r, "c")
	f.until("a b c")
}

// TestServerAway: Open succeeds, Register tries until its context ends or the server is there.
func TestRegistryServerAway(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.NATS)
	must(t, server.Kill())
	r := openRegistry(t, server.URL()+"?ttl="+testTTL.String())
	f := followInstances(t, r, "s")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := r.Register(ctx, discovery.Instance{ID: "never", Service: "s"})
	if err == nil || !strings.Contains(err.Error(), server.Addr("")) || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("Register without a server = %v, want an error that names it, without the password", err)
	}
	result := make(chan error, 1)
	go func() { result <- r.Register(t.Context(), discovery.Instance{ID: "a", Service: "s"}) }()
	f.quiet(300*time.Millisecond, "without a server")
	must(t, server.Restart(t.Context()))
	if err := <-result; err != nil {
		t.Errorf("Register that waited for the server = %v, want nil", err)
	}
	f.until("a")
	f.quiet(5*time.Second, "after the failed Register")
}

// TestCloseEndsCallsThatWait: Close does not wait for the server.
func TestCloseEndsCallsThatWait(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.NATS)
	must(t, server.Kill())
	r := openRegistry(t, server.URL())
	calls := make(chan error, 2)
	go func() { calls <- r.Register(t.Context(), discovery.Instance{ID: "a", Service: "s"}) }()
	go func() { calls <- r.Watch(t.Context(), "s", func([]discovery.Instance) {}) }()
	start := time.Now()
	_ = r.Close() // says that it could not tell the server
	for range 2 {
		if err := <-calls; err == nil {
			t.Error("a call that waited = nil after Close, want an error")
		}
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v, want about 2s", took)
	}
}

// TestOldBucket: one that was made without times to live gets them.
func TestOldBucket(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.NATS)
	js := admin(t, server.URL())
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "kaptar-instances"}); err != nil {
		t.Fatal(err)
	}
	register(t, openRegistry(t, server.URL()), "a")
	stream, err := js.Stream(t.Context(), "KV_kaptar-instances")
	if err != nil {
		t.Fatal(err)
	}
	if c := stream.CachedInfo().Config; !c.AllowMsgTTL || c.SubjectDeleteMarkerTTL == 0 {
		t.Errorf("the bucket has settings %+v, want times to live with marks", c)
	}
}

// TestStrangersAreNotListed: what other programs write to the bucket does no harm.
func TestStrangersAreNotListed(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.NATS)
	r := openRegistry(t, server.URL())
	register(t, r, "a")
	bucket, err := admin(t, server.URL()).KeyValue(t.Context(), "kaptar-instances")
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{"s.x": "no JSON", "s.y": `{"id":"z","service":"s"}`, "s.z": `{"id":"z","service":"t"}`, "s.b.c": `{"id":"b.c","service":"s"}`} {
		if _, err := bucket.PutString(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	f := followInstances(t, r, "s")
	f.until("a")
	register(t, r, "b")
	if before := f.until("a b"); len(before) > 0 {
		t.Errorf("lists %q were told, want a and b only", before)
	}
}

func Example_urlErrors() {
	_, err := nats.Open(context.Background(), "nats://app:secret@broker:4222?ttl=1s", nil)
	fmt.Println(err)
	// Output: nats: url nats://app:xxxxx@broker:4222: parameter ttl="1s": expected a duration of 2s or more, such as 30s
}
