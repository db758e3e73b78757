package cache

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/redis/go-redis/v9"

	"github.com/kaptar/kaptar/drivers"
	_ "github.com/kaptar/kaptar/drivers/redis"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

const (
	// timeout is how long a test waits for what is bound to happen.
	timeout = 20 * time.Second
	// silence is how long a test waits for a server that does not answer.
	silence = 2 * time.Second
)

// user is what the tests keep.
type user struct {
	Name    string
	Version int64
}

// instance opens a cache as one instance of a service does.
type instance func(t testing.TB, ttl time.Duration) *Cache[user]

// onEachEngine runs test on both engines. Instances share what is behind them in Redis only.
func onEachEngine(t *testing.T, test func(t *testing.T, open instance)) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, func(t testing.TB, ttl time.Duration) *Cache[user] { return newTestCache(newMemory(100), ttl) })
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		url, service := servertest.Shared(t, servers.Redis).URL(), serviceOf(t)
		test(t, func(t testing.TB, ttl time.Duration) *Cache[user] {
			return newTestCache(newRemote(openLink(t, url, service, io.Discard), "users", shapeOf[user](), ttl), ttl)
		})
	})
}

// serviceOf is a name that only t uses.
func serviceOf(t testing.TB) string {
	return strings.ReplaceAll(t.Name(), "/", ".") + fmt.Sprint(time.Now().UnixNano())
}

func newTestCache(e engine, ttl time.Duration) *Cache[user] {
	requests := newRequests("test").MustCurryWith(prometheus.Labels{"cache": "users"})
	return newCache[user](context.Background(), e, "users", ttl, requests)
}

// openLink is what New does, with the task that App.Go starts.
func openLink(t testing.TB, url, service string, log io.Writer, limit ...time.Duration) *link {
	t.Helper()
	l := newLink(serverAt(t, url), service, "REDIS_URL", url, newLog(log))
	l.limit = slices.Concat(limit, []time.Duration{timeout})[0] // a busy machine is no outage
	_ = l.connect()                                             // which logs
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := l.close(t.Context()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

// serverAt is the driver's end of url.
func serverAt(t testing.TB, url string) server {
	t.Helper()
	set := new(drivers.Set)
	t.Cleanup(func() { set.Close(context.Background()) })
	to, err := open(t.Context(), url, set.Open)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// keyIn is the name in Redis of the one value or lease of service.
func keyIn(t testing.TB, raw *redis.Client, service string) string {
	t.Helper()
	keys := raw.Keys(t.Context(), service+":*:users:1").Val()
	if len(keys) != 1 {
		t.Fatalf("got the keys %q, want one", keys)
	}
	return keys[0]
}

// remoteCache is one instance of service on the Redis at url.
func remoteCache(t testing.TB, url, service string, log io.Writer, limit ...time.Duration) (*Cache[user], *link) {
	l := openLink(t, url, service, log, limit...)
	return newTestCache(newRemote(l, "users", shapeOf[user](), time.Minute), time.Minute), l
}

func newLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func rawClient(t testing.TB, url string) *redis.Client {
	t.Helper()
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(opts)
	t.Cleanup(func() { c.Close() })
	return c
}

// A source is a table of users that counts how often it is read.
type source struct {
	loads   atomic.Int64
	version atomic.Int64
}

func (s *source) load(context.Context) (user, error) {
	s.loads.Add(1)
	return user{"ada", s.version.Load()}, nil
}

// want gets key and checks the version, and how many loads there were up to now.
func want(t *testing.T, c *Cache[user], s *source, version, loads int64) {
	t.Helper()
	got, err := c.Get(t.Context(), "1", s.load)
	if err != nil || got != (user{"ada", version}) {
		t.Errorf("Get: got %+v, %v, want version %d", got, err, version)
	}
	if n := s.loads.Load(); n != loads {
		t.Errorf("%d loads, want %d", n, loads)
	}
}

func counts(c *Cache[user]) string {
	return fmt.Sprintf("hit %v, miss %v, error %v", count(c.hits), count(c.misses), count(c.errors))
}

func count(c prometheus.Counter) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		return -1
	}
	return m.GetCounter().GetValue()
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	waittest.Until(t, what, done)
}

func (l *link) up() bool { return l.session.Load() != nil }

// joined is how many callers share the load of key that runs.
func (l *loads) joined(key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.running[key]; one != nil {
		return one.callers
	}
	return 0
}

// logged is a log for many writers.
type logged struct{ waittest.Buffer }

func (l *logged) count(text string) int { return strings.Count(l.String(), text) }

// A wire is between a client and Redis. Once hole is set, what the client sends is
// counted and goes nowhere, and new connections are accepted and get no answer. Once cut
// is set, what the client sends goes nowhere, and its connection ends.
type wire struct {
	net.Listener
	hole   atomic.Bool
	cut    atomic.Bool
	writes atomic.Int64 // that went into the hole, and connections
}

func startWire(t *testing.T, to string) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: listener}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := w.Accept()
			if err != nil {
				return
			}
			all.Go(func() { w.carry(conn, to) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		all.Wait()
	})
	return w
}

func (w *wire) url() string { return "redis://" + w.Addr().String() }

func (w *wire) carry(client net.Conn, to string) {
	defer client.Close()
	if w.hole.Load() {
		w.writes.Add(1)
	}
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	go io.Copy(client, server) // ends with either of them
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if w.cut.Load() {
			return
		}
		if w.hole.Load() {
			w.writes.Add(1)
		} else if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}
