package transport

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/telemetry"
)

// watched is a registry without instances that counts who watches.
type watched struct {
	discovery.Memory
	now atomic.Int64
}

func (w *watched) Watch(ctx context.Context, service string, update func([]discovery.Instance)) error {
	w.now.Add(1)
	defer w.now.Add(-1)
	return w.Memory.Watch(ctx, service, update)
}

// series counts those of all client metrics.
func series(t *testing.T, tel *telemetry.Telemetry) (n int) {
	t.Helper()
	families, err := tel.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "breaker_state" || len(f.GetName()) > 7 && f.GetName()[:7] == "client_" {
			n += len(f.GetMetric())
		}
	}
	return n
}

// age makes a transport forget the targets whose instances are known, as after ten minutes without
// a call.
func age(tr *Transport) {
	tr.mu.Lock()
	for _, tg := range tr.byName {
		if len(tg.instances()) > 0 {
			tg.used.Store(int64(-time.Hour))
		}
	}
	tr.mu.Unlock()
	tr.forget()
}

// of returns the target of a name, or nil.
func (t *Transport) of(name string) *target {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byName[name]
}

// TestTargetsAreForgotten: a caller of webhooks calls many hosts once. Nothing of them stays.
func TestTargetsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tel, registry := newTelemetry(t, io.Discard), new(watched)
		_ = registry.Register(t.Context(), newInstance("a"))
		tr := over(t, Options{Resolver: registry, Telemetry: tel}, func(r *http.Request) (*http.Response, error) { return reply(r, 200), nil })
		call := func(url string) {
			if status, err := do(t, tr, "GET", url, nil); status != 200 {
				t.Fatalf("%s: %d, %v", url, status, err)
			}
		}
		call(orders)
		call("http://10.0.0.1:80/")
		base := series(t, tel)
		for round := range 3 {
			var all sync.WaitGroup
			for i := range 2000 {
				all.Go(func() { call(fmt.Sprintf("http://host-%d-%d.example/", round, i)) })
			}
			all.Wait()
			tr.mu.Lock()
			n := len(tr.byName)
			tr.mu.Unlock()
			if n < 2000 || n > 4500 {
				t.Errorf("round %d: %d targets, want this round's and, in the worst case, the last one's", round, n)
			}
			call("http://10.0.0.1:80/")
			time.Sleep(forgetSoon)
		}
		for range 13 {
			time.Sleep(time.Minute)
			call("http://10.0.0.1:80/")
		}
		tr.mu.Lock()
		targets := len(tr.byName)
		tr.mu.Unlock()
		if targets != 1 || registry.now.Load() != 0 {
			t.Errorf("10 minutes later %d targets and %d watches, want the one that is called", targets, registry.now.Load())
		}
		if n := series(t, tel); n >= base || n == 0 {
			t.Errorf("10 minutes later %d series, want less than the %d of two targets", n, base)
		}
		hosts := 0
		for range tr.targets.Range {
			hosts++
		}
		if hosts != 1 || len(tr.metrics.breakers.series) != 1 {
			t.Errorf("%d names and %d metrics are kept, want 1", hosts, len(tr.metrics.breakers.series))
		}
		call(orders)
		if n := series(t, tel); n != base {
			t.Errorf("called again: %d series, want %d", n, base)
		}
	})
}

func TestATargetIsNotForgottenUnderACall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		proceed := make(chan struct{})
		tr := over(t, Options{Resolver: listed("a"), Default: Settings{Timeout: -1}}, func(r *http.Request) (*http.Response, error) {
			<-proceed
			return reply(r, 200), nil
		})
		done := make(chan error)
		go func() {
			_, err := do(t, tr, "GET", orders, nil)
			done <- err
		}()
		time.Sleep(time.Hour)
		tg := tr.of("order-service")
		if tg == nil {
			t.Fatal("forgotten while a call was under way")
		}
		close(proceed)
		if err := <-done; err != nil {
			t.Error(err)
		}
		time.Sleep(forgetEvery + time.Second)
		if tr.of("order-service") != nil {
			t.Error("not forgotten after its last call")
		}
		// A call that has found the target a moment before it was forgotten goes on with it.
		c := call{t: tr, tg: tg, ctx: t.Context()}
		c.open(false)
		if err := c.begin(); err != nil {
			t.Errorf("a call that began with a target that was forgotten: %v", err)
		}
		c.record(success, 1)
		c.in.release()
		tg.metrics.none.http(200, 1)
		tg.metrics.inc(tr.metrics.retries)
	})
}

// TestForgettingRacesWithCalls: run with -race.
func TestForgettingRacesWithCalls(t *testing.T) {
	t.Parallel()
	address, _ := serve(t, &health{})
	tel := newTelemetry(t, io.Discard)
	tr := over(t, Options{Resolver: grpcListed(t, address), Telemetry: tel}, nil)
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			age(tr)
			tr.State("order-service")
			_ = series(t, tel)
		}
	})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for range 200 {
				if err := check(t.Context(), tr, ""); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
	close(stop)
	all.Wait()
	age(tr)
	if n := series(t, tel); n != 0 {
		t.Errorf("%d series are left of targets that are forgotten", n)
	}
}

// TestTransportsThatShareMetrics: what one forgets another may still call.
func TestTransportsThatShareMetrics(t *testing.T) {
	t.Parallel()
	tel, registry := newTelemetry(t, io.Discard), listed("a")
	answer := func(r *http.Request) (*http.Response, error) { return reply(r, 200), nil }
	one := over(t, Options{Resolver: registry, Telemetry: tel}, answer)
	two := over(t, Options{Resolver: registry, Telemetry: tel}, answer)
	for _, tr := range []*Transport{one, two, two} {
		_, _ = do(t, tr, "GET", orders, nil)
	}
	age(one)
	_, _ = do(t, two, "GET", orders, nil)
	if got, _ := metric(t, tel, "client_requests_total", "target=order-service", "code=200"); got != 4 {
		t.Errorf("client_requests_total is %v after one of two transports forgot the target, want 4", got)
	}
	age(two)
	if _, ok := metric(t, tel, "client_requests_total", "target=order-service"); ok {
		t.Error("the series is left, though no transport knows the target")
	}
}

// TestWhatATargetCosts is not parallel: it measures the heap.
func TestWhatATargetCosts(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	tel, registry := newTelemetry(t, io.Discard), new(watched)
	tr := over(t, Options{Resolver: registry, Telemetry: tel}, func(r *http.Request) (*http.Response, error) { return reply(r, 200), nil })
	const hosts = 1000
	base, goroutines := heap(), runtime.NumGoroutine()
	var before uint64
	for round := range 3 {
		before = max(heap(), base)
		for i := range hosts {
			if status, err := do(t, tr, "GET", fmt.Sprintf("http://10.%d.%d.%d:80/", round, i/250, i%250), nil); status != 200 {
				t.Fatal(status, err)
			}
		}
		if each := (heap() - before) / hosts; each > 6<<10 {
			t.Errorf("a target costs %d bytes, want at most 6 kB", each)
		} else {
			t.Logf("a target costs %d bytes and has %d metrics", each, series(t, tel)/hosts)
		}
		age(tr)
		waitFor(t, "no goroutine of a forgotten target", func() bool { return runtime.NumGoroutine() <= goroutines })
	}
	if after := heap(); after > before+50*hosts || after > base+1000*hosts { // maps keep their room for the next ones
		t.Errorf("forgotten targets keep %d bytes, and %d more each round", after-base, int64(after-before))
	}
}
