package kubernetes_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/discovery/discoverytest"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/drivers/kubernetes"
	"github.com/kaptar/kaptar/internal/test/waittest"
)

const limit = time.Minute

// journal is a log that tests can read.
type journal struct{ waittest.Buffer }

func (j *journal) lines() int { return strings.Count(j.String(), "\n") }

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// follow opens a URL and returns the lists told by Watch, each as "id http grpc zone/node" joined
// by commas.
func follow(t *testing.T, url, service string, log *journal) <-chan string {
	t.Helper()
	return watch(t, url, service, log, show)
}

func watch(t *testing.T, url, service string, log *journal, show func([]discovery.Instance) string) <-chan string {
	t.Helper()
	set := new(drivers.Set)
	if log != nil {
		set.Options.Log = log.logger()
	}
	r, err := set.Open(t.Context(), url)
	if err != nil {
		t.Fatalf("Open(%q): %v", url, err)
	}
	lists := make(chan string, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.(discovery.Registry).Watch(ctx, service, func(list []discovery.Instance) { lists <- show(list) }); err != nil {
			t.Errorf("Watch(%s): %v, want nil", service, err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := set.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return lists
}

func show(list []discovery.Instance) string {
	var lines []string
	for _, in := range list {
		line := in.ID + " " + in.HTTP + " " + in.GRPC
		if in.Meta != nil {
			line += " " + in.Meta["zone"] + "/" + in.Meta["node"]
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, ", ")
}

func expect(t *testing.T, lists <-chan string, want string) {
	t.Helper()
	select {
	case got := <-lists:
		if got != want {
			t.Fatalf("list %q, want %q", got, want)
		}
	case <-time.After(limit):
		t.Fatalf("no list within %v, want %q", limit, want)
	}
}

func until(tb testing.TB, what string, done func() bool) { tb.Helper(); waittest.Until(tb, what, done) }

// more waits until the server got n more requests.
func more(t *testing.T, s *apiServer, n int) {
	t.Helper()
	from := len(s.requests())
	until(t, fmt.Sprintf("%d more requests", n), func() bool { return len(s.requests()) >= from+n })
}

const both = "a 10.0.0.1:8080 10.0.0.1:50051"

func TestSlices(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		slices []object
		want   string
	}{
		"unknown": {slices: []object{slice("x", "other", pod("a", "10.0.0.1", true))}},
		"ordered, and several slices merged": {
			slices: []object{
				slice("s2", "user", pod("c", "10.0.0.3", true), pod("a", "10.0.0.1", true)), slice("s1", "user", pod("b", "10.0.0.2", true)),
			},
			want: both + ", b 10.0.0.2:8080 10.0.0.2:50051, c 10.0.0.3:8080 10.0.0.3:50051",
		},
		"conditions that are not said are good": {slices: []object{slice("s", "user", pod("a", "10.0.0.1"))}, want: both},
		"not ready":                             {slices: []object{slice("s", "user", pod("a", "10.0.0.1", false))}},
		"not serving":                           {slices: []object{slice("s", "user", pod("a", "10.0.0.1", true, false))}},
		"terminating":                           {slices: []object{slice("s", "user", pod("a", "10.0.0.1", true, true, true))}},
		"no address":                            {slices: []object{slice("s", "user", with(pod("a", "", true), "addresses", []any{}))}},
		"in two slices, on the move": {
			slices: []object{
				slice("s1", "user", pod("a", "10.0.0.1", false)), slice("s2", "user", pod("a", "10.0.0.1", true)),
				slice("s3", "user", pod("a", "10.0.0.1", true)),
			},
			want: both,
		},
		"in a slice for each port": {
			slices: []object{
				with(slice("s1", "user", pod("a", "10.0.0.1", true)), "ports", []any{port("grpc", 50051)}),
				with(slice("s2", "user", pod("a", "10.0.0.1", true)), "ports", []any{port("http", 8080)}),
			},
			want: both,
		},
		"both families are one instance, IPv4 first": {
			slices: []object{
				with(slice("s1", "user", pod("a", "fd00::1", true)), "addressType", "IPv6"), slice("s2", "user", pod("a", "10.0.0.1", true)),
			},
			want: both,
		},
		"families are not mixed in one instance": {
			slices: []object{
				with(slice("s1", "user", pod("a", "fd00::1", true)), "addressType", "IPv6"),
				with(slice("s2", "user", pod("a", "10.0.0.1", true)), "ports", []any{port("http", 8080)}),
			},
			want: "a 10.0.0.1:8080 ",
		},
		"IPv6": {
			slices: []object{with(slice("s1", "user", pod("a", "fd00::1", true)), "addressType", "IPv6")},
			want:   "a [fd00::1]:8080 [fd00::1]:50051",
		},
		"no pod": {
			slices: []object{
				slice("s", "user", with(pod("", "10.0.0.1"), "targetRef", nil), with(pod("", "10.0.0.2"), "targetRef", object{"kind": "Node", "name": "n"})),
			},
			want: "user@10.0.0.1:8080 10.0.0.1:8080 10.0.0.1:50051, user@10.0.0.2:8080 10.0.0.2:8080 10.0.0.2:50051",
		},
		"zone and node": {
			slices: []object{slice("s", "user", with(with(pod("a", "10.0.0.1", true), "zone", "z1"), "nodeName", "n1"))},
			want:   both + " z1/n1",
		},
		"one port without a name": {
			slices: []object{with(slice("s", "user", pod("a", "10.0.0.1")), "ports", []any{port("", 80)})},
			want:   "a 10.0.0.1:80 ",
		},
		"one port without a name, for gRPC": {
			slices: []object{with(slice("s", "user", pod("a", "10.0.0.1")), "ports", []any{with(port("", 90), "appProtocol", "grpc")})},
			want:   "a  10.0.0.1:90",
		},
		"not TCP, and a name that says nothing": {
			slices: []object{with(slice("s", "user", pod("a", "10.0.0.1")), "ports", []any{with(port("http", 80), "protocol", "UDP"), port("web", 81)})},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newAPIServer(t, true)
			for _, item := range tc.slices {
				s.put(item)
			}
			expect(t, follow(t, s.url(), "user", nil), tc.want)
		})
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{true, false} {
		s := newAPIServer(t, http2)
		s.put(slice("s1", "service-1", with(pod("b", "10.0.0.2", true), "zone", "z"), pod("a", "10.0.0.1", true)))
		conform(t, s.url(), "service-1")
	}
}

// conform expects pods a and b, as TestConformance makes them.
func conform(t *testing.T, url, service string) {
	t.Helper()
	discoverytest.Run(t, discoverytest.Harness{
		Open: func(t *testing.T) discovery.Registry {
			r, err := kubernetes.Open(url, nil)
			if err != nil {
				t.Fatal(err)
			}
			return r
		},
		Service: func(*testing.T) string { return service },
		Fixed:   true,
		Listed: []discovery.Instance{
			{ID: "a", Service: service, HTTP: "10.0.0.1:8080", GRPC: "10.0.0.1:50051"},
			{ID: "b", Service: service, HTTP: "10.0.0.2:8080", GRPC: "10.0.0.2:50051", Meta: map[string]string{"zone": "z"}},
		},
	})
}

// store is where slices are written: the server of this test, or a real one.
type store interface {
	put(item object)
	delete(name string)
}

// changes drives a service through its life; names must be new.
func changes(t *testing.T, s store, url, service string) {
	t.Helper()
	lists := follow(t, url, service, nil)
	expect(t, lists, "")
	s.put(slice(service+"-1", service, pod("a", "10.0.0.1", false)))
	s.put(slice(service+"-2", service, pod("b", "10.0.0.2", true)))
	expect(t, lists, "b 10.0.0.2:8080 10.0.0.2:50051")
	s.put(slice(service+"-1", service, pod("a", "10.0.0.1", true)))
	expect(t, lists, both+", b 10.0.0.2:8080 10.0.0.2:50051")
	s.put(slice(service+"-x", service+"-x", pod("x", "10.0.0.9", true))) // another service, of which ours is the beginning
	s.put(slice(service+"-1", service, pod("a", "10.0.0.1", true, true, false)))
	s.delete(service + "-2")
	expect(t, lists, both)
	s.put(slice(service+"-1", service, with(pod("a", "10.0.0.1", true), "zone", "z2")))
	expect(t, lists, both+" z2/")
	s.delete(service + "-1")
	expect(t, lists, "")
	s.delete(service + "-x")
}

func TestChangesAreTold(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{true, false} {
		s := newAPIServer(t, http2)
		changes(t, s, s.url(), "user")
		if got := s.requests(); !slices.Equal(got, []string{"list", "watch 100"}) {
			t.Errorf("requests %q, want one list and one watch", got)
		}
	}
}

// A watch that ends goes on where it was, also when that is known from a bookmark only.
func TestCutWatchGoesOn(t *testing.T) {
	t.Parallel()
	s := newAPIServer(t, true)
	var log journal
	lists := follow(t, s.url(), "user", &log)
	expect(t, lists, "")
	until(t, "a watch", func() bool { return s.watches() == 1 })
	s.put(slice("s", "user", pod("a", "10.0.0.1", true)))
	expect(t, lists, both)
	s.do(func() { s.cuts++ })
	until(t, "a watch from the event", func() bool { return slices.Contains(s.requests(), "watch 101") && s.watches() == 1 })
	s.bookmark() // all before version 111 is too old now
	s.put(slice("other", "other", pod("a", "10.0.0.1", true)))
	s.put(slice("s", "user", pod("a", "10.0.0.2", true)))
	expect(t, lists, "a 10.0.0.2:8080 10.0.0.2:50051")
	s.do(func() { s.cuts++ })
	until(t, "a watch from the last event", func() bool { return slices.Contains(s.requests(), "watch 113") && s.watches() == 1 })
	s.bookmark()
	until(t, "the bookmark is sent", func() bool { return s.sent() == 123 })
	s.do(func() { s.cuts++ })
	until(t, "a watch from the bookmark", func() bool { return slices.Contains(s.requests(), "watch 123") && s.watches() == 1 })
	s.put(slice("s", "user", pod("a", "10.0.0.1", true)))
	expect(t, lists, both)
	if got := strings.Count(strings.Join(s.requests(), " "), "list"); got != 1 {
		t.Errorf("%d lists, want 1: a watch that ended goes on", got)
	}
	if log.lines() > 0 {
		t.Errorf("log %q, want nothing: that is how watches are", log.String())
	}
}

// What changed while the version became too old is in the next list, and what did not is not told.
func TestGoneListsAgain(t *testing.T) {
	t.Parallel()
	for name, gone := range map[string]func(*apiServer){
		"as an event": func(*apiServer) {},
		"as the answer": func(s *apiServer) {
			s.refuse["watch"] = http.StatusGone
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newAPIServer(t, true)
			s.put(slice("s", "user", pod("a", "10.0.0.1", true)))
			s.put(slice("s2", "user", pod("b", "10.0.0.2", true)))
			var log journal
			lists := follow(t, s.url(), "user", &log)
			expect(t, lists, both+", b 10.0.0.2:8080 10.0.0.2:50051")
			until(t, "a watch", func() bool { return s.watches() == 1 })
			s.do(func() {
				s.cuts++
				s.version += 50
				s.oldest = s.version
				delete(s.items, "s2") // with no event that could tell
				gone(s)
			})
			expect(t, lists, both)
			s.do(func() { delete(s.refuse, "watch") })
			until(t, "a watch", func() bool { return s.watches() == 1 })
			s.put(slice("s", "user", pod("a", "10.0.0.2", true)))
			expect(t, lists, "a 10.0.0.2:8080 10.0.0.2:50051")
			if log.lines() > 0 {
				t.Errorf("log %q, want nothing: that is how watches are", log.String())
			}
		})
	}
}

func TestFailuresKeepTheList(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fail, heal func(*testing.T, *apiServer)
		want       []string // in the log
	}{
		"token refused": {
			fail: func(_ *testing.T, s *apiServer) { s.do(func() { s.token = "token-2"; s.cuts++ }) },
			heal: func(t *testing.T, s *apiServer) { s.write(t, "token", "token-2") },
			want: []string{"endpointslices of service user in namespace shop at https://127.0.0.1", "401 Unauthorized", "token_file=/", "is not accepted"},
		},
		"token file gone": {
			fail: func(t *testing.T, s *apiServer) {
				s.write(t, "token", "")
				s.do(func() { s.cuts++ })
			},
			heal: func(t *testing.T, s *apiServer) { s.write(t, "token", "token-1") },
			want: []string{"401 Unauthorized"},
		},
		"list forbidden": {
			fail: func(_ *testing.T, s *apiServer) {
				s.do(func() { s.refuse["list"] = 403; s.oldest = s.version + 1; s.cuts++ })
			},
			heal: func(_ *testing.T, s *apiServer) { s.do(func() { delete(s.refuse, "list"); s.oldest = 0 }) },
			want: []string{"403 Forbidden: refused for the test", "verb list", "resource endpointslices of apiGroup discovery.k8s.io in namespace shop"},
		},
		"watch forbidden": {
			fail: func(_ *testing.T, s *apiServer) { s.do(func() { s.refuse["watch"] = 403; s.cuts++ }) },
			heal: func(_ *testing.T, s *apiServer) { s.do(func() { delete(s.refuse, "watch") }) },
			want: []string{"403 Forbidden", "verb watch"},
		},
		"overloaded": {
			fail: func(_ *testing.T, s *apiServer) {
				s.do(func() { s.refuse["watch"] = 429; s.refuse["list"] = 500; s.cuts++ })
			},
			heal: func(_ *testing.T, s *apiServer) { s.do(func() { clear(s.refuse) }) },
			want: []string{"429 Too Many Requests"},
		},
		"silent": {
			fail: func(_ *testing.T, s *apiServer) { s.do(func() { s.silent = true; s.cuts++ }) },
			heal: func(_ *testing.T, s *apiServer) { s.do(func() { s.silent = false }) },
			want: []string{"timeout"},
		},
		"garbage": {
			fail: func(_ *testing.T, s *apiServer) { s.do(func() { s.garbage = "<html>502</html>"; s.cuts++ }) },
			heal: func(_ *testing.T, s *apiServer) { s.do(func() { s.garbage = "" }) },
			want: []string{"an event cannot be read", "invalid character"},
		},
		"an event without version": {
			fail: func(_ *testing.T, s *apiServer) {
				s.do(func() { s.garbage = `{"type":"ADDED","object":{}}`; s.cuts++ })
			},
			heal: func(_ *testing.T, s *apiServer) { s.do(func() { s.garbage = "" }) },
			want: []string{"an event cannot be read"},
		},
		"an event of another kind": {
			fail: func(_ *testing.T, s *apiServer) { s.do(func() { s.garbage = `[1]`; s.cuts++ }) },
			heal: func(_ *testing.T, s *apiServer) { s.do(func() { s.garbage = "" }) },
			want: []string{"an event cannot be read"},
		},
		"an error as event": {
			fail: func(_ *testing.T, s *apiServer) {
				s.do(func() { s.garbage = `{"type":"ERROR","object":{"code":500,"message":"etcd is away"}}`; s.cuts++ })
			},
			heal: func(_ *testing.T, s *apiServer) { s.do(func() { s.garbage = "" }) },
			want: []string{"500: etcd is away"},
		},
		"list cannot be read": {
			fail: func(_ *testing.T, s *apiServer) {
				s.do(func() { s.listed = `{"kind":"EndpointSliceList"}`; s.oldest = s.version + 1; s.cuts++ })
			},
			heal: func(_ *testing.T, s *apiServer) { s.do(func() { s.listed = ""; s.oldest = 0 }) },
			want: []string{"no resourceVersion"},
		},
		"authority unknown": {
			fail: func(t *testing.T, s *apiServer) {
				s.write(t, "ca.crt", "nothing")
				s.do(func() { s.cuts++ })
			},
			heal: func(t *testing.T, s *apiServer) { s.write(t, "ca.crt", s.pem()) },
			want: []string{"ca: ", "no certificate in PEM form"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newAPIServer(t, true)
			s.put(slice("s", "user", pod("a", "10.0.0.1", true)))
			var log journal
			url := s.url()
			if name == "silent" {
				url += "&timeout=1s"
			}
			lists := follow(t, url, "user", &log)
			expect(t, lists, both)
			until(t, "a watch", func() bool { return s.watches() == 1 })
			tc.fail(t, s)
			until(t, "the log says that it failed", func() bool { return log.lines() > 0 })
			if !strings.Contains(name, "authority") { // nobody is asked then
				more(t, s, 2)
			}
			got := log.String()
			for _, want := range append(tc.want, "level=WARN", "service user") {
				if !strings.Contains(got, want) {
					t.Errorf("log %q, want %q in it", got, want)
				}
			}
			if begun, ended, others := waittest.Outages(got, "kubernetes"); begun != 1 || ended+others != 0 || strings.Contains(got, "token-1") {
				t.Errorf("log %q, want one outage and no token", got)
			}
			tc.heal(t, s)
			until(t, "a watch", func() bool { return s.watches() == 1 })
			s.bookmark() // it need not wait until the watch counts as one that works
			until(t, "the log says that it is over", func() bool { return strings.Contains(log.String(), "kubernetes is back") })
			s.put(slice("s", "user", pod("a", "10.0.0.2", true))) // had there been a list in between, it would come before this
			expect(t, lists, "a 10.0.0.2:8080 10.0.0.2:50051")
		})
	}
}

// A server that does not answer yet is waited for, and so is one that is not there.
func TestFirstListWaitsForTheServer(t *testing.T) {
	t.Parallel()
	s := newAPIServer(t, true)
	s.put(slice("s", "user", pod("a", "10.0.0.1", true)))
	s.do(func() { s.refuse["list"] = http.StatusServiceUnavailable })
	lists := follow(t, s.url(), "user", nil)
	more(t, s, 3)
	select {
	case got := <-lists:
		t.Fatalf("list %q, but the server has never answered", got)
	default:
	}
	s.do(func() { clear(s.refuse) })
	expect(t, lists, both)

	var log journal
	follow(t, "kubernetes://shop?server=http://127.0.0.1:1", "user", &log)
	until(t, "the log says that nobody is there", func() bool {
		return strings.Contains(log.String(), "list endpointslices of service user in namespace shop at http://127.0.0.1:1: dial tcp")
	})
}

// A server that says when to come again is heard.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	s := newAPIServer(t, true)
	s.do(func() { s.refuse["list"], s.after = http.StatusTooManyRequests, "2" })
	began := time.Now()
	follow(t, s.url(), "user", nil)
	until(t, "a second request", func() bool { return len(s.requests()) >= 2 })
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("asked again after %v, want 2s as the server said", took)
	}
}

func TestServerThatIsNotTrusted(t *testing.T) {
	t.Parallel()
	s := newAPIServer(t, true)
	var log journal
	follow(t, "kubernetes://shop?server="+s.http.URL+"&token_file="+s.file("token"), "user", &log)
	until(t, "the log says why", func() bool { return strings.Contains(log.String(), "certificate") })
	if got := s.requests(); len(got) > 0 {
		t.Errorf("requests %q came through to a server that nothing vouches for", got)
	}
}

func TestMissingToken(t *testing.T) {
	t.Parallel()
	s := newAPIServer(t, true)
	var log journal
	follow(t, "kubernetes://shop?server="+s.http.URL+"&ca="+s.file("ca.crt"), "user", &log)
	until(t, "the log says why", func() bool { return strings.Contains(log.String(), "no token was sent, name one with token_file") })
}

// The host of an external call is looked up in the registry first.
func TestNamesThatAreNoServices(t *testing.T) {
	t.Parallel()
	s := newAPIServer(t, true)
	for _, name := range []string{"api.bank.example", "", "a b", "-a", "a-", strings.Repeat("a", 64), "a,b"} {
		expect(t, follow(t, s.url(), name, nil), "")
	}
	if got := s.requests(); len(got) > 0 {
		t.Errorf("requests %q, want none", got)
	}
}

func TestPortsThatAreNotNamedAreLogged(t *testing.T) {
	t.Parallel()
	s := newAPIServer(t, true)
	item := with(slice("s", "user", pod("a", "10.0.0.1")), "ports", []any{port("web", 80), port("metrics", 81)})
	s.put(item)
	var log journal
	lists := follow(t, s.url(), "user", &log)
	expect(t, lists, "")
	until(t, "a watch", func() bool { return s.watches() == 1 })
	s.put(clone(item))
	s.put(slice("s", "user", pod("a", "10.0.0.1", true)))
	expect(t, lists, both)
	if got := log.String(); log.lines() != 1 || !strings.Contains(got, "no port named http or grpc") {
		t.Errorf("log %q, want one line about ports", got)
	}
}

// Tokens go to the server that was named, not to one that it points to.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	s := newAPIServer(t, true)
	s.do(func() { s.refuse["list"] = http.StatusTemporaryRedirect })
	var log journal
	follow(t, s.url(), "user", &log)
	until(t, "the log says so", func() bool { return strings.Contains(log.String(), "307 Temporary Redirect") })
}
