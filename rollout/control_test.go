package rollout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/wanted"
	"github.com/kaptar/kaptar/kv"
)

// A world has instances of two versions of the service users, whose numbers grow with the time by what
// the weights in the store say.
type world struct {
	kv.Store

	registry discovery.Registry
	rate     float64 // calls a second
	bad      float64 // share of v2's calls that fail
	lease    time.Duration

	mu    sync.Mutex
	at    time.Time
	calls map[string]float64
	fails map[string]float64
}

func newWorld(t *testing.T, bad float64, store kv.Store, registry discovery.Registry) *world {
	t.Helper()
	w := &world{Store: store, registry: registry, rate: 400, lease: 10 * time.Second, bad: bad, at: time.Now(), calls: map[string]float64{}, fails: map[string]float64{}}
	for _, in := range []discovery.Instance{{ID: "u1", Version: "v1"}, {ID: "u2", Version: "v2"}} {
		in.Service, in.HTTP = "users", "127.0.0.1:1"+in.ID[1:]
		if err := w.registry.Register(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// share is what a version gets of the calls.
func (w *world) share(version string) float64 {
	weights := map[string]float64{}
	sum := 0.
	for _, v := range []string{"v1", "v2"} {
		e, err := w.Get(context.Background(), "weights/users/version/"+v)
		if err == nil {
			weights[v], _ = strconv.ParseFloat(string(e.Value), 64)
			sum += weights[v]
		}
	}
	if sum == 0 {
		return .5
	}
	return weights[version] / sum
}

// RoundTrip answers /metrics of either version, as both together would.
func (w *world) RoundTrip(req *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for version, bad := range map[string]float64{"v1": 0.001, "v2": max(w.bad, .001)} {
		calls := w.rate * now.Sub(w.at).Seconds() * w.share(version)
		w.calls[version] += calls
		w.fails[version] += calls * bad
	}
	w.at = now
	version := map[string]string{"u1": "v1", "u2": "v2"}[wanted.From(req.Context()).Instance]
	calls, fails := w.calls[version], w.fails[version]
	text := fmt.Sprintf("# TYPE http_requests_total counter\nhttp_requests_total{service=\"users\",status=\"200\"} %.0f\nhttp_requests_total{service=\"users\",status=\"500\"} %.0f\n",
		calls-fails, fails) +
		fmt.Sprintf("# TYPE http_request_duration_seconds histogram\nhttp_request_duration_seconds_bucket{service=\"users\",le=\"0.0100\"} %.0f\n"+
			"http_request_duration_seconds_bucket{service=\"users\",le=\"0.0105\"} %.0f\nhttp_request_duration_seconds_bucket{service=\"users\",le=\"+Inf\"} %.0f\n"+
			"http_request_duration_seconds_sum{service=\"users\"} 1\nhttp_request_duration_seconds_count{service=\"users\"} %.0f\n", calls*.9, calls, calls, calls)
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/plain; version=0.0.4"}}, Body: io.NopCloser(strings.NewReader(text)), Request: req,
	}, nil
}

// A control is a controller that a test can end.
type control struct {
	*controller

	registry *prometheus.Registry
	cancel   context.CancelFunc
	ended    chan struct{}
}

func (w *world) control(t *testing.T, store kv.Store) *control {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	registry := prometheus.NewRegistry()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	c := &control{newController("edge", store, w.registry, &http.Client{Transport: w}, log, registry), registry, cancel, make(chan struct{})}
	go func() {
		defer close(c.ended)
		c.campaign(ctx, w.lease)
	}()
	return c
}

func (c *control) kill() {
	c.cancel()
	<-c.ended
}

// series are those of rollout_…, with their values.
func (c *control) series(t *testing.T) string {
	t.Helper()
	families, err := c.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, family := range families {
		for _, m := range family.GetMetric() {
			all = append(all, fmt.Sprintf("%s %g", family.GetName(), value(m)))
		}
	}
	return strings.Join(all, ", ")
}

const shortPlan = "canary: {steps: [setWeight: 20, analysis: {}, setWeight: 50, pause: {duration: 20s}, analysis: {}]}"

func (w *world) begin(t *testing.T, text string) Release {
	t.Helper()
	r, err := New("users", "v1", "v2", plan(t, text), time.Now())
	if err == nil {
		err = Put(t.Context(), w, r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// await lets time pass until the release is over or paused, and the weights have followed.
func (w *world) await(t *testing.T) Release {
	t.Helper()
	for range 600 {
		time.Sleep(time.Second)
		synctest.Wait()
		r, _, err := load(t.Context(), w, "users")
		if err != nil {
			t.Fatal(err)
		}
		if r.Done() || r.Phase == Paused {
			return r
		}
	}
	t.Fatal("the release has not ended within 10 minutes")
	return Release{}
}

func (w *world) weights(t *testing.T) string {
	t.Helper()
	all, err := values(t.Context(), w, weightsPrefix)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(all)
}

const healthyWeights = "map[users/events:v2 users/version/v1:0 users/version/v2:100]"

func TestControl(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		bad     float64
		phase   Phase
		weights string
	}{
		"good": {0, Healthy, healthyWeights},
		"bad":  {.3, Degraded, "map[users/events:v1 users/version/v1:100 users/version/v2:0]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tc.bad, new(kv.Memory), new(discovery.Memory))
				w.begin(t, shortPlan)
				c := w.control(t, w)
				defer c.kill()
				r := w.await(t)
				if got := w.weights(t); r.Phase != tc.phase || got != tc.weights {
					t.Errorf("%s\nwith %s, want %s with %s\n%v", r.line(), got, tc.phase, tc.weights, r.Test.Result())
				}
				if got, want := c.series(t), "rollout_phase 1, rollout_transitions_total "; !strings.HasPrefix(got, want) || strings.Count(got, "rollout_weight") != 2 {
					t.Errorf("metrics %s, want %s and two weights", got, want)
				}
			})
		})
	}
}

// TestNextRelease begins a release while nothing but the weights of the last one are looked at: it takes
// as long as the first.
func TestNextRelease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, .3, new(kv.Memory), new(discovery.Memory))
		began, first := time.Now(), w.begin(t, "analysis: {interval: 1s}\n"+shortPlan)
		defer w.control(t, w).kill()
		w.await(t)
		most := time.Since(began) + time.Second
		for range 12 {
			time.Sleep(time.Second)
			if err := Put(t.Context(), w, first); err != nil {
				t.Fatal(err)
			}
			began = time.Now()
			w.await(t)
			if took := time.Since(began); took > most {
				t.Errorf("a release took %v, and the first less than %v", took, most)
			}
		}
	})
}

// A cut is a store that fails at one call, before or after it has done what it is asked, and that ends
// the controller which made it.
type cut struct {
	kv.Store

	mu    sync.Mutex
	left  int
	after bool
	end   func()
}

var errCut = errors.New("cut off")

func (c *cut) try(do func() error) error {
	c.mu.Lock()
	c.left--
	dead, now, end := c.left < 0, c.left == 0, c.end
	c.mu.Unlock()
	if dead || now && !c.after {
		if now {
			end()
		}
		return errCut
	}
	err := do()
	if now {
		end()
		return errCut
	}
	return err
}

func (c *cut) Get(ctx context.Context, key string) (e kv.Entry, err error) {
	err = c.try(func() error { e, err = c.Store.Get(ctx, key); return err })
	return e, err
}

func (c *cut) Put(ctx context.Context, key string, value []byte) (n uint64, err error) {
	err = c.try(func() error { n, err = c.Store.Put(ctx, key, value); return err })
	return n, err
}

func (c *cut) PutIf(ctx context.Context, key string, value []byte, revision uint64) (n uint64, err error) {
	err = c.try(func() error { n, err = c.Store.PutIf(ctx, key, value, revision); return err })
	return n, err
}

func (c *cut) Delete(ctx context.Context, key string) error {
	return c.try(func() error { return c.Store.Delete(ctx, key) })
}

func (c *cut) Watch(ctx context.Context, prefix string, update func([]kv.Entry)) error {
	return c.try(func() error { return c.Store.Watch(ctx, prefix, update) })
}

// TestControllerKilledAtAnyCall kills the controller at each of its calls of the store, before and
// after the call has had its effect; another one brings the release to the same end.
func TestControllerKilledAtAnyCall(t *testing.T) {
	t.Parallel()
	for _, bad := range []float64{0, .3} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprint("bad ", bad, " after ", after), func(t *testing.T) {
				t.Parallel()
				phase, weights := Healthy, healthyWeights
				if bad > 0 {
					phase, weights = Degraded, "map[users/events:v1 users/version/v1:100 users/version/v2:0]"
				}
				n, over := 1, false
				for ; !over && n < 1000; n++ {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, bad, new(kv.Memory), new(discovery.Memory))
						w.begin(t, shortPlan)
						store := &cut{Store: w, left: n, after: after}
						killed := make(chan struct{})
						store.end = func() { close(killed) }
						first := w.control(t, store)
						store.mu.Lock()
						store.end = func() { first.cancel(); close(killed) }
						store.mu.Unlock()
						second := w.control(t, w)
						r := w.await(t)
						for range 60 { // the second one may take over only now
							if w.weights(t) == weights {
								break
							}
							time.Sleep(time.Second)
							synctest.Wait()
						}
						second.kill()
						first.kill()
						select {
						case <-killed:
						default:
							over = true // there are fewer calls
						}
						if got := w.weights(t); r.Phase != phase || got != weights {
							t.Errorf("killed at call %d: %s with %s, want %s with %s", n, r.line(), got, phase, weights)
						}
					})
				}
				if !over || n < 15 {
					t.Errorf("killed at %d calls, want all of them, and some", n)
				}
			})
		}
	}
}

// TestTwoControllers lets two lead at once, as happens for a moment when a lease is lost: the release
// ends as it does with one.
func TestTwoControllers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0, new(kv.Memory), new(discovery.Memory))
		w.begin(t, shortPlan)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 2 {
			c := newController("edge", w, w.registry, &http.Client{Transport: w}, slog.New(slog.DiscardHandler), nil)
			all.Go(func() { c.lead(ctx) })
		}
		r := w.await(t)
		cancel()
		all.Wait()
		if got := w.weights(t); r.Phase != Healthy || got != healthyWeights {
			t.Errorf("%s with %s, want Healthy with %s", r.line(), got, healthyWeights)
		}
	})
}

// TestLease checks that one leads at a time, that another takes over when it dies, at once when it
// stops, and that nobody leads beyond the life of the lease while the store is away.
func TestLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var store kv.Memory
		var mu sync.Mutex
		leading := map[string]bool{}
		candidate := func(name string, store kv.Store) (stop func()) {
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan struct{})
			l := &lease{store: store, name: name, life: 10 * time.Second, note: func(context.Context, error) {}}
			go func() {
				defer close(ended)
				l.campaign(ctx, func(ctx context.Context) {
					mu.Lock()
					leading[name] = true
					if len(leading) > 1 {
						t.Errorf("%v lead at the same time", leading)
					}
					mu.Unlock()
					<-ctx.Done()
					mu.Lock()
					delete(leading, name)
					mu.Unlock()
				})
			}()
			return func() { cancel(); <-ended }
		}
		who := func() string {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return fmt.Sprint(leading)
		}
		broken := &cut{Store: &store, left: 1 << 30, end: func() {}}
		stopA := candidate("a", broken)
		synctest.Wait()
		stopB := candidate("b", &store)
		defer stopB()
		time.Sleep(time.Minute)
		if got := who(); got != "map[a:true]" {
			t.Fatalf("after a minute %s lead, want a", got)
		}
		broken.mu.Lock()
		broken.left = 0 // its store is away
		broken.mu.Unlock()
		time.Sleep(13 * time.Second)
		if got := who(); got != "map[b:true]" {
			t.Errorf("13 s without the store: %s lead, want b", got)
		}
		stopC := candidate("c", &store)
		defer stopC()
		stopA()
		stopB()
		time.Sleep(3 * time.Second)
		if got := who(); got != "map[c:true]" {
			t.Errorf("3 s after b has stopped: %s lead, want c", got)
		}
	})
}

// A watched store calls after each write.
type watched struct {
	kv.Store

	after func(key string)
}

func (w *watched) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	n, err := w.Store.Put(ctx, key, value)
	w.after(key)
	return n, err
}

// TestWeightsAtEveryMoment looks at the shares between any two writes.
func TestWeightsAtEveryMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0, new(kv.Memory), new(discovery.Memory))
	r := w.begin(t, "")
	for _, weight := range []int{5, 50, 95, 100, 0, 100, 30, 0} {
		from := w.share("v2")
		r.Weight = weight
		lower, upper := min(from, float64(weight)/100), max(from, float64(weight)/100)
		store := &watched{w, func(key string) {
			if strings.Contains(w.weights(t), "v1:0 users/version/v2:0]") {
				t.Errorf("from %g to %d %%: no version has a weight, so all are one", from, weight)
			}
			if got := w.share("v2"); got < lower || got > upper {
				t.Errorf("from %g to %d %%: the share is %g after the write of %s", from, weight, got, key)
			}
		}}
		if err := write(t.Context(), store, r); err != nil {
			t.Fatal(err)
		}
		if got := w.share("v2"); got != float64(weight)/100 {
			t.Errorf("the share is %g, want %d %%", got, weight)
		}
	}
	if _, err := w.Put(t.Context(), "weights/users/version/v0", []byte("7")); err != nil {
		t.Fatal(err)
	}
	if err := write(t.Context(), w, r); err != nil || strings.Contains(w.weights(t), "v0") {
		t.Errorf("a version that is no part of the release keeps its weight: %v, %s", err, w.weights(t))
	}
}

// TestSlowWriter aborts a release while another writes the weights of what was before.
func TestSlowWriter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0, new(kv.Memory), new(discovery.Memory))
	r := w.begin(t, "")
	r.Weight, r.Begun, r.Step = 50, true, 1
	if _, _, err := update(t.Context(), w, "users", func(Release) (Release, error) { return r, nil }); err != nil {
		t.Fatal(err)
	}
	once := sync.OnceFunc(func() {
		abort := func(r Release) (Release, error) { return r.Abort(time.Now(), "") }
		if _, _, err := update(t.Context(), w, "users", abort); err != nil {
			t.Error(err)
		}
		if err := apply(t.Context(), w, "users"); err != nil {
			t.Error(err)
		}
	})
	if err := apply(t.Context(), &watched{w, func(string) { once() }}, "users"); err != nil {
		t.Fatal(err)
	}
	if got, want := w.weights(t), "map[users/events:v1 users/version/v1:100 users/version/v2:0]"; got != want {
		t.Errorf("after the abort: %s, want %s", got, want)
	}
}
