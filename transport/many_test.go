package transport

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/discovery"
)

// shapes are targets that a pick must cost the same for, however many instances there are.
func shapes(t testing.TB) map[string]func(n int) *target {
	t.Helper()
	w := weights(t, map[string]string{"order-service/version/v1": "90", "order-service/version/v2": "10"})
	every := func(n int, edit func(i int, in *discovery.Instance)) []discovery.Instance {
		list := numbered(n)
		for i := range list {
			edit(i, &list[i])
		}
		return list
	}
	version := func(i int, in *discovery.Instance) { in.Version = fmt.Sprint("v", 1+i%2) }
	return map[string]func(n int) *target{
		"subset": func(n int) *target { return known(t, Options{}, numbered(n)...) },
		"whole":  func(n int) *target { return known(t, Options{Default: Settings{Subset: -1}}, numbered(n)...) },
		"half ejected": func(n int) *target {
			tg := known(t, Options{Default: Settings{Subset: -1}}, numbered(n)...)
			for _, in := range tg.instances()[:n/2] {
				in.eject(tg.tr.now())
			}
			return tg
		},
		"weights": func(n int) *target { return known(t, Options{Weights: w}, every(n, version)...) },
		"zones": func(n int) *target {
			return known(t, Options{Zone: "z1", Default: Settings{Subset: -1}}, every(n, func(i int, in *discovery.Instance) {
				in.Meta = map[string]string{"zone": fmt.Sprint("z", i%3)}
			})...)
		},
	}
}

// TestAPickCostsTheSameWithManyInstances: 10,000 cost what 10 cost, to a generous factor, because
// memory that is not in a cache is slower. What walks the list costs hundreds of times as much.
func TestAPickCostsTheSameWithManyInstances(t *testing.T) {
	for name, shape := range shapes(t) {
		few, many := shape(10), shape(10_000)
		cost := func(tg *target) time.Duration {
			const picks = 2000
			began := time.Now()
			for range picks {
				pick(tg)
			}
			return time.Since(began) / picks
		}
		ten, all := time.Hour, time.Hour
		for range 50 { // whatever else the machine does, it leaves some rounds alone
			ten, all = min(ten, max(cost(few), 1)), min(all, cost(many))
		}
		ratio := float64(all) / float64(ten)
		t.Logf("%s: 10,000 instances cost %.1f times what 10 cost", name, ratio)
		if ratio > 10 {
			t.Errorf("%s: a pick of 10,000 costs %.1f times that of 10", name, ratio)
		}
		before := many.pool.Load()
		if n := testing.AllocsPerRun(1000, func() { pick(many) }); n != 0 || many.pool.Load() != before {
			t.Errorf("%s: a pick makes %v allocations, and the pool was made anew (%t); want neither", name, n, many.pool.Load() != before)
		}
	}
}

// TestAnUpdateOfManyInstancesIsCheap: the registry tells the whole list when one of it changes.
func TestAnUpdateOfManyInstancesIsCheap(t *testing.T) {
	list := numbered(10_000)
	tg := known(t, Options{}, list...)
	n := 0
	allocations := testing.AllocsPerRun(20, func() {
		n++
		list[5000].HTTP = fmt.Sprint("host:", n)
		tg.update(list)
	})
	if allocations > 50 {
		t.Errorf("an update of one in 10,000 makes %v allocations, want at most 50", allocations)
	}
	if got := tg.instances(); got[5000].HTTP != list[5000].HTTP || len(got) != len(list) {
		t.Errorf("instance 5000 is at %s, want %s", got[5000].HTTP, list[5000].HTTP)
	}
}

func BenchmarkPick(b *testing.B) {
	for name, shape := range shapes(b) {
		for _, n := range []int{10, 100, 1000, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				tg := shape(n)
				b.ReportAllocs()
				for b.Loop() {
					pick(tg)
				}
			})
		}
	}
}

// TestObservingLeavesTheBalancerAlone: states and metrics are read under traffic, with -race, and what was
// not read is the same.
func TestObservingLeavesTheBalancerAlone(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t, io.Discard)
	tr := over(t, Options{Resolver: listed("a", "b", "c", "d"), Telemetry: tel, Default: Settings{Breaker: BreakerSettings{FailureThreshold: 20}}},
		func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "d:80" {
				return reply(r, 500), nil
			}
			return reply(r, 200), nil
		})
	ctx, stop := context.WithCancel(t.Context())
	var observers, callers sync.WaitGroup
	for range 2 {
		observers.Go(func() {
			for ctx.Err() == nil {
				tr.State("order-service")
				tr.State("never-called")
				_ = series(t, tel)
			}
		})
	}
	for range 4 {
		callers.Go(func() {
			for range 300 {
				_, _ = do(t, tr, "POST", orders, nil)
			}
		})
	}
	callers.Wait()
	stop()
	observers.Wait()

	tg := tr.of("order-service")
	look := func() (seen []string) {
		for _, in := range tg.instances() {
			seen = append(seen, fmt.Sprint(in.ID, in.inFlight.Load(), in.peak.Load(), in.usual.Load(), in.heard.Load(), in.failures.Load(), in.ejected.Load()))
		}
		return append(seen, fmt.Sprint(tg.used.Load(), tg.calls.Load(), len(tr.byName)))
	}
	before, pool := look(), tg.pool.Load()
	for range 100 {
		tr.State("order-service")
		tr.State("never-called")
		_ = series(t, tel)
	}
	if after := look(); !slices.Equal(before, after) || tg.pool.Load() != pool {
		t.Errorf("reading state and metrics made %v of %v", after, before)
	}
}
