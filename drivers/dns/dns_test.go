package dns_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/discovery/discoverytest"
	"github.com/kaptar/kaptar/drivers/dns"
	"github.com/kaptar/kaptar/internal/test/waittest"
)

const (
	interval = 20 * time.Millisecond
	limit    = time.Minute
)

func registry(t *testing.T, opts dns.Options) *dns.Registry {
	t.Helper()
	if opts.Interval == 0 {
		opts.Interval = interval
	}
	r, err := dns.New(opts)
	if err != nil {
		t.Fatalf("New(%+v): %v", opts, err)
	}
	return r
}

// follow returns the lists told by Watch, each as "id http grpc" joined by commas.
func follow(t *testing.T, r discovery.Resolver, service string) <-chan string {
	t.Helper()
	lists := make(chan string, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Watch(ctx, service, func(list []discovery.Instance) { lists <- show(list) }); err != nil {
			t.Errorf("Watch(%s): %v, want nil", service, err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return lists
}

func show(list []discovery.Instance) string {
	var lines []string
	for _, in := range list {
		lines = append(lines, in.ID+" "+in.HTTP+" "+in.GRPC)
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

// rounds waits until the server was asked n more times.
func rounds(t *testing.T, s *nameServer, n int) {
	t.Helper()
	until(t, fmt.Sprintf("%d more questions", n), func() func() bool {
		from := len(s.questions())
		return func() bool { return len(s.questions()) >= from+n }
	}())
}

func until(tb testing.TB, what string, done func() bool) { tb.Helper(); waittest.Until(tb, what, done) }

func TestRecords(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		opts    dns.Options
		records map[string][]dnsmessage.ResourceBody
		want    string
	}{
		"http and grpc, joined by address": {
			records: map[string][]dnsmessage.ResourceBody{
				"_http._tcp.user.shop.": {srv("b.shop.", 8080), srv("a.shop.", 8081)},
				"_grpc._tcp.user.shop.": {srv("a.shop.", 50051), srv("c.shop.", 50053)},
				"a.shop.":               {a("10.0.0.1")}, "b.shop.": {a("10.0.0.2")}, "c.shop.": {a("10.0.0.3")},
			},
			want: "user@10.0.0.1:8081 10.0.0.1:8081 10.0.0.1:50051, user@10.0.0.2:8080 10.0.0.2:8080 , user@10.0.0.3:50053  10.0.0.3:50053",
		},
		"a target of several addresses is as many instances": {
			records: map[string][]dnsmessage.ResourceBody{
				"_http._tcp.user.shop.": {srv("all.shop.", 80)}, "all.shop.": {a("10.0.0.2"), a("10.0.0.1")},
			},
			want: "user@10.0.0.1:80 10.0.0.1:80 , user@10.0.0.2:80 10.0.0.2:80 ",
		},
		"several ports of one address": {
			records: map[string][]dnsmessage.ResourceBody{
				"_http._tcp.user.shop.": {srv("a.shop.", 82), srv("a.shop.", 81), srv("b.shop.", 81), srv("b.shop.", 83)},
				"_grpc._tcp.user.shop.": {srv("a.shop.", 91), srv("a.shop.", 83)},
				"a.shop.":               {a("10.0.0.1")}, "b.shop.": {a("10.0.0.1")},
			},
			want: "user@10.0.0.1:81 10.0.0.1:81 10.0.0.1:91, user@10.0.0.1:82 10.0.0.1:82 , user@10.0.0.1:83 10.0.0.1:83 10.0.0.1:83",
		},
		"only the best priority, no target that says no, no dead one": {
			records: map[string][]dnsmessage.ResourceBody{
				"_http._tcp.user.shop.": {srvOf("b.shop.", 80, 2), srvOf("a.shop.", 80, 1), srvOf(".", 80, 1), srvOf("gone.shop.", 80, 1)},
				"a.shop.":               {a("10.0.0.1")}, "b.shop.": {a("10.0.0.2")},
			},
			want: "user@10.0.0.1:80 10.0.0.1:80 ",
		},
		"a host with both kinds of address is one instance": {
			records: map[string][]dnsmessage.ResourceBody{
				"_http._tcp.user.shop.": {srv("a.shop.", 80), srv("b.shop.", 80)},
				"a.shop.":               {aaaa("fd00::1"), a("10.0.0.1")}, "b.shop.": {aaaa("fd00::2")},
			},
			want: "user@10.0.0.1:80 10.0.0.1:80 , user@[fd00::2]:80 [fd00::2]:80 ",
		},
		"ports that the records do not name": {
			opts: dns.Options{HTTP: 8080, GRPC: 50051},
			records: map[string][]dnsmessage.ResourceBody{
				"_http._tcp.user.shop.": {srv("a.shop.", 80)}, "a.shop.": {a("10.0.0.1")},
				"user.shop.": {a("10.0.0.9")},
			},
			want: "user@10.0.0.1:80 10.0.0.1:80 10.0.0.1:50051",
		},
		"records of grpc alone, which come before the parameter": {
			opts: dns.Options{GRPC: 50051},
			records: map[string][]dnsmessage.ResourceBody{
				"_grpc._tcp.user.shop.": {srv("a.shop.", 90)}, "a.shop.": {a("10.0.0.1")}, "user.shop.": {a("10.0.0.9")},
			},
			want: "user@10.0.0.1:90  10.0.0.1:90",
		},
		"addresses alone": {
			opts:    dns.Options{HTTP: 8080, GRPC: 50051},
			records: map[string][]dnsmessage.ResourceBody{"user.shop.": {a("10.0.0.2"), a("10.0.0.1")}},
			want:    "user@10.0.0.1:8080 10.0.0.1:8080 10.0.0.1:50051, user@10.0.0.2:8080 10.0.0.2:8080 10.0.0.2:50051",
		},
		"addresses alone, only grpc": {
			opts:    dns.Options{GRPC: 50051},
			records: map[string][]dnsmessage.ResourceBody{"user.shop.": {aaaa("fd00::1")}},
			want:    "user@[fd00::1]:50051  [fd00::1]:50051",
		},
		"addresses without a port": {
			records: map[string][]dnsmessage.ResourceBody{"user.shop.": {a("10.0.0.2")}},
		},
		"plain": {
			opts: dns.Options{SRV: "plain", GRPC: 50051},
			records: map[string][]dnsmessage.ResourceBody{
				"user.shop.": {srv("n1.shop.", 8080)}, "n1.shop.": {a("10.0.0.1")},
				"_http._tcp.user.shop.": {srv("n1.shop.", 1)},
			},
			want: "user@10.0.0.1:8080 10.0.0.1:8080 10.0.0.1:50051",
		},
		"none": {
			opts: dns.Options{SRV: "none", HTTP: 80},
			records: map[string][]dnsmessage.ResourceBody{
				"user.shop.": {a("10.0.0.1")}, "_http._tcp.user.shop.": {srv("user.shop.", 1)},
			},
			want: "user@10.0.0.1:80 10.0.0.1:80 ",
		},
		"unknown": {opts: dns.Options{HTTP: 80}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newNameServer(t)
			for name, bodies := range tc.records {
				s.set(name, bodies...)
			}
			tc.opts.Server, tc.opts.Domain = s.addr, "shop"
			expect(t, follow(t, registry(t, tc.opts), "user"), tc.want)
		})
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	s := newNameServer(t)
	s.set("_http._tcp.service-1.", srv("b.", 8082), srv("a.", 8081))
	s.set("_grpc._tcp.service-1.", srv("a.", 50051))
	s.set("a.", a("10.0.0.1"))
	s.set("b.", a("10.0.0.2"))
	discoverytest.Run(t, discoverytest.Harness{
		Open: func(t *testing.T) discovery.Registry {
			r, err := dns.Open("dns://" + s.addr + "/?interval=10ms")
			if err != nil {
				t.Fatal(err)
			}
			return r
		},
		Fixed: true,
		Listed: []discovery.Instance{
			{ID: "service-1@10.0.0.1:8081", Service: "service-1", HTTP: "10.0.0.1:8081", GRPC: "10.0.0.1:50051"},
			{ID: "service-1@10.0.0.2:8082", Service: "service-1", HTTP: "10.0.0.2:8082"},
		},
	})
}

func TestChangesAreTold(t *testing.T) {
	t.Parallel()
	s := newNameServer(t)
	lists := follow(t, registry(t, dns.Options{Server: s.addr, Domain: "shop.", HTTP: 80}), "user")
	expect(t, lists, "")
	s.set("user.shop.", a("10.0.0.1"), a("10.0.0.2"))
	expect(t, lists, "user@10.0.0.1:80 10.0.0.1:80 , user@10.0.0.2:80 10.0.0.2:80 ")
	s.set("user.shop.", a("10.0.0.2"), a("10.0.0.1")) // the same in another order
	rounds(t, s, 12)
	s.set("user.shop.", a("10.0.0.2"))
	expect(t, lists, "user@10.0.0.2:80 10.0.0.2:80 ")
	s.do(func(s *nameServer) {
		s.records["_http._tcp.user.shop."] = []dnsmessage.ResourceBody{srv("user.shop.", 80)}
		s.records["_grpc._tcp.user.shop."] = []dnsmessage.ResourceBody{srv("user.shop.", 90)}
	})
	expect(t, lists, "user@10.0.0.2:80 10.0.0.2:80 10.0.0.2:90") // with the ID of before
	s.do(func(s *nameServer) { clear(s.records) })
	expect(t, lists, "")
}

func TestFailuresKeepTheList(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ fail, heal func(*nameServer) }{
		"SERVFAIL": {
			func(s *nameServer) { s.rcode = dnsmessage.RCodeServerFailure },
			func(s *nameServer) { s.rcode = 0 },
		},
		"REFUSED": {
			func(s *nameServer) { s.rcode = dnsmessage.RCodeRefused },
			func(s *nameServer) { s.rcode = 0 },
		},
		"SERVFAIL for one kind of record": {
			func(s *nameServer) { s.rcode, s.broken = dnsmessage.RCodeServerFailure, "_grpc" },
			func(s *nameServer) { s.rcode = 0 },
		},
		"SERVFAIL for a target": {
			func(s *nameServer) { s.rcode, s.broken = dnsmessage.RCodeServerFailure, "a.shop" },
			func(s *nameServer) { s.rcode = 0 },
		},
		"silence": {
			func(s *nameServer) { s.silent = true },
			func(s *nameServer) { s.silent = false },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newNameServer(t)
			s.set("_http._tcp.user.shop.", srv("a.shop.", 80))
			s.set("a.shop.", a("10.0.0.1"))
			r := registry(t, dns.Options{Server: s.addr, Domain: "shop", Timeout: 300 * time.Millisecond})
			lists := follow(t, r, "user")
			expect(t, lists, "user@10.0.0.1:80 10.0.0.1:80 ")
			s.do(tc.fail)
			until(t, "the failure", func() bool { return r.Healthy() != nil })
			rounds(t, s, 12)
			if err := r.Healthy(); err == nil || !strings.Contains(err.Error(), "dns: ") {
				t.Errorf("Healthy = %v while it fails, want an error that says of what", err)
			}
			s.do(tc.heal)
			until(t, "its end", func() bool { return r.Healthy() == nil })
			rounds(t, s, 6)
			if err := r.Healthy(); err != nil {
				t.Errorf("Healthy = %v, want nil again", err)
			}
			s.set("a.shop.", a("10.0.0.2")) // had there been a list in between, it would come before this
			expect(t, lists, "user@10.0.0.2:80 10.0.0.2:80 ")
		})
	}
}

// A server that is not there yet is waited for.
func TestFirstListWaitsForTheServer(t *testing.T) {
	t.Parallel()
	s := newNameServer(t)
	s.set("user.", a("10.0.0.1"))
	s.do(func(s *nameServer) { s.rcode = dnsmessage.RCodeServerFailure })
	lists := follow(t, registry(t, dns.Options{Server: s.addr, SRV: "none", HTTP: 80}), "user")
	rounds(t, s, 4)
	select {
	case got := <-lists:
		t.Fatalf("list %q, but the server has never answered", got)
	default:
	}
	s.do(func(s *nameServer) { s.rcode = 0 })
	expect(t, lists, "user@10.0.0.1:80 10.0.0.1:80 ")
}

// One lost packet is the rule of UDP and no outage.
func TestOneFailureIsNoOutage(t *testing.T) {
	t.Parallel()
	s := newNameServer(t)
	s.set("user.", a("10.0.0.1"))
	s.do(func(s *nameServer) { s.silent = true })
	opts := dns.Options{Server: s.addr, SRV: "none", HTTP: 80, Timeout: 2 * time.Second}
	r := registry(t, opts)
	lists := follow(t, r, "user")
	until(t, "the first question", func() bool { return len(s.questions()) > 0 })
	s.do(func(s *nameServer) { s.silent = false })
	expect(t, lists, "user@10.0.0.1:80 10.0.0.1:80 ")
	if err := r.Healthy(); err != nil {
		t.Errorf("Healthy = %v, want nil", err)
	}
}

func TestLongAnswers(t *testing.T) {
	t.Parallel()
	var records []dnsmessage.ResourceBody
	for i := range 200 {
		records = append(records, a(fmt.Sprintf("10.0.1.%d", i)))
	}
	for name, tc := range map[string]struct {
		protocol string
		server   func(*nameServer)
		network  string
		want     int
	}{
		"cut, goes on over TCP":         {"", func(s *nameServer) { s.cut = true }, "", 200},
		"silently short, TCP only":      {"tcp", func(s *nameServer) { s.short = true }, "tcp", 200},
		"silently short, UDP is fooled": {"udp", func(s *nameServer) { s.short = true }, "udp", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newNameServer(t)
			s.set("user.", records...)
			s.do(tc.server)
			r := registry(t, dns.Options{Server: s.addr, SRV: "none", HTTP: 80, Protocol: tc.protocol})
			select {
			case got := <-follow(t, r, "user"):
				if n := strings.Count(got, "@"); n != tc.want {
					t.Errorf("%d instances, want %d", n, tc.want)
				}
			case <-time.After(limit):
				t.Fatal("no list")
			}
			if asked := s.questions(); slices.ContainsFunc(asked, func(q string) bool { return !strings.HasPrefix(q, tc.network) }) {
				t.Errorf("asked %q, want all over %s", asked, tc.network)
			}
		})
	}
}

// Consul's DNS server leaves records out over UDP, see TestConsulWithManyInstances.
func TestPlainUsesTCP(t *testing.T) {
	t.Parallel()
	s := newNameServer(t)
	expect(t, follow(t, registry(t, dns.Options{Server: s.addr, SRV: "plain"}), "user"), "")
	if got := s.questions()[0]; got != "tcp SRV user." {
		t.Errorf("first question %q, want tcp SRV user.", got)
	}
}

// The host of an external call is looked up in the registry first: it must not become a name in the
// domain.
func TestNamesThatAreNoServices(t *testing.T) {
	t.Parallel()
	s := newNameServer(t)
	for _, name := range []string{"api.bank.example", "", "a b", "-a", strings.Repeat("a", 64), "é"} {
		s.set(strings.ToLower(name)+".shop.", a("10.0.0.1"))
		expect(t, follow(t, registry(t, dns.Options{Server: s.addr, Domain: "shop", HTTP: 80}), name), "")
	}
	if asked := s.questions(); len(asked) > 0 {
		t.Errorf("asked %q, want nothing", asked)
	}
}

func TestSystemResolver(t *testing.T) {
	t.Parallel()
	// localhost is in the hosts file of every machine, so that no server is needed.
	expect(t, follow(t, registry(t, dns.Options{SRV: "none", HTTP: 80}), "localhost"), "localhost@127.0.0.1:80 127.0.0.1:80 ")
}
