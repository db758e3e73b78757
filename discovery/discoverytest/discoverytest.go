// Package discoverytest checks that a registry keeps the promises of package discovery.
// The author of a driver calls Run from a test of the driver's own.
package discoverytest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/test/watchtest"
)

// Harness says what to test and what it is able to do.
type Harness struct {
	// Open returns a registry on which no other test uses the names that Service gives; required.
	// What it opens it closes in a cleanup of t.
	Open func(t *testing.T) discovery.Registry
	// Service returns a name of a service that no other test uses. nil gives "service-1" and so on,
	// for registries that are new at each Open.
	Service func(t *testing.T) string
	// Fixed says that the list never changes: Register and Deregister only check. Such a registry
	// is asked for Listed, and for a service that it does not know.
	Fixed  bool
	Listed []discovery.Instance // of one service, ordered by ID; only for a Fixed registry
	// Timeout is how long a change may take to reach a watcher; default 30 s.
	Timeout time.Duration
}

// Run runs every test that the registry is able to pass, as subtests of t.
func Run(t *testing.T, h Harness) {
	h.Timeout = cmp.Or(h.Timeout, 30*time.Second)
	if h.Service == nil {
		h.Service = func(*testing.T) string { return "service-1" }
	}
	tests := []struct {
		name  string
		fixed bool // also for registries that never change
		run   func(*testing.T, Harness)
	}{
		{"UnknownServiceIsTold", true, testUnknown},
		{"WatchEndsWithItsContext", true, testWatchEnds},
		{"InvalidInstancesAreRefused", true, testInvalid},
		{"ListedInstancesAreTold", true, testListed},
		{"RegisteredInstancesAreTold", false, testRegister},
		{"RegisterReplaces", false, testReplace},
		{"ARestartTakesItsAddressOver", false, testTakeOver},
		{"DeregisterTwiceIsFine", false, testDeregister},
		{"ServicesAreApart", false, testApart},
		{"EveryWatcherHearsOfTheLastChange", false, testLastChange},
		{"ListsBelongToTheWatcher", false, testOwnership},
	}
	for _, test := range tests {
		if h.Fixed && !test.fixed {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, h)
		})
	}
}

type watcher = watchtest.Watcher[discovery.Instance]

func watch(t *testing.T, h Harness, r discovery.Resolver, service string) *watcher {
	t.Helper()
	w := &watcher{
		T: t, Timeout: h.Timeout, Name: service,
		Same:  func(a, b discovery.Instance) bool { return show(a) == show(b) },
		Show:  func(list ...discovery.Instance) string { return fmt.Sprint(list) },
		Order: func(a, b discovery.Instance) int { return strings.Compare(a.ID, b.ID) },
	}
	return w.Start(r.Watch)
}

// show treats nil and empty Tags and Meta alike: a registry need not tell them apart.
func show(in discovery.Instance) string {
	return fmt.Sprint(in.ID, "|", in.Service, "|", in.Version, "|", in.HTTP, "|", in.GRPC, "|", in.Tags, "|", in.Meta)
}

// instance returns one with addresses that only its id has.
func instance(service, id string) discovery.Instance {
	port := crc32.ChecksumIEEE([]byte(id)) % 20_000
	return discovery.Instance{
		ID: service + "-" + id, Service: service, Version: "v1.2.3",
		HTTP: fmt.Sprint("10.0.0.1:", 10_000+port), GRPC: fmt.Sprint("10.0.0.1:", 40_000+port),
		Tags: []string{"canary", "north"}, Meta: map[string]string{"zone": "a", "note": "ő=1, \"two\""},
	}
}

func register(t *testing.T, r discovery.Registrar, list ...discovery.Instance) {
	t.Helper()
	for _, in := range list {
		if err := r.Register(t.Context(), in); err != nil {
			t.Fatalf("Register(%s): %v", in.ID, err)
		}
	}
}

func deregister(t *testing.T, r discovery.Registrar, in discovery.Instance) {
	t.Helper()
	if err := r.Deregister(t.Context(), in); err != nil {
		t.Fatalf("Deregister(%s): %v", in.ID, err)
	}
}

func testUnknown(t *testing.T, h Harness) {
	w := watch(t, h, h.Open(t), h.Service(t)+"-unknown")
	if list := w.Next(); len(list) != 0 {
		t.Errorf("an unknown service has instances %v, want none, told at once", list)
	}
}

func testWatchEnds(t *testing.T, h Harness) {
	r, service := h.Open(t), h.Service(t)
	w := watch(t, h, r, service)
	w.Next()
	if err := w.Stop(); err != nil {
		t.Errorf("Watch returned %v when its context ended, want nil", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Watch(ended, service, func([]discovery.Instance) {}); err != nil {
		t.Errorf("Watch with an ended context returned %v, want nil", err)
	}
	if h.Fixed {
		return
	}
	register(t, r, instance(service, "a"))
	select {
	case list := <-w.Lists:
		t.Errorf("update was called with %v after Watch had returned", list)
	default:
	}
}

func testInvalid(t *testing.T, h Harness) {
	r := h.Open(t)
	for _, in := range []discovery.Instance{{}, {ID: "a"}, {Service: "b"}} {
		if err := r.Register(t.Context(), in); !errors.Is(err, discovery.ErrInvalid) {
			t.Errorf("Register(%+v) = %v, want ErrInvalid", in, err)
		}
	}
}

func testListed(t *testing.T, h Harness) {
	if len(h.Listed) == 0 {
		return // nothing is listed before the test begins
	}
	w := watch(t, h, h.Open(t), h.Listed[0].Service)
	if list := w.Next(); !slices.EqualFunc(list, h.Listed, w.Same) {
		t.Errorf("first list is %v, want %v", list, h.Listed)
	}
}

func testRegister(t *testing.T, h Harness) {
	r, service := h.Open(t), h.Service(t)
	a, b := instance(service, "a"), instance(service, "b")
	register(t, r, b)
	w := watch(t, h, r, service)
	w.Until(b)
	register(t, r, a)
	w.Until(a, b) // ordered by ID
	deregister(t, r, b)
	w.Until(a)
	deregister(t, r, a)
	w.Until()
}

func testReplace(t *testing.T, h Harness) {
	r, service := h.Open(t), h.Service(t)
	a := instance(service, "a")
	w := watch(t, h, r, service)
	register(t, r, a)
	w.Until(a)
	a.HTTP, a.Version, a.Tags, a.Meta = "10.0.0.2:8081", "v2", nil, nil
	register(t, r, a)
	w.Until(a)
}

// testTakeOver: processes that were killed, on the same registry and on others, leave no ghost
// behind the one that listens at their address now. Other services and addresses stay.
func testTakeOver(t *testing.T, h Harness) {
	r, service := h.Open(t), h.Service(t)
	other, elsewhere := instance(service, "other"), instance(service+"-two", "1")
	register(t, r, other, elsewhere)
	w := watch(t, h, r, service)
	var last discovery.Instance
	for i := range 4 {
		last = instance(service, "1")
		last.ID = fmt.Sprint(service, "-run-", i)
		if i == 2 {
			last.GRPC = "" // one address is enough
		}
		register(t, r, last)
	}
	w.Until(other, last)
	eventless := discovery.Instance{ID: service + "-z", Service: service} // listens nowhere
	register(t, r, eventless, discovery.Instance{ID: service + "-zz", Service: service})
	w.Until(other, last, eventless, discovery.Instance{ID: service + "-zz", Service: service})
	watch(t, h, r, service+"-two").Until(elsewhere)
}

func testDeregister(t *testing.T, h Harness) {
	r, service := h.Open(t), h.Service(t)
	deregister(t, r, instance(service, "never"))
	a := instance(service, "a")
	register(t, r, a)
	for range 2 {
		deregister(t, r, discovery.Instance{ID: a.ID, Service: a.Service}) // the rest does not matter
	}
	watch(t, h, r, service).Until()
}

func testApart(t *testing.T, h Harness) {
	r, service := h.Open(t), h.Service(t)
	longer := service + "-two" // one name is the other's beginning
	one, two := instance(service, "a"), instance(longer, "a")
	register(t, r, one, two)
	watch(t, h, r, service).Until(one)
	watch(t, h, r, longer).Until(two)
	deregister(t, r, one)
	watch(t, h, r, longer).Until(two)
}

func testLastChange(t *testing.T, h Harness) {
	r, service := h.Open(t), h.Service(t)
	var watchers []*watcher
	for range 4 {
		watchers = append(watchers, watch(t, h, r, service))
	}
	var wg sync.WaitGroup
	var want []discovery.Instance
	for i := range 8 {
		in := instance(service, fmt.Sprint(i))
		want = append(want, in)
		wg.Go(func() {
			for range 3 { // the last word of each is that it is there
				if err := errors.Join(r.Register(t.Context(), in), r.Deregister(t.Context(), in), r.Register(t.Context(), in)); err != nil {
					t.Errorf("%s: %v", in.ID, err)
				}
			}
		})
	}
	wg.Wait()
	for _, w := range watchers {
		w.Until(want...)
	}
}

func testOwnership(t *testing.T, h Harness) {
	r, service := h.Open(t), h.Service(t)
	a := instance(service, "a")
	want := a.Clone()
	register(t, r, a)
	a.Tags[0], a.Meta["zone"] = "changed by the registrant", "changed by the registrant"
	list := watch(t, h, r, service).Until(want)
	list[0].Tags[0], list[0].Meta["zone"] = "changed by a watcher", "changed by a watcher"
	watch(t, h, r, service).Until(want)
}
