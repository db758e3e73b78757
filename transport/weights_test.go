package transport

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/discovery"
)

// versioned makes instances of order-service with IDs such as v1-0.
func versioned(counts map[string]int) (list []discovery.Instance) {
	for _, version := range slices.Sorted(maps.Keys(counts)) {
		for i := range counts[version] {
			in := newInstance(fmt.Sprintf("%s-%d", version, i))
			in.Version = version
			list = append(list, in)
		}
	}
	return list
}

func weights(t testing.TB, values map[string]string) *Weights {
	t.Helper()
	w := new(Weights)
	if err := w.Set(values); err != nil {
		t.Fatal(err)
	}
	return w
}

// picks counts picks by the part of the ID before the dash.
func picks(tg *target, n int) map[string]int {
	got := map[string]int{}
	for range n {
		version, _, _ := strings.Cut(pick(tg).ID, "-")
		got[version]++
	}
	return got
}

// TestWeightsAreExact: to a point of a hundred over 10,000 calls, from one caller or many at once,
// however slow the instances of a version are.
func TestWeightsAreExact(t *testing.T) {
	t.Parallel()
	for _, canary := range []int{0, 1, 5, 50, 100} {
		w := weights(t, map[string]string{
			"order-service/version/v2": fmt.Sprint(canary), "order-service/version/v1": fmt.Sprint(100 - canary),
		})
		for _, workers := range []int{1, 16} {
			synctest.Test(t, func(t *testing.T) {
				registry := new(discovery.Memory)
				for _, in := range versioned(map[string]int{"v1": 3, "v2": 2}) {
					_ = registry.Register(t.Context(), in)
				}
				tr := over(t, Options{Resolver: registry, Weights: w}, func(r *http.Request) (*http.Response, error) {
					took := time.Duration(rand.IntN(int(20 * time.Millisecond)))
					if strings.HasPrefix(r.URL.Host, "v2") {
						took *= 10
					}
					time.Sleep(took)
					return reply(r, 200, "From", r.URL.Host), nil
				})
				const calls = 10_000
				var mu sync.Mutex
				got := 0
				var all sync.WaitGroup
				for range workers {
					all.Go(func() {
						for range calls / workers {
							req, _ := http.NewRequestWithContext(t.Context(), "POST", orders, nil)
							resp, err := tr.RoundTrip(req)
							if err != nil {
								t.Error(err)
								return
							}
							_ = resp.Body.Close()
							if strings.HasPrefix(resp.Header.Get("From"), "v2") {
								mu.Lock()
								got++
								mu.Unlock()
							}
						}
					})
				}
				all.Wait()
				if want := canary * calls / 100; got < want-calls/100 || got > want+calls/100 || canary%100 == 0 && got != want {
					t.Errorf("%d workers, %d %%: %d of %d calls, want %d to a point", workers, canary, got, calls, want)
				}
			})
		}
	}
}

func TestWeightsFollowChanges(t *testing.T) {
	t.Parallel()
	w := new(Weights)
	tg := known(t, Options{Weights: w}, versioned(map[string]int{"a": 1, "b": 1, "v1": 2, "v2.0": 1, "v+3": 1})...)
	for _, step := range []struct {
		why  string
		set  map[string]string
		want map[string]int // of 1,000
	}{
		{"a version without a weight gets no calls beside one with", map[string]string{"version/v2.0": "7"}, map[string]int{"v2.0": 1000}},
		{"versions by weight", map[string]string{"version/v2.0": "1", "version/v1": "3"}, map[string]int{"v1": 750, "v2.0": 250}},
		{"a character that keys cannot hold", map[string]string{"version/v_3": "1", "version/a": "4"}, map[string]int{"a": 800, "v+3": 200}},
		{"only others are left when no version that is there has calls", map[string]string{
			"version/v1": "0", "version/v2.0": "0", "version/gone": "5", "version/v_3": "0", "version/a": "0",
		}, map[string]int{"b": 1000}},
		{"instances within their version", map[string]string{
			"version/v1": "1", "version/a": "1", "instance/v1-0": "0", "instance/a-0": "5",
		}, map[string]int{"v1": 500, "a": 500}},
		{"instances alone, beside 100 for each other", map[string]string{
			"instance/v1-0": "0", "instance/v1-1": "0", "instance/a-0": "300", "instance/b-0": "200", "instance/v_3-0": "0",
		}, map[string]int{"a": 500, "b": 333, "v2.0": 167}},
	} {
		values := map[string]string{"user-service/version/v1": "9"}
		for key, value := range step.set {
			values["order-service/"+key] = value
		}
		if err := w.Set(values); err != nil {
			t.Fatal(err)
		}
		got := picks(tg, 1000)
		for version := range got {
			if d := got[version] - step.want[version]; d < -10 || d > 10 {
				t.Errorf("%s: %v, want %v", step.why, got, step.want)
				break
			}
		}
	}
	for range 100 {
		if err := w.Set(map[string]string{"order-service/version/v1": "1", "order-service/instance/v1-0": "0"}); err != nil {
			t.Fatal(err)
		}
		if in := pick(tg); in.ID != "v1-1" {
			t.Fatalf("picked %s, want v1-1: the other has no share", in.ID)
		}
	}
	if err := w.Set(map[string]string{"order-service/instance/a-0": "0"}); err != nil {
		t.Fatal(err)
	}
	_ = w.Set(nil)
	if got := picks(tg, 6000); got["v1"] < 1600 || got["a"] < 800 {
		t.Errorf("without weights %v, want all alike", got)
	}
}

func TestWrongWeights(t *testing.T) {
	t.Parallel()
	w := weights(t, map[string]string{"order-service/version/v1": "30", "order-service/version/v2": "70"})
	tg := known(t, Options{Weights: w}, versioned(map[string]int{"v1": 1, "v2": 1})...)
	err := w.Set(map[string]string{
		"order-service/version/v1": "half", "order-service/version/v2": "70", "order-service/v2": "1", "order-service/tag/x": "1",
		"order-service/version/v4": "-1", "order-service/version/v5": "1000001", "/version/v1": "1", "order-service/version/": "1",
	})
	for _, want := range []string{`order-service/version/v1: "half"`, `order-service/v2: expected`, "tag/x", `"-1"`, `"1000001"`, "weight /version/v1", "order-service/version/:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %s in it", err, want)
		}
	}
	if got := picks(tg, 1000); got["v1"] < 290 || got["v1"] > 310 {
		t.Errorf("after a value that is no number: %v, want the last weights", got)
	}
}

func TestNoWeightIsNoInstance(t *testing.T) {
	t.Parallel()
	w := weights(t, map[string]string{"order-service/instance/a": "0", "order-service/instance/b": "0"})
	tr := over(t, Options{Resolver: listed("a", "b"), Weights: w}, nil)
	if _, err := do(t, tr, "GET", orders, nil); !errors.Is(err, ErrNoInstances) {
		t.Errorf("got %v, want ErrNoInstances", err)
	}
}

// TestAnEjectedVersionLeavesItsShare: callers do not suffer from a canary whose instances all fail.
func TestAnEjectedVersionLeavesItsShare(t *testing.T) {
	t.Parallel()
	w := weights(t, map[string]string{"order-service/version/v1": "50", "order-service/version/v2": "50"})
	tg := known(t, Options{Weights: w}, versioned(map[string]int{"v1": 2, "v2": 1, "v3": 2})...)
	list := tg.instances()
	list[2].eject(tg.tr.now())
	if got := picks(tg, 1000); got["v1"] != 1000 {
		t.Errorf("with v2 ejected %v, want all at v1", got)
	}
	list[0].eject(tg.tr.now())
	list[1].eject(tg.tr.now())
	if got := picks(tg, 1000); got["v1"] < 490 || got["v2"] < 490 {
		t.Errorf("with both ejected %v, want half each, and none at a version without a weight", got)
	}
}
