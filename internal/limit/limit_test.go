package limit_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/internal/limit"
)

// A model is a server in virtual time: so many calls are worked on at once and take service each,
// the others stand in line behind the limiter, as goroutines do for a processor.
type model struct {
	limiter *limit.Limiter
	seats   chan struct{} // nil: any number at once
	route   limit.Latency

	mu      sync.Mutex
	service time.Duration
	done    int
	refused map[limit.Refusal]int
	took    []time.Duration
}

func newModel(seats int, service time.Duration) *model {
	m := &model{limiter: limit.New(limit.Options{}), service: service}
	if seats > 0 {
		m.seats = make(chan struct{}, seats)
	}
	m.reset()
	return m
}

func (m *model) reset() (done int, refused map[limit.Refusal]int, took []time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	done, refused, took = m.done, m.refused, m.took
	m.done, m.refused, m.took = 0, map[limit.Refusal]int{}, nil
	slices.Sort(took)
	return done, refused, took
}

func (m *model) set(service time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.service = service
}

func (m *model) call(ctx context.Context, route *limit.Latency, service time.Duration) limit.Refusal {
	start := time.Now()
	var s limit.Slot
	r := m.limiter.Acquire(ctx, start, &s, func() limit.Priority { return limit.Normal })
	if r == "" {
		if m.seats != nil {
			m.seats <- struct{}{}
		}
		<-time.After(time.Duration(float64(service) * min(rand.ExpFloat64()+0.1, 10)))
		if m.seats != nil {
			<-m.seats
		}
		s.Release(time.Now(), route, true)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r == "" {
		m.done++
		m.took = append(m.took, time.Since(start))
	} else {
		m.refused[r]++
	}
	return r
}

// load calls from n clients, one call after another each, until ctx ends. Who is refused comes again
// after a moment.
func (m *model) load(ctx context.Context, n int, route *limit.Latency) *sync.WaitGroup {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				m.mu.Lock()
				service := m.service
				m.mu.Unlock()
				if m.call(ctx, route, service) != "" {
					<-time.After(10 * time.Millisecond)
				}
			}
		})
	}
	return &wg
}

// within runs load for some time, and the checks of f meanwhile.
func within(t *testing.T, m *model, clients int, f func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	wg := m.load(ctx, clients, &m.route)
	f()
	stop()
	wg.Wait()
}

func TestOverloadKeepsGoodput(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const seats, service = 4, 10 * time.Millisecond
		m := newModel(seats, service)
		within(t, m, 2, func() { time.Sleep(5 * time.Second) }) // as it is at rest
		m.reset()
		within(t, m, 300, func() {
			time.Sleep(5 * time.Second)
			m.reset()
			time.Sleep(20 * time.Second)
			done, refused, took := m.reset()
			best := float64(seats) / (1.1 * service.Seconds()) * 20
			if float64(done) < 0.9*best {
				t.Errorf("%d calls done, want 90 %% of %.0f", done, best)
			}
			if p99 := took[len(took)*99/100]; p99 > 500*time.Millisecond {
				t.Errorf("p99 of those done = %v, want less than 500 ms", p99)
			}
			t.Logf("limit %v, done %d of %.0f, p50 %v, p99 %v, refused %v", m.limiter.Limit(), done, best, took[len(took)/2], took[len(took)*99/100], refused)
			if got := m.limiter.Limit(); got > 100 {
				t.Errorf("limit = %v for %d at once, want at most 100", got, seats)
			}
		})
	})
}

func TestGrowsWhenNobodyIsSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newModel(0, 50*time.Millisecond)
		within(t, m, 500, func() {
			time.Sleep(5 * time.Second)
			m.reset()
			time.Sleep(20 * time.Second)
			done, refused, _ := m.reset()
			if len(refused) > 0 {
				t.Errorf("refused %v of %d, want none: nothing is slow", refused, done)
			}
			t.Logf("limit %v, done %d, refused %v", m.limiter.Limit(), done, refused)
		})
	})
}

func TestSlowerThanBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newModel(0, 20*time.Millisecond)
		within(t, m, 200, func() {
			time.Sleep(10 * time.Second)
			m.set(100 * time.Millisecond) // what the server waits for has become slower
			time.Sleep(10 * time.Second)
			m.reset()
			time.Sleep(10 * time.Second)
			done, refused, _ := m.reset()
			if n := refused[limit.Late] + refused[limit.Full]; n > done/20 {
				t.Errorf("refused %d of %d, want next to none: fewer calls at once would not be faster", n, done)
			}
			t.Logf("limit %v, done %d, refused %v", m.limiter.Limit(), done, refused)
		})
	})
}

func TestOneSlowRouteAmongSeveral(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newModel(0, 5*time.Millisecond)
		ctx, stop := context.WithCancel(t.Context())
		var slow limit.Latency
		late := newModel(0, 5*time.Millisecond)
		late.limiter = m.limiter
		a, b := m.load(ctx, 10, &m.route), late.load(ctx, 10, &slow)
		time.Sleep(5 * time.Second)
		late.set(2 * time.Second)
		time.Sleep(time.Second)
		m.reset()
		time.Sleep(20 * time.Second)
		done, refused, _ := m.reset()
		if len(refused) > 0 {
			t.Errorf("refused %v of %d calls of the other route, want none", refused, done)
		}
		stop()
		a.Wait()
		b.Wait()
	})
}

func TestStuckCallsAreNoReason(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newModel(0, time.Minute)
		within(t, m, 200, func() {
			time.Sleep(3 * time.Second)
			if got := m.limiter.Limit(); got < 200 {
				t.Errorf("limit = %v after 3 s in which none ended, want 200 or more", got)
			}
		})
	})
}

func TestQueue(t *testing.T) {
	t.Parallel()
	// full returns a limiter without room, and what makes some.
	full := func(most int) (*limit.Limiter, func()) {
		l := limit.New(limit.Options{Max: most})
		slots := make([]limit.Slot, most)
		for i := range slots {
			if r := l.Acquire(t.Context(), time.Now(), &slots[i], nil); r != "" {
				t.Fatalf("call %d: %s", i, r)
			}
		}
		return l, func() {
			slots[0].Release(time.Now(), nil, false)
			slots = slots[1:]
		}
	}
	type result struct {
		name string
		r    limit.Refusal
	}
	wait := func(l *limit.Limiter, ctx context.Context, p limit.Priority, name string, results chan<- result) {
		go func() {
			var s limit.Slot
			results <- result{name, l.Acquire(ctx, time.Now(), &s, func() limit.Priority { return p })}
		}()
		synctest.Wait()
	}
	expect := func(t *testing.T, results <-chan result, want result) {
		t.Helper()
		synctest.Wait()
		select {
		case got := <-results:
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		default:
			t.Errorf("nobody was answered, want %+v", want)
		}
	}
	t.Run("first come, first served", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			l, leave := full(4)
			results := make(chan result, 10)
			wait(l, t.Context(), limit.Normal, "first", results)
			wait(l, t.Context(), limit.Normal, "second", results)
			leave()
			expect(t, results, result{"first", ""})
			leave()
			expect(t, results, result{"second", ""})
		})
	})
	t.Run("newest first when late", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			l, leave := full(4)
			results := make(chan result, 10)
			wait(l, t.Context(), limit.Normal, "oldest", results)
			time.Sleep(60 * time.Millisecond)
			wait(l, t.Context(), limit.Normal, "older", results)
			wait(l, t.Context(), limit.Normal, "newest", results)
			leave()
			expect(t, results, result{"newest", ""})
			time.Sleep(50 * time.Millisecond)
			expect(t, results, result{"oldest", limit.Late})
		})
	})
	t.Run("critical before normal, sheddable not at all", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			l, leave := full(4)
			results := make(chan result, 10)
			wait(l, t.Context(), limit.Normal, "normal", results)
			wait(l, t.Context(), limit.Critical, "critical", results)
			wait(l, t.Context(), limit.Sheddable, "sheddable", results)
			expect(t, results, result{"sheddable", limit.Shed})
			leave()
			expect(t, results, result{"critical", ""})
			leave()
			expect(t, results, result{"normal", ""})
			leave()
			wait(l, t.Context(), limit.Sheddable, "sheddable", results)
			expect(t, results, result{"sheddable", ""})
		})
	})
	t.Run("expired work is dropped", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			l, leave := full(4)
			results := make(chan result, 10)
			gone := &lateContext{Context: t.Context()}
			wait(l, gone, limit.Normal, "gone", results)
			wait(l, t.Context(), limit.Normal, "there", results)
			gone.err = context.Canceled
			leave()
			synctest.Wait()
			got := []result{<-results, <-results}
			if !slices.Contains(got, result{"gone", limit.Expired}) || !slices.Contains(got, result{"there", ""}) {
				t.Errorf("got %+v, want the one who has gone dropped, and the other let in", got)
			}
			ctx, cancel := context.WithCancel(t.Context())
			wait(l, ctx, limit.Normal, "leaves", results)
			cancel()
			expect(t, results, result{"leaves", limit.Expired})
		})
	})
	t.Run("the queue has an end", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			l, _ := full(4)
			results := make(chan result, 1000)
			wait(l, t.Context(), limit.Normal, "oldest", results)
			wait(l, t.Context(), limit.Critical, "critical", results)
			for range 126 {
				wait(l, t.Context(), limit.Normal, "other", results)
			}
			if got := l.Waiting(); got != 128 {
				t.Fatalf("%v wait, want 128", got)
			}
			wait(l, t.Context(), limit.Normal, "newest", results)
			expect(t, results, result{"oldest", limit.Full})
			if got := l.Waiting(); got != 128 {
				t.Errorf("%v wait, want still 128", got)
			}
			time.Sleep(time.Second)
			if got := l.Waiting(); got != 0 {
				t.Errorf("%v wait a second later, want 0", got)
			}
		})
	})
}

// lateContext ends without telling those who wait for it.
type lateContext struct {
	context.Context
	err error
}

func (c *lateContext) Err() error { return c.err }

func TestPaused(t *testing.T) {
	t.Parallel()
	l := limit.New(limit.Options{Max: 1})
	var first, second limit.Slot
	if r := l.Acquire(t.Context(), time.Now(), &first, nil); r != "" {
		t.Fatal(r)
	}
	first.Pause()
	if r := l.Acquire(t.Context(), time.Now(), &second, nil); r != "" {
		t.Errorf("beside a call that waits for its client: %s, want room", r)
	}
	second.Release(time.Now(), nil, false)
	first.Resume(time.Now())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := l.Acquire(ctx, time.Now(), &second, func() limit.Priority { return limit.Sheddable }); r != limit.Shed {
		t.Errorf("beside a call that has all it needs: %q, want %q", r, limit.Shed)
	}
	first.Release(time.Now(), nil, false)
	first.Release(time.Now(), nil, false) // nothing
	if r := l.Acquire(t.Context(), time.Now(), &second, nil); r != "" {
		t.Errorf("after the end: %s, want room", r)
	}
}

func TestNoLimit(t *testing.T) {
	t.Parallel()
	l := limit.New(limit.Options{Max: -1})
	for i := range 2000 {
		if r := l.Acquire(t.Context(), time.Now(), new(limit.Slot), nil); r != "" {
			t.Fatalf("call %d: %s", i, r)
		}
	}
}

func TestCostsNoAllocation(t *testing.T) {
	l := limit.New(limit.Options{})
	var route limit.Latency
	ctx, now := t.Context(), time.Now()
	var s limit.Slot
	if n := testing.AllocsPerRun(1000, func() {
		l.Acquire(ctx, now, &s, nil)
		s.Release(now.Add(time.Millisecond), &route, true)
	}); n != 0 {
		t.Errorf("%v allocations for a call, want 0", n)
	}
}

func BenchmarkCall(b *testing.B) {
	l := limit.New(limit.Options{})
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var route limit.Latency
		var s limit.Slot
		now := time.Now()
		for pb.Next() {
			l.Acquire(ctx, now, &s, nil)
			s.Release(now.Add(time.Millisecond), &route, true)
		}
	})
}
