package rollout_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/kv"
	"github.com/kaptar/kaptar/rollout"
)

// A backend is a store and a registry that the programs of a test share.
type backend struct {
	store    *kv.Memory
	registry *discovery.Memory
}

func (b *backend) Store() (kv.Store, error)              { return b.store, nil }
func (b *backend) Registry() (discovery.Registry, error) { return b.registry, nil }
func (b *backend) Close(context.Context) error           { return nil }

const backendURL = "nats://shared"

// A system is programs that share a backend.
type system struct {
	*backend

	t *testing.T
}

func newSystem(t *testing.T) *system {
	t.Helper()
	return &system{&backend{new(kv.Memory), new(discovery.Memory)}, t}
}

// run runs a service until the test ends, or stop is called.
func (s *system) run(service kaptar.Service) (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, result, log := make(chan struct{}), make(chan error, 1), new(buffer)
	go func() {
		result <- kaptar.Run(ctx, &kaptar.Options{
			Sources:  config.Sources{Defaults: map[string]string{"listen": "127.0.0.1:0", "discovery_url": backendURL, "log_format": "text", "breaker.recovery_timeout": "1s"}},
			Log:      log,
			Backends: map[string]drivers.Backend{backendURL: s.backend},
			Ready:    func([]discovery.Instance) { close(ready) },
		}, service)
	}()
	select {
	case <-ready:
	case err := <-result:
		s.t.Fatalf("%s did not start: %v\n%s", service.Name, err, log)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-result; err != nil {
			s.t.Errorf("%s: %v", service.Name, err)
		}
		if s.t.Failed() {
			s.t.Logf("log of %s %s:\n%s", service.Name, service.Version, log.without("msg=request"))
		}
	})
	s.t.Cleanup(stop)
	return stop
}

type buffer struct{ waittest.Buffer }

// users is a service of a version; handle answers its one route.
func users(version string, handle http.HandlerFunc) kaptar.Service {
	return kaptar.Service{Name: "users", Version: version, Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /users", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Version", version)
			handle(w, r)
		})
		return nil
	}}
}

// calls are what came of the calls to users.
type calls struct{ all, failed, v2 atomic.Int64 }

// edge calls users as fast as the pause lets it, and controls releases.
func edge(c *calls, pause time.Duration) kaptar.Service {
	return kaptar.Service{Name: "edge", Version: "v1", Setup: func(app *kaptar.App) error {
		for i := range 4 {
			app.Go(fmt.Sprint("traffic", i), func(ctx context.Context) error {
				for ctx.Err() == nil {
					req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://users/users", nil)
					resp, err := app.Client().Do(req)
					if ctx.Err() != nil {
						return nil //nolint:nilerr // the program stops
					}
					c.all.Add(1)
					if err != nil || resp.StatusCode >= 500 {
						c.failed.Add(1)
					}
					if err == nil {
						if resp.Header.Get("Version") == "v2" {
							c.v2.Add(1)
						}
						_ = resp.Body.Close()
					}
					select {
					case <-time.After(pause):
					case <-ctx.Done():
					}
				}
				return nil
			})
		}
		return rollout.Control(app, &rollout.Options{Lease: 2 * time.Second})
	}}
}

func ok(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "[]") }

// command types a command line, in a program whose store is that of the test.
func (s *system) release(plan string) {
	s.t.Helper()
	p, err := rollout.ParsePlan("plan.yml", []byte(plan))
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := rollout.New("users", "v1", "v2", p, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := rollout.Put(s.t.Context(), s.store, r); err != nil {
		s.t.Fatal(err)
	}
}

// await waits until the release is over or paused.
func (s *system) await(limit time.Duration) (r rollout.Release) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	begun := time.Now()
	_ = s.store.Watch(ctx, "releases/users", func(list []kv.Entry) {
		for _, e := range list {
			next, err := rollout.Decode(e.Value)
			if err != nil {
				s.t.Error(err)
			}
			if next.Phase != r.Phase || next.Step != r.Step {
				s.t.Logf("%5.1fs %s step %d weight %d: %s", time.Since(begun).Seconds(), next.Phase, next.Step, next.Weight, next.Message)
			}
			if r = next; r.Done() || r.Phase == rollout.Paused {
				cancel()
			}
		}
	})
	return r
}

func TestReleaseOfAGoodVersion(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.release("canary: {steps: [setWeight: 10, analysis: {}, setWeight: 50, analysis: {}]}\nanalysis: {interval: 1s, timeout: 2m}")
	s.run(users("v1", ok))
	s.run(users("v2", ok))
	c := new(calls)
	s.run(edge(c, 2*time.Millisecond))
	if r := s.await(2 * time.Minute); r.Phase != rollout.Healthy || r.Stable != "v2" {
		t.Fatalf("the release of a good version: %s: %s, want Healthy\n%v", r.Phase, r.Message, r.Test.Result())
	}
	if n := c.failed.Load(); n != 0 {
		t.Errorf("%d of %d calls failed", n, c.all.Load())
	}
}

func TestReleaseOfABadVersion(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]http.HandlerFunc{
		"errors": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"slow": func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(200 * time.Millisecond):
			case <-r.Context().Done():
			}
			ok(w, r)
		},
		"breaks off": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t)
			s.release("analysis: {interval: 1s, timeout: 2m}")
			s.run(users("v1", ok))
			s.run(users("v2", handle))
			c := new(calls)
			s.run(edge(c, 2*time.Millisecond))
			r := s.await(2 * time.Minute)
			if r.Phase != rollout.Degraded || !strings.Contains(r.Message, "is worse") {
				t.Fatalf("the release of a bad version: %s: %s, want Degraded\n%v", r.Phase, r.Message, r.Test.Result())
			}
			if got := r.Weights(); got["v1"] != 100 || got["v2"] != 0 {
				t.Errorf("weights %v", got)
			}
			t.Logf("%d of %d calls failed, %d went to v2", c.failed.Load(), c.all.Load(), c.v2.Load())
		})
	}
}

func (b *buffer) without(text string) string {
	var out strings.Builder
	for line := range strings.Lines(b.String()) {
		if !strings.Contains(line, text) {
			out.WriteString(line)
		}
	}
	return out.String()
}
