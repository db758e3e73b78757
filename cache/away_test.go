package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
)

// traffic is readers and a writer on one instance. The writer's change of a version
// is finished when its Delete has returned, with or without an error: nobody who reads
// after that may see what was before.
type traffic struct {
	t        *testing.T
	stop     chan struct{}
	all      sync.WaitGroup
	reads    atomic.Int64
	writes   atomic.Int64
	refused  atomic.Int64 // Deletes with an error
	versions [4]struct{ committed, finished atomic.Int64 }
}

func startTraffic(t *testing.T, c *Cache[user]) *traffic {
	tr := &traffic{t: t, stop: make(chan struct{})}
	for i := range tr.versions {
		for range 2 {
			tr.all.Go(func() { tr.each(func() { tr.read(c, i) }) })
		}
	}
	tr.all.Go(func() { tr.each(func() { tr.write(c) }) })
	t.Cleanup(tr.end)
	return tr
}

func (tr *traffic) each(f func()) {
	tick := time.NewTicker(200 * time.Microsecond) // leaves the machine to the server
	defer tick.Stop()
	for {
		select {
		case <-tr.stop:
			return
		case <-tick.C:
			f()
		}
	}
}

func (tr *traffic) read(c *Cache[user], i int) {
	v := &tr.versions[i]
	atLeast := v.finished.Load()
	got, err := c.Get(context.Background(), fmt.Sprint(i), func(context.Context) (user, error) {
		return user{"ada", v.committed.Load()}, nil
	})
	if err != nil {
		tr.t.Errorf("read %d: %v", i, err)
	}
	if got.Version < atLeast {
		tr.t.Errorf("read %d: got version %d after the change to %d was finished", i, got.Version, atLeast)
	}
	tr.reads.Add(1)
}

func (tr *traffic) write(c *Cache[user]) {
	n := tr.writes.Add(1)
	if n%8 != 0 { // so that there are hits
		return
	}
	i := int(n/8) % len(tr.versions)
	v := &tr.versions[i]
	changed := v.committed.Add(1)
	if err := c.Delete(context.Background(), fmt.Sprint(i)); err != nil {
		tr.refused.Add(1)
	}
	v.finished.Store(changed)
}

// more waits until there were n more reads.
func (tr *traffic) more(n int64) {
	tr.t.Helper()
	goal := tr.reads.Load() + n
	eventually(tr.t, "reads", func() bool { return tr.reads.Load() >= goal })
}

func (tr *traffic) end() {
	select {
	case <-tr.stop:
	default:
		close(tr.stop)
	}
	tr.all.Wait()
}

func TestKilled(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.Redis)
	log := new(logged)
	c, l := remoteCache(t, server.URL(), "user-service", log)
	tr := startTraffic(t, c)
	for round := 1; round <= 2; round++ {
		tr.more(1000)
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the outage to be noticed", func() bool { return !l.up() })
		tr.more(1000)
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "Redis to be back", l.up)
		hits := count(c.hits)
		tr.more(1000)
		if rate := (count(c.hits) - hits) / 1000; rate < 0.3 {
			t.Errorf("round %d: hit rate %.2f after the restart", round, rate)
		}
		if away, back, _ := waittest.Outages(log.String(), "redis"); away != round || back != round {
			t.Errorf("round %d: %d outages, %d ends:\n%s", round, away, back, log)
		}
	}
	tr.end()
	if tr.refused.Load() == 0 {
		t.Error("no Delete failed while Redis was away")
	}
}

// TestOldData has a Redis come back with values that were deleted, in effect, while
// it was away, by an instance that has ended since and cannot delete them.
func TestOldData(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.Redis)
	c, l := remoteCache(t, server.URL(), "user-service", io.Discard)
	s := new(source)
	want(t, c, s, 0, 1)
	want(t, c, s, 0, 1)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	s.version.Store(1)
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if keys := rawClient(t, server.URL()).Keys(t.Context(), "user-service:*:users:1").Val(); len(keys) != 1 {
		t.Fatalf("got the keys %q, want the old value back", keys)
	}
	want(t, c, s, 1, 2)
	eventually(t, "Redis to be back", l.up)
	want(t, c, s, 1, 3)
	want(t, c, s, 1, 3)
}

// TestUndone has the network swallow a Delete: Redis has the old value when it can be reached
// again.
func TestUndone(t *testing.T) {
	t.Parallel()
	url, service := servertest.Shared(t, servers.Redis).URL(), serviceOf(t)
	w := startWire(t, strings.TrimPrefix(url, "redis://"))
	a, link := remoteCache(t, w.url(), service, io.Discard)
	b, _ := remoteCache(t, url, service, io.Discard)
	s := new(source)
	want(t, a, s, 0, 1)
	w.cut.Store(true)
	s.version.Store(1)
	if err := a.Delete(t.Context(), "1"); err == nil || !strings.Contains(err.Error(), "REDIS_URL") {
		t.Errorf("Delete that is swallowed: got %v, want an error that names REDIS_URL", err)
	}
	if err := a.Delete(t.Context(), "1"); !errors.Is(err, errAway) {
		t.Errorf("Delete while Redis is away: got %v, want errAway", err)
	}
	want(t, a, s, 1, 2)
	want(t, b, s, 0, 2) // as Delete says
	w.cut.Store(false)
	eventually(t, "Redis to be back", link.up)
	want(t, a, s, 1, 3)
	want(t, b, s, 1, 3)
	if n := len(link.undone); n != 0 {
		t.Errorf("%d deletes are still undone", n)
	}
}

// TestPaused has a server that stops in the middle of things and goes on later, with what it was
// sent.
func TestPaused(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.Redis)
	c, l := remoteCache(t, server.URL(), "user-service", io.Discard, silence)
	tr := startTraffic(t, c)
	for range 2 {
		tr.more(500)
		if err := server.Pause(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the outage to be noticed", func() bool { return !l.up() })
		tr.more(500)
		if err := server.Resume(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "Redis to be back", l.up)
	}
	tr.more(500)
}

// TestLoadWhileAway has a reader load the old row, and a writer whose Delete cannot
// reach Redis: who reads after that must not join that load.
func TestLoadWhileAway(t *testing.T) {
	t.Parallel()
	l := newLink(nil, "user-service", "REDIS_URL", "", newLog(io.Discard)) // never connected
	c, s := newTestCache(newRemote(l, "users", shapeOf[user](), time.Minute), time.Minute), new(source)
	loaded, written, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		_, _ = c.Get(context.Background(), "1", func(ctx context.Context) (user, error) {
			u, err := s.load(ctx)
			close(loaded)
			<-written
			return u, err
		})
	}()
	<-loaded
	s.version.Store(1)
	if err := c.Delete(t.Context(), "1"); !errors.Is(err, errAway) {
		t.Errorf("Delete: got %v, want errAway", err)
	}
	late := make(chan user, 1)
	go func() {
		u, _ := c.Get(context.Background(), "1", s.load)
		late <- u
	}()
	select {
	case got := <-late:
		if got.Version != 1 {
			t.Errorf("after the change: got %+v", got)
		}
	case <-time.After(timeout):
		t.Error("Get waits for a load that began before the change")
	}
	close(written)
	<-done
}

// TestManyUndone forgets which keys they were, and stays away until none of them is left.
func TestManyUndone(t *testing.T) {
	t.Parallel()
	to := serverAt(t, servertest.Shared(t, servers.Redis).URL())
	log := new(logged)
	for _, tt := range []struct {
		undone int
		up     bool
	}{{maxUndone, true}, {maxUndone + 1, false}} {
		l := newLink(to, serviceOf(t), "REDIS_URL", "", newLog(log))
		l.limit = timeout
		c := newTestCache(newRemote(l, "users", shapeOf[user](), time.Minute), time.Minute)
		for i := range tt.undone {
			if err := c.Delete(t.Context(), fmt.Sprint(i)); !errors.Is(err, errAway) {
				t.Fatalf("Delete: got %v, want errAway", err)
			}
		}
		err := l.connect()
		if l.up() != tt.up || (err == nil) != tt.up || len(l.undone) != 0 {
			t.Errorf("after %d undone deletes: up %v, %v, %d left", tt.undone, l.up(), err, len(l.undone))
		}
		if !tt.up && time.Until(l.notUntil) < time.Minute+loadLimit-timeout {
			t.Errorf("stays away for %v, want TTL and %v", time.Until(l.notUntil), loadLimit)
		}
		if err := l.close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestBlackHole counts what reaches a Redis that never answers, instead of measuring time.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	const readers = 8
	server := servertest.Start(t, servers.Redis, servers.Options{Config: "appendonly no"}) // no disk to wait for
	w := startWire(t, strings.TrimPrefix(server.URL(), "redis://"))
	log := new(logged)
	c, l := remoteCache(t, w.url(), "user-service", log, silence)
	s := new(source)
	want(t, c, s, 0, 1)
	want(t, c, s, 0, 1)
	w.hole.Store(true)
	var all sync.WaitGroup
	var reads atomic.Int64
	begun := time.Now()
	// Each reader once, and then the task: after 0.1, 0.2, 0.4 s and so on, each time with a new
	// connection, which takes as long as the silence.
	most := func() int64 { return 2*readers + 8 + 2*int64(time.Since(begun)/silence) }
	for range readers {
		all.Go(func() {
			for reads.Load() < 1000 && w.writes.Load() <= most() {
				if _, err := c.Get(context.Background(), "1", s.load); err != nil {
					t.Error(err)
				}
				reads.Add(1)
			}
		})
	}
	all.Wait()
	if n := w.writes.Load(); n > most() || reads.Load() < 1000 {
		t.Errorf("%d reads, of which and of the task's attempts %d reached Redis", reads.Load(), n)
	}
	if n, _, _ := waittest.Outages(log.String(), "redis"); n != 1 {
		t.Errorf("%d outages, want 1:\n%s", n, log)
	}
	w.hole.Store(false)
	eventually(t, "Redis to be back", l.up)
	if n := log.count("redis is back"); n != 1 {
		t.Errorf("%d lines, want 1:\n%s", n, log)
	}
}

// TestBackoff: attempts at a server that hangs up at once become rarer.
func TestBackoff(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	fifth := make(chan time.Duration, 1)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for n := 1; ; n++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if n == 5 {
				fifth <- time.Since(begun)
			}
			conn.Close()
		}
	})
	remoteCache(t, "redis://"+listener.Addr().String(), "user-service", io.Discard)
	select {
	case after := <-fifth: // the others were at 0, and after 0.1, 0.2 and 0.4 s, each up to a half earlier
		if least := 700 * time.Millisecond; after < least {
			t.Errorf("the fifth attempt came after %v, want %v or more", after, least)
		}
	case <-time.After(timeout):
		t.Errorf("no fifth attempt within %v", timeout)
	}
	listener.Close()
	accepting.Wait()
}

// TestNothingThere starts with an address at which nobody ever answers, with the limits of a
// service.
func TestNothingThere(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // it accepts into its queue, and nobody answers
	log := new(logged)
	l := newLink(serverAt(t, "redis://"+listener.Addr().String()), "user-service", "REDIS_HOST", "", newLog(log))
	begun := time.Now()
	if err := l.connect(); err == nil || time.Since(begun) > timeout/4 { // is 0.5 s
		t.Errorf("connect: %v after %v, want an error soon", err, time.Since(begun))
	}
	c, s := newTestCache(newRemote(l, "users", shapeOf[user](), time.Minute), time.Minute), new(source)
	for i := range int64(100) {
		want(t, c, s, 0, i+1)
	}
	if l.up() || log.count("redis lost") != 1 {
		t.Errorf("up %v, log %s", l.up(), log)
	}
}
