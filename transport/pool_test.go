package transport

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/discovery"
)

// TestCallsOneAfterAnotherAreSpread: with nothing in flight whoever was a little faster would get all.
func TestCallsOneAfterAnotherAreSpread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first := map[string]bool{}
		tr := over(t, Options{Resolver: listed("a", "b", "c")}, func(r *http.Request) (*http.Response, error) {
			took := 300 * time.Microsecond
			if !first[r.URL.Host] { // it connects; and c is slower throughout
				took = 20 * time.Millisecond
			} else if strings.HasPrefix(r.URL.Host, "c") {
				took = time.Millisecond
			}
			first[r.URL.Host] = true
			time.Sleep(took)
			return reply(r, 200, "From", r.URL.Host), nil
		})
		got := map[string]int{}
		for range 300 {
			req, _ := http.NewRequestWithContext(t.Context(), "GET", orders, nil)
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			got[resp.Header.Get("From")]++
		}
		for _, host := range []string{"a:80", "b:80", "c:80"} {
			if got[host] < 60 || got[host] > 141 {
				t.Errorf("300 calls went to %v, want 20 to 47 %% to each", got)
			}
		}
	})
}

func TestAnIdleInstanceIsTriedAfterThreeSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tg := known(t, Options{}, numbered(2)...)
		now := tg.tr.now()
		fast, slow := tg.instances()[0], tg.instances()[1]
		for range 100 {
			fast.succeeded(now, 50*time.Millisecond)
			slow.succeeded(now, 5*time.Second)
		}
		time.Sleep(2900 * time.Millisecond)
		fast.succeeded(tg.tr.now(), 10*time.Millisecond)
		if in := pick(tg); in != fast {
			t.Errorf("after 2.9 s: picked the slow one")
		}
		time.Sleep(200 * time.Millisecond)
		for range 20 {
			if in := pick(tg); in != slow {
				t.Errorf("after 3.1 s: picked the fast one, want the one not heard of")
			}
		}
		slow.inFlight.Add(1)
		if in := pick(tg); in != fast {
			t.Error("picked the slow one again while it holds a call")
		}
	})
}

func TestANewInstanceWarmsUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tg := known(t, Options{}, numbered(3)...)
		if got := newest(tg); got < 800 || got > 1200 {
			t.Errorf("the first list: %d of 3,000, want a third", got)
		}
		tg.update(numbered(4))
		for _, step := range []struct {
			after     time.Duration
			low, high int // of 4,000; a quarter is 1,000
		}{{0, 60, 150}, {5 * time.Second, 400, 620}, {5 * time.Second, 850, 1150}} {
			time.Sleep(step.after)
			for _, in := range tg.instances()[:3] { // busy as ever
				in.succeeded(tg.tr.now(), 10*time.Millisecond)
			}
			tg.instances()[3].heard.Store(int64(tg.tr.now()))
			if got := newest(tg); got < step.low || got > step.high {
				t.Errorf("%v later: %d of 4,000, want %d to %d", step.after, got, step.low, step.high)
			}
		}

		// Load counts all the same: it holds a tenth of the calls that the others hold, at first.
		tg.update(numbered(5))
		for _, in := range tg.instances() {
			in.succeeded(tg.tr.now(), 10*time.Millisecond)
			in.inFlight.Store(20)
		}
		latest := tg.instances()[4]
		latest.peak.Store(int64(10 * time.Millisecond))
		for held, want := range map[int64]bool{0: true, 3: false} {
			latest.inFlight.Store(held)
			if got := newest(tg) > 0; got != want {
				t.Errorf("with 20 calls at each other and %d at the new one: it gets calls is %t, want %t", held, got, want)
			}
		}
	})
}

// newest counts the picks of the last instance among 1,000 for each.
func newest(tg *target) (n int) {
	list := tg.instances()
	for range 1000 * len(list) {
		if pick(tg) == list[len(list)-1] {
			n++
		}
	}
	return n
}

// reached are the IDs that picks go to.
func reached(tg *target) []string {
	got := map[string]bool{}
	for range 100 * len(tg.instances()) {
		got[pick(tg).ID] = true
	}
	return slices.Sorted(maps.Keys(got))
}

// zoned makes instances with IDs such as a0 in zone a.
func zoned(counts map[string]int) (list []discovery.Instance) {
	for _, zone := range slices.Sorted(maps.Keys(counts)) {
		for i := range counts[zone] {
			in := newInstance(fmt.Sprint(zone, i))
			in.Meta = map[string]string{"zone": zone}
			list = append(list, in)
		}
	}
	return list
}

func TestZones(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		why    string
		zone   string
		counts map[string]int
		out    []string // ejected
		want   string
	}{
		{"its own zone", "a", map[string]int{"a": 2, "b": 2, "c": 2}, nil, "a0 a1"},
		{"half of it is enough", "a", map[string]int{"a": 2, "b": 2, "c": 2}, []string{"a0"}, "a1"},
		{"all of it is out", "a", map[string]int{"a": 2, "b": 1, "c": 1}, []string{"a0", "a1"}, "b0 c0"},
		{"less than half of an even share", "a", map[string]int{"a": 1, "b": 4, "c": 4}, nil, "a0 b0 b1 b2 b3 c0 c1 c2 c3"},
		{"less than half is healthy", "a", map[string]int{"a": 3, "b": 3}, []string{"a0", "a1"}, "a2 b0 b1 b2"},
		{"nothing in its zone", "d", map[string]int{"a": 1, "b": 1}, nil, "a0 b0"},
		{"no zone", "", map[string]int{"a": 1, "b": 1}, nil, "a0 b0"},
	} {
		tg := known(t, Options{Zone: tc.zone}, zoned(tc.counts)...)
		for _, in := range tg.instances() {
			if slices.Contains(tc.out, in.ID) {
				in.eject(tg.tr.now())
			}
		}
		if got := strings.Join(reached(tg), " "); got != tc.want {
			t.Errorf("%s: calls go to %s, want %s", tc.why, got, tc.want)
		}
	}
	tg := known(t, Options{Zone: "a"}, zoned(map[string]int{"a": 1, "b": 1})...)
	moved := zoned(map[string]int{"a": 1, "b": 1})
	moved[0].Meta, moved[1].Meta = moved[1].Meta, moved[0].Meta
	before := tg.instances()[0]
	tg.update(moved)
	if got := reached(tg); len(got) != 1 || got[0] != "b0" || tg.instances()[0] != before {
		t.Errorf("after the registry changed the zones calls go to %v, want b0, and no instance forgotten", got)
	}
}

func TestSubset(t *testing.T) {
	t.Parallel()
	of := func(caller string, set Settings, w *Weights, list []discovery.Instance) *target {
		return known(t, Options{InstanceID: caller, Default: set, Weights: w}, list...)
	}
	list := numbered(100)
	tg := of("one", Settings{}, nil, list)
	got := reached(tg)
	if len(got) != 20 {
		t.Fatalf("calls go to %d of 100 instances, want 20", len(got))
	}
	if again := reached(of("one", Settings{}, nil, list)); !slices.Equal(got, again) {
		t.Errorf("the same caller calls %v and then %v", got, again)
	}
	if other := reached(of("two", Settings{}, nil, list)); slices.Equal(got, other) {
		t.Error("another caller calls the same instances")
	}
	if n := len(reached(of("one", Settings{Subset: 7}, nil, list))); n != 7 {
		t.Errorf("Subset 7: calls go to %d", n)
	}
	if n := len(reached(of("one", Settings{Subset: -1}, nil, list))); n != 100 {
		t.Errorf("Subset -1: calls go to %d of 100, want all", n)
	}
	if n := len(reached(of("one", Settings{}, weights(t, map[string]string{"order-service/instance/x": "1"}), list))); n != 100 {
		t.Errorf("with weights: calls go to %d of 100, want all", n)
	}

	// One of them is ejected, another leaves: each has one successor.
	for _, in := range tg.instances() {
		if in.ID == got[0] {
			in.eject(tg.tr.now())
		}
	}
	tg.update(slices.DeleteFunc(numbered(100), func(in discovery.Instance) bool { return in.ID == got[1] }))
	now := reached(tg)
	left := slices.DeleteFunc(slices.Clone(now), func(id string) bool { return slices.Contains(got, id) })
	if len(now) != 20 || len(left) != 2 || slices.Contains(now, got[0]) {
		t.Errorf("after one was ejected and one left: %d instances, %d of them new, want 20 and 2", len(now), len(left))
	}

	uses := map[string]int{}
	for caller := range 300 {
		for _, in := range of(fmt.Sprint("caller-", caller), Settings{}, nil, list).choices(0).groups[overHTTP][0].members {
			uses[in.ID]++
		}
	}
	for id, n := range uses {
		if n < 30 || n > 95 { // 60, with a standard deviation of 7
			t.Errorf("%d of 300 callers use %s, want about 60", n, id)
		}
	}
}

func TestTheConnectionsOfASubsetAreBounded(t *testing.T) {
	t.Parallel()
	address, _ := serve(t, &health{})
	list := numbered(30)
	for i := range list {
		list[i].GRPC = address
	}
	tg := known(t, Options{Default: Settings{Subset: 3}}, list...)
	connected := func() (n int) {
		for _, in := range tg.instances() {
			if in.openConn() != nil {
				n++
			}
		}
		return n
	}
	for range 50 {
		if err := check(t.Context(), tg.tr, ""); err != nil {
			t.Fatal(err)
		}
	}
	if n := connected(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
}

// TestRealInstancesShareCallsOneAfterAnother: over loopback, with connections to be made and
// whatever else the machine does meanwhile.
func TestRealInstancesShareCallsOneAfterAnother(t *testing.T) {
	t.Parallel()
	web := new(discovery.Memory)
	var mu sync.Mutex
	got := map[string]int{}
	count := func(name string) {
		mu.Lock()
		defer mu.Unlock()
		got[name]++
	}
	rpc := new(discovery.Memory)
	for _, id := range []string{"a", "b", "c"} {
		server(t, web, "order-service", id, func(http.ResponseWriter, *http.Request) { count("http " + id) })
		address, _ := serve(t, &health{check: func(context.Context, string) error { count("grpc " + id); return nil }})
		if err := rpc.Register(t.Context(), discovery.Instance{ID: id, Service: "order-service", GRPC: address}); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 { // a pause of the machine makes an instance slow, and it gets fewer calls: rightly
		clear(got)
		overHTTP := over(t, Options{Resolver: web}, nil)
		overGRPC := over(t, Options{Resolver: rpc}, nil)
		for range 300 {
			if status, err := do(t, overHTTP, "GET", orders, nil); status != 200 {
				t.Fatal(status, err)
			}
			if err := check(t.Context(), overGRPC, ""); err != nil {
				t.Fatal(err)
			}
		}
		least, most := 300, 0
		for _, name := range []string{"http a", "http b", "http c", "grpc a", "grpc b", "grpc c"} {
			least, most = min(least, got[name]), max(most, got[name])
		}
		if least >= 60 && most <= 141 {
			return
		}
		t.Logf("300 calls each went to %v", got)
	}
	t.Error("no round went to all instances, want 20 to 47 % of the calls for each")
}
