package cache

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

// TestTwoInstances have one Redis in common.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	url, service := servertest.Shared(t, servers.Redis).URL(), serviceOf(t)
	a, _ := remoteCache(t, url, service, io.Discard)
	b, _ := remoteCache(t, url, service, io.Discard)
	s := new(source)
	want(t, a, s, 0, 1)
	want(t, b, s, 0, 1) // a's value
	for v := int64(1); v < 100; v++ {
		s.version.Store(v)
		writer, reader := a, b
		if v%2 == 0 {
			writer, reader = b, a
		}
		if err := writer.Delete(t.Context(), "1"); err != nil {
			t.Fatal(err)
		}
		want(t, reader, s, v, v+1)
		want(t, writer, s, v, v+1)
	}
	other, _ := remoteCache(t, url, service+"-other", io.Discard)
	want(t, other, s, 99, 101) // another service has values of its own
}

// TestLeaseOfAnother has b load the old row while a writes: b must neither store it,
// nor give it to who asks b after a's Delete.
func TestLeaseOfAnother(t *testing.T) {
	t.Parallel()
	url, service := servertest.Shared(t, servers.Redis).URL(), serviceOf(t)
	a, _ := remoteCache(t, url, service, io.Discard)
	b, _ := remoteCache(t, url, service, io.Discard)
	s := new(source)
	loaded, written, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		_, _ = b.Get(context.Background(), "1", func(ctx context.Context) (user, error) {
			u, err := s.load(ctx)
			close(loaded)
			<-written
			return u, err
		})
	}()
	<-loaded
	s.version.Store(1)
	if err := a.Delete(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	want(t, b, s, 1, 2)
	close(written)
	<-done
	want(t, b, s, 1, 2)
	want(t, a, s, 1, 2)
}

// TestInRedis looks at what is there: the key, the kind, the shape, and how long it lasts.
func TestInRedis(t *testing.T) {
	t.Parallel()
	url, service := servertest.Shared(t, servers.Redis).URL(), serviceOf(t)
	c, _ := remoteCache(t, url, service, io.Discard)
	raw, key := rawClient(t, url), ""
	_, err := c.Get(t.Context(), "1", func(ctx context.Context) (user, error) {
		key = keyIn(t, raw, service)
		lease, err := raw.Get(ctx, key).Result()
		if err != nil || !strings.HasPrefix(lease, "L") {
			t.Errorf("during the load: got %q, %v, want a lease", lease, err)
		}
		if d := raw.PTTL(ctx, key).Val(); d <= loadLimit-timeout || d > loadLimit {
			t.Errorf("the lease ends in %v, want %v", d, loadLimit)
		}
		return user{"ada", 7}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	value, err := raw.Get(t.Context(), key).Result()
	if want := "V" + shapeOf[user]() + `{"Name":"ada","Version":7}`; err != nil || value != want {
		t.Errorf("got %q, %v, want %q", value, err, want)
	}
	if d := raw.PTTL(t.Context(), key).Val(); d < 54*time.Second-timeout || d > time.Minute {
		t.Errorf("the value ends in %v, want between 54 s and a minute", d)
	}
	if keys := raw.Keys(t.Context(), service+":*").Val(); len(keys) != 1 {
		t.Errorf("got the keys %q, want only %s", keys, key)
	}
}

// TestShapes has two versions of a service with two versions of a type.
func TestShapes(t *testing.T) {
	t.Parallel()
	type userV2 struct {
		Name    string
		Version int64
		Admin   bool
	}
	url, service := servertest.Shared(t, servers.Redis).URL(), serviceOf(t)
	v1, l := remoteCache(t, url, service, io.Discard)
	v2 := &Cache[userV2]{name: "users", ttl: time.Minute, engine: newRemote(l, "users", shapeOf[userV2](), time.Minute),
		loads: newLoads(context.Background()), hits: v1.hits, misses: v1.misses, errors: v1.errors}
	loadV2 := func(context.Context) (userV2, error) { return userV2{"ada", 5, true}, nil }
	s := new(source)
	want(t, v1, s, 0, 1)
	if got, err := v2.Get(t.Context(), "1", loadV2); err != nil || !got.Admin {
		t.Errorf("v2 got %+v, %v, want what it loads: Admin is not in the value of v1", got, err)
	}
	want(t, v1, s, 0, 2)
	s.version.Store(1)
	if err := v2.Delete(t.Context(), "1"); err != nil { // takes that of v1 away
		t.Fatal(err)
	}
	want(t, v1, s, 1, 3)
}

// TestForeignKey finds a list where the value should be.
func TestForeignKey(t *testing.T) {
	t.Parallel()
	url, service := servertest.Shared(t, servers.Redis).URL(), serviceOf(t)
	c, l := remoteCache(t, url, service, io.Discard)
	s := new(source)
	want(t, c, s, 0, 1)
	raw := rawClient(t, url)
	key := keyIn(t, raw, service)
	raw.Del(t.Context(), key)
	if err := raw.LPush(t.Context(), key, "x").Err(); err != nil {
		t.Fatal(err)
	}
	want(t, c, s, 0, 2)
	want(t, c, s, 0, 2)
	if !l.up() {
		t.Error("Redis is taken to be away")
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.Redis, servers.Options{Config: "requirepass right"})
	host := strings.TrimPrefix(server.URL(), "redis://")
	for url, reason := range map[string]string{
		"redis://:wrong-one@" + host: "WRONGPASS", "redis://" + host: "NOAUTH",
	} {
		log := new(logged)
		c, l := remoteCache(t, url, serviceOf(t), log)
		s := new(source)
		want(t, c, s, 0, 1)
		want(t, c, s, 0, 2)
		if got := counts(c); got != "hit 0, miss 0, error 2" {
			t.Errorf("%s: got %s, want errors only", reason, got)
		}
		for range 3 { // the task goes on trying, and says nothing new
			_ = l.connect()
		}
		text := log.String()
		if strings.Count(text, "\n") != 1 || !strings.Contains(text, reason) || !strings.Contains(text, "check the user and password") || strings.Contains(text, "wrong-one") {
			t.Errorf("%s: got the log %s\nwant one line with the reason and not the password", reason, text)
		}
	}
	c, _ := remoteCache(t, "redis://:right@"+host, serviceOf(t), io.Discard)
	s := new(source)
	want(t, c, s, 0, 1)
	want(t, c, s, 0, 1)
}

// TestWithoutInfo works, and says what it cannot do.
func TestWithoutInfo(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.Redis, servers.Options{Config: "user app on >secret ~* +@all -info"})
	log := new(logged)
	c, _ := remoteCache(t, "redis://app:secret@"+strings.TrimPrefix(server.URL(), "redis://"), "user-service", log)
	s := new(source)
	want(t, c, s, 0, 1)
	want(t, c, s, 0, 1)
	if n := log.count("redis forbids INFO"); n != 1 {
		t.Errorf("%d lines about INFO, want 1:\n%s", n, log)
	}
}

// TestFull finds a Redis that takes no more values of no use, but no reason to fail or to flap.
func TestFull(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.Redis, servers.Options{Config: "maxmemory 1\nmaxmemory-policy noeviction"})
	log := new(logged)
	c, l := remoteCache(t, server.URL(), "user-service", log)
	s := new(source)
	for i := range int64(3) {
		want(t, c, s, 0, i+1)
		_ = l.connect()
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "OOM") {
		t.Errorf("got the log %s\nwant one line that says OOM", text)
	}
}

func BenchmarkHit(b *testing.B) {
	caches := map[string]func() *Cache[user]{
		"memory": func() *Cache[user] { return newTestCache(newMemory(100), time.Hour) },
		"redis": func() *Cache[user] {
			c, _ := remoteCache(b, servertest.Shared(b, servers.Redis).URL(), fmt.Sprint("bench", time.Now().UnixNano()), io.Discard)
			return c
		},
	}
	for name, open := range caches {
		c, s := open(), new(source)
		get := func(b *testing.B) {
			if _, err := c.Get(context.Background(), "1", s.load); err != nil {
				b.Error(err)
			}
		}
		get(b)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				get(b)
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					get(b)
				}
			})
		})
		if n := s.loads.Load(); n != 1 {
			b.Errorf("%s: %d loads, want hits only", name, n)
		}
	}
}
