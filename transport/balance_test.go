package transport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/discovery"
)

// load makes calls for a while at a rate that one instance could bear, and counts where they went and how many failed.
// It runs in a synctest bubble.
func load(t *testing.T, tr *Transport, calls int, every time.Duration, count func(host string, failed bool)) {
	t.Helper()
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(t.Context(), "POST", orders, nil)
			resp, err := tr.RoundTrip(req)
			if err != nil {
				count("", true)
				return
			}
			count(resp.Header.Get("From"), resp.StatusCode >= 500)
			_ = resp.Body.Close()
		})
		time.Sleep(every)
	}
	wg.Wait()
}

func TestASlowInstanceGetsFewCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := over(t, Options{Resolver: listed("a", "b", "slow")}, func(r *http.Request) (*http.Response, error) {
			took := time.Duration(5+rand.IntN(10)) * time.Millisecond
			if strings.HasPrefix(r.URL.Host, "slow") {
				took *= 10
			}
			time.Sleep(took)
			return reply(r, 200, "From", r.URL.Host), nil
		})
		var mu sync.Mutex
		got := map[string]int{}
		load(t, tr, 3000, 2*time.Millisecond, func(host string, _ bool) { mu.Lock(); got[host]++; mu.Unlock() })
		if got["slow:80"] > 450 || got["a:80"] < 900 || got["b:80"] < 900 {
			t.Errorf("calls went to %v, want few to the slow one and the others alike", got)
		}
	})
}

func TestABlackHoleDrawsNoCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hole := "i0:80" // answers at once, and always with an error: fastest of all
		ids := []string{"i0", "i1", "i2", "i3", "i4", "i5", "i6", "i7", "i8", "i9"}
		tr := over(t, Options{Resolver: listed(ids...)}, func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == hole {
				time.Sleep(time.Millisecond)
				return nil, errors.New("broken")
			}
			time.Sleep(time.Duration(5+rand.IntN(10)) * time.Millisecond)
			return reply(r, 200), nil
		})
		var mu sync.Mutex
		failed := 0
		const calls = 5000
		load(t, tr, calls, 2*time.Millisecond, func(_ string, bad bool) {
			if bad {
				mu.Lock()
				failed++
				mu.Unlock()
			}
		})
		if failed > calls/200 { // round robin: 10 %
			t.Errorf("%d of %d calls failed, want under 0.5 %%", failed, calls)
		}
	})
}

func TestEjection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := over(t, Options{Resolver: listed("a", "b", "c", "d")}, func(r *http.Request) (*http.Response, error) { return reply(r, 200), nil })
		_, _ = do(t, tr, "GET", orders, nil)
		tg := tr.byName["order-service"]
		list := tg.instances()
		fail := func(in *instance, times int) {
			for range times {
				if in.failed(tr.now(), time.Millisecond) {
					tg.maybeEject(in, tr.now())
				}
			}
		}
		out := func() (n int) {
			for _, in := range list {
				if in.isEjected(tr.now()) {
					n++
				}
			}
			return n
		}
		fail(list[0], 4)
		if out() != 0 {
			t.Fatal("ejected after four failures, want five")
		}
		list[0].succeeded(tr.now(), time.Millisecond)
		fail(list[0], 4)
		if out() != 0 {
			t.Fatal("ejected after failures that were not in a row")
		}
		fail(list[0], 1)
		if !list[0].isEjected(tr.now()) {
			t.Fatal("not ejected after five failures in a row")
		}
		for range 200 {
			if in := pick(tg); in == list[0] {
				t.Fatal("an ejected instance was picked")
			}
		}
		for _, in := range list[1:] {
			fail(in, 10)
		}
		if got := out(); got != 2 {
			t.Errorf("%d of 4 instances ejected, want at most half", got)
		}
		time.Sleep(30 * time.Second)
		if got := out(); got != 0 {
			t.Errorf("after 30 s: %d still ejected", got)
		}
		for _, want := range []time.Duration{60 * time.Second, 90 * time.Second} { // the next ones are longer
			fail(list[0], 5)
			time.Sleep(want - time.Millisecond)
			if !list[0].isEjected(tr.now()) {
				t.Errorf("back before %v", want)
			}
			time.Sleep(time.Millisecond)
			if list[0].isEjected(tr.now()) {
				t.Errorf("not back after %v", want)
			}
		}
		for range 20 {
			fail(list[0], 5)
			if until := time.Duration(list[0].ejected.Load()) - tr.now(); until > 300*time.Second {
				t.Fatalf("ejected for %v, want at most 300s", until)
			}
			time.Sleep(300 * time.Second)
		}
		time.Sleep(time.Hour)
		fail(list[0], 5)
		if until := time.Duration(list[0].ejected.Load()) - tr.now(); until != 30*time.Second {
			t.Errorf("after a good hour: ejected for %v, want 30s again", until)
		}
	})
}

func TestTheOnlyInstanceIsNeverEjected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := over(t, Options{Resolver: listed("a")}, func(r *http.Request) (*http.Response, error) { return reply(r, 500), nil })
		for range 5 {
			_, _ = do(t, tr, "POST", orders, nil)
		}
		if in := tr.byName["order-service"].instances()[0]; in.isEjected(tr.now()) {
			t.Error("the only instance is ejected")
		}
	})
}

// pick makes the choice for a call over HTTP.
func pick(tg *target) *instance {
	now := tg.tr.now()
	return (&call{t: tg.tr, tg: tg, ctx: context.Background()}).choose(now)
}

// known makes a target of order-service with instances that a registry has told.
func known(t testing.TB, opts Options, list ...discovery.Instance) *target {
	t.Helper()
	tr := over(t, opts, nil)
	tg, err := tr.target("order-service", false)
	if err != nil {
		t.Fatal(err)
	}
	tg.update(list)
	return tg
}

// numbered makes n instances.
func numbered(n int) []discovery.Instance {
	list := make([]discovery.Instance, n)
	for i := range list {
		list[i] = newInstance(fmt.Sprintf("i%05d", i))
	}
	return list
}

func TestPickIsFair(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 5; n++ {
		tg := known(t, Options{}, numbered(n)...)
		got := map[*instance]int{}
		for range 1000 * n {
			got[pick(tg)]++
		}
		for i, in := range tg.instances() {
			if got[in] < 800 || got[in] > 1200 {
				t.Errorf("%d equal instances: number %d was picked %d times of %d, want about 1000", n, i, got[in], 1000*n)
			}
		}
		first := tg.instances()[0]
		again := (&call{t: tg.tr, tg: tg, ctx: t.Context(), attempt: attempt{in: first}}).choose(0)
		if (again == first) != (n == 1) {
			t.Errorf("%d instances, the first to be avoided: picked %s", n, again.ID)
		}
		if in := (&call{t: tg.tr, tg: tg, ctx: t.Context(), proto: overGRPC}).choose(0); in != nil {
			t.Error("picked an instance that does not serve gRPC")
		}
	}
}

func TestCost(t *testing.T) {
	t.Parallel()
	in := &instance{}
	in.succeeded(0, 10*time.Millisecond)
	if got := time.Duration(in.peak.Load()); got != 10*time.Millisecond {
		t.Errorf("first answer: %v, want 10ms", got)
	}
	in.succeeded(0, 100*time.Millisecond)
	if got := time.Duration(in.peak.Load()); got != 100*time.Millisecond {
		t.Errorf("a peak counts at once: %v, want 100ms", got)
	}
	in.succeeded(time.Second, 10*time.Millisecond)
	if got := time.Duration(in.peak.Load()).Round(time.Millisecond); got != 43*time.Millisecond { // 10 + 90/e
		t.Errorf("after one time constant: %v, want 43ms", got)
	}
	in.failed(time.Second, time.Millisecond)
	if got := time.Duration(in.peak.Load()); got != time.Second {
		t.Errorf("a failure counts as %v, want 1s", got)
	}
	idle := in.cost(3*time.Second, 0, in)
	if busy := in.cost(3*time.Second, 1, in); busy < 2*float64(time.Second) || idle > 0.2*float64(time.Second) {
		t.Errorf("after 2 s: idle %v, with a call %v: only the idle one forgets", time.Duration(idle), time.Duration(busy))
	}
}

func TestInstancesKeepTheirStateWhenTheListChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := listed("a", "b")
		tr := over(t, Options{Resolver: m}, func(r *http.Request) (*http.Response, error) { return reply(r, 200), nil })
		_, _ = do(t, tr, "GET", orders, nil)
		tg := tr.byName["order-service"]
		a, b := tg.instances()[0], tg.instances()[1]
		_ = m.Register(t.Context(), newInstance("c"))
		_ = m.Deregister(t.Context(), newInstance("b"))
		synctest.Wait()
		list := tg.instances()
		if len(list) != 2 || list[0] != a || list[1].ID != "c" || !b.gone.Load() || a.gone.Load() {
			t.Errorf("after the change: %v", list)
		}
		moved := newInstance("a")
		moved.HTTP = "elsewhere:80"
		_ = m.Register(t.Context(), moved)
		synctest.Wait()
		if list := tg.instances(); list[0] == a || list[0].HTTP != "elsewhere:80" {
			t.Errorf("an instance that moved keeps its old address: %+v", list[0])
		}
	})
}
