package cache

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestReadThrough(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, open instance) {
		c, s := open(t, time.Minute), new(source)
		want(t, c, s, 0, 1)
		s.version.Store(1)
		want(t, c, s, 0, 1) // from the cache
		if err := c.Delete(t.Context(), "1", "nothing of that name"); err != nil {
			t.Fatalf("Delete: %v", err)
		}
		want(t, c, s, 1, 2)
		want(t, c, s, 1, 2)
		if got, want := counts(c), "hit 2, miss 2, error 0"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if err := c.Delete(t.Context()); err != nil {
			t.Errorf("Delete of no keys: %v", err)
		}
		if got, err := c.Get(t.Context(), "2", new(source).load); err != nil || got.Version != 0 {
			t.Errorf("another key: got %+v, %v, want a value of its own", got, err)
		}
	})
}

// TestErrorsAreNotKept has a load fail and one panic before one that succeeds.
func TestErrorsAreNotKept(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, open instance) {
		c, s, errNone := open(t, time.Minute), new(source), errors.New("there is none")
		if _, err := c.Get(t.Context(), "1", func(context.Context) (user, error) { return user{"x", 1}, errNone }); !errors.Is(err, errNone) {
			t.Errorf("got %v, want the error of load", err)
		}
		if _, err := c.Get(t.Context(), "1", func(context.Context) (user, error) { panic("on the floor") }); err == nil || !strings.Contains(err.Error(), "on the floor") {
			t.Errorf("got %v, want an error that tells of the panic", err)
		}
		want(t, c, s, 0, 1)
		want(t, c, s, 0, 1)
	})
}

// TestLease has a reader load the old row, a writer commit and delete, and then the reader store.
func TestLease(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, open instance) {
		c, s := open(t, time.Minute), new(source)
		loaded, written := make(chan struct{}), make(chan struct{})
		old := make(chan user, 1)
		go func() {
			u, _ := c.Get(context.Background(), "1", func(ctx context.Context) (user, error) {
				u, err := s.load(ctx)
				close(loaded)
				<-written
				return u, err
			})
			old <- u
		}()
		<-loaded
		s.version.Store(1)
		if err := c.Delete(t.Context(), "1"); err != nil {
			t.Fatal(err)
		}
		want(t, c, s, 1, 2) // did not join the load that runs, as it has read what was before
		close(written)
		if got := <-old; got.Version != 0 {
			t.Errorf("the early reader got %+v, want what it had loaded", got)
		}
		want(t, c, s, 1, 2) // what the late reader stored is there still
		if err := c.Delete(t.Context(), "1"); err != nil {
			t.Fatal(err)
		}
		want(t, c, s, 1, 3)
	})
}

// TestLateStore is TestLease without anybody who reads in between.
func TestLateStore(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, open instance) {
		c, s := open(t, time.Minute), new(source)
		_, err := c.Get(t.Context(), "1", func(ctx context.Context) (user, error) {
			u, err := s.load(ctx)
			s.version.Store(1)
			return u, errors.Join(err, c.Delete(ctx, "1"))
		})
		if err != nil {
			t.Fatal(err)
		}
		want(t, c, s, 1, 2)
	})
}

func TestSingleFlight(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, open instance) {
		const callers = 100
		c, s := open(t, time.Minute), new(source)
		type key struct{}
		release := make(chan struct{})
		load := func(ctx context.Context) (user, error) {
			if ctx.Value(key{}) != "carried" {
				t.Error("load has not the values of the caller's context")
			}
			select {
			case <-release:
			case <-ctx.Done():
				t.Error("load was cancelled with a caller")
			}
			return s.load(ctx)
		}
		ctx := context.WithValue(t.Context(), key{}, "carried")
		first, leave := context.WithCancel(ctx)
		var impatient, others sync.WaitGroup
		impatient.Go(func() {
			if _, err := c.Get(first, "1", load); !errors.Is(err, context.Canceled) {
				t.Errorf("the first, cancelled: got %v, want context.Canceled", err)
			}
		})
		eventually(t, "the load", func() bool { return c.loads.joined("1") == 1 })
		for range callers {
			others.Go(func() {
				if got, err := c.Get(ctx, "1", load); err != nil || got.Name != "ada" {
					t.Errorf("got %+v, %v", got, err)
				}
			})
		}
		eventually(t, "all callers", func() bool { return c.loads.joined("1") == callers+1 })
		leave()
		impatient.Wait()
		close(release)
		others.Wait()
		want(t, c, s, 0, 1)
		c.loads.mu.Lock()
		defer c.loads.mu.Unlock()
		if n := len(c.loads.running); n != 0 {
			t.Errorf("%d loads are remembered that have ended", n)
		}
	})
}

func TestGarbage(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, open instance) {
		c, s := open(t, time.Minute), new(source)
		_, lease, err := c.engine.get("1")
		if err != nil {
			t.Fatal(err)
		}
		c.engine.put("1", lease, []byte(`{"Name":"bob","Version":"seven"}`), time.Minute)
		if raw, _, err := c.engine.get("1"); raw == nil || err != nil {
			t.Fatalf("the garbage is not there: %v", err)
		}
		want(t, c, s, 0, 1)
		want(t, c, s, 0, 1)
		if got, want := counts(c), "hit 1, miss 1, error 0"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func TestTooLargeIsNotKept(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, open instance) {
		c := open(t, time.Minute)
		for _, tt := range []struct {
			key         string
			size, loads int
		}{{"small", maxValue - 100, 1}, {"large", maxValue + 1, 2}} {
			loads := 0
			for range 2 {
				u, err := c.Get(t.Context(), tt.key, func(context.Context) (user, error) {
					loads++
					return user{Name: strings.Repeat("x", tt.size)}, nil
				})
				if err != nil || len(u.Name) != tt.size {
					t.Errorf("%s: got %d bytes, %v", tt.key, len(u.Name), err)
				}
			}
			if loads != tt.loads {
				t.Errorf("%s: %d loads, want %d", tt.key, loads, tt.loads)
			}
		}
	})
}

// TestCancelledCaller finds that its own context is all that a caller can fail for.
func TestCancelledCaller(t *testing.T) {
	t.Parallel()
	onEachEngine(t, func(t *testing.T, open instance) {
		c, s := open(t, time.Minute), new(source)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		want(t, c, s, 0, 1)
		if _, err := c.Get(gone, "1", s.load); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled, as without a cache", err)
		}
		s.version.Store(1)
		if err := c.Delete(gone, "1"); err != nil { // the request has gone, its change has not
			t.Errorf("Delete: %v", err)
		}
		want(t, c, s, 1, 2)
	})
}

func TestTTLInProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, s := newTestCache(newMemory(100), time.Minute), new(source)
		for i := range int64(20) { // each with a jitter of its own
			want(t, c, s, 0, i+1)
			time.Sleep(54*time.Second - time.Millisecond)
			want(t, c, s, 0, i+1)
			time.Sleep(6*time.Second + 2*time.Millisecond)
		}
	})
}

func TestJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(100)
		c, s, ends := newTestCache(m, time.Minute), new(source), make(map[time.Time]bool)
		for range 20 {
			want(t, c, s, 0, s.loads.Load()+1)
			ends[m.items["1"].Value.(*item).end] = true
			_ = c.Delete(t.Context(), "1") // never fails in the process
		}
		if len(ends) < 2 {
			t.Error("20 values end at the same time")
		}
	})
}

// TestLoadLimit ends a load that hangs, and one whose service stops.
func TestLoadLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		service, stop := context.WithCancel(t.Context())
		f := newLoads(service)
		hang := func(ctx context.Context) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		begun := time.Now()
		if _, err := f.do(t.Context(), "1", "", hang); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != loadLimit {
			t.Errorf("got %v after %v, want a deadline of %v", err, time.Since(begun), loadLimit)
		}
		time.AfterFunc(time.Second, stop)
		if _, err := f.do(t.Context(), "1", "", hang); !errors.Is(err, context.Canceled) {
			t.Errorf("as the service stops: got %v, want context.Canceled", err)
		}
	})
}

func TestLeastRecentlyUsed(t *testing.T) {
	t.Parallel()
	m := newMemory(3)
	store := func(key string) {
		_, lease, _ := m.get(key) // never fails in the process
		m.put(key, lease, []byte(key), time.Minute)
	}
	for _, key := range []string{"a", "b", "c"} {
		store(key)
	}
	m.get("a")
	store("d")
	var got []string
	for _, key := range []string{"a", "b", "c", "d"} {
		if value, lease, _ := m.get(key); value != nil {
			got = append(got, key)
		} else {
			m.put(key, lease, nil, 0)
		}
	}
	if s := strings.Join(got, " "); s != "a c d" {
		t.Errorf("got %s, want a c d: b was used longest ago", s)
	}
	if len(m.leases) != 0 || len(m.items) != 3 {
		t.Errorf("%d leases and %d items, want 0 and 3", len(m.leases), len(m.items))
	}
}

// TestGoexit ends the goroutine of a load as FailNow does.
func TestGoexit(t *testing.T) {
	t.Parallel()
	c := newTestCache(newMemory(1), time.Minute)
	_, err := c.Get(t.Context(), "1", func(context.Context) (user, error) {
		runtime.Goexit()
		return user{}, nil
	})
	if !errors.Is(err, errGone) {
		t.Errorf("got %v, want errGone", err)
	}
}
