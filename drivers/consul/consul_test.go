package consul_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/discovery/discoverytest"
	"github.com/kaptar/kaptar/drivers/consul"
	"github.com/kaptar/kaptar/internal/identity"
	"github.com/kaptar/kaptar/internal/listen"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	url := servertest.Shared(t, servers.Consul).URL()
	for _, check := range []string{"none", "ttl"} { // nobody listens at the suite's addresses
		t.Run(check, func(t *testing.T) {
			t.Parallel()
			discoverytest.Run(t, discoverytest.Harness{
				Open: func(t *testing.T) discovery.Registry {
					return open(t, url+"?check="+check, nil)
				},
				Service: name, Timeout: timeout,
			})
		})
	}
}

// What an instance is at Consul is part of the contract: other programs read it.
func TestRegistration(t *testing.T) {
	t.Parallel()
	s := servertest.Shared(t, servers.Consul)
	r, service := open(t, s.URL(), nil), name(t)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	register(t, r, discovery.Instance{
		ID: service + "-1", Service: service, Version: "v2", HTTP: "127.0.0.1:" + port, GRPC: "127.0.0.1:2",
		Tags: []string{"canary"}, Meta: map[string]string{"zone": "a"},
	})
	// The catalog shows it at once, and green before the first check.
	got := rest(t, s, http.MethodGet, "/v1/health/checks/"+service, nil)
	for _, want := range []string{`"CheckID":"service:` + service + `-1"`, `"Type":"http"`, `"Interval":"2s"`, `"Timeout":"1s"`, `"Status":"passing"`} {
		if !strings.Contains(got, want) {
			t.Errorf("the checks are %s, want %s in them", got, want)
		}
	}
	got = rest(t, s, http.MethodGet, "/v1/agent/service/"+service+"-1", nil)
	for _, want := range []string{
		`"ID":"` + service + `-1"`, `"Service":"` + service + `"`, `"canary"`, `"Address":"127.0.0.1"`, `"Port":` + port,
		`"version":"v2"`, `"http":"127.0.0.1:` + port + `"`, `"grpc":"127.0.0.1:2"`, `"zone":"a"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the agent has %s, want %s in it", got, want)
		}
	}
}

// An instance that says it is not ready leaves the list, and comes back; the real agent asks a real
// server.
func TestHTTPCheck(t *testing.T) {
	t.Parallel()
	s := servertest.Shared(t, servers.Consul)
	var sick, once atomic.Bool
	var asked atomic.Value
	var checks atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Method + " " + r.URL.Path)
		checks.Add(1)
		if sick.Load() || once.CompareAndSwap(true, false) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	service := name(t)
	in := discovery.Instance{ID: service + "-1", Service: service, HTTP: server.Listener.Addr().String()}
	r, every := open(t, s.URL()+"?interval=1s", nil), open(t, s.URL()+"?passing=false", nil)
	register(t, r, in)
	w, all := watch(t, r, service), watch(t, every, service)
	w.until(in)
	all.until(in)
	for range 2 {
		sick.Store(true)
		w.until()
		sick.Store(false)
		w.until(in)
	}
	once.Store(true)
	seen := checks.Load()
	eventually(t, "a failed check and two good ones", func() bool { return checks.Load() >= seen+3 })
	w.quiet(time.Second)             // one miss is no reason
	all.quiet(10 * time.Millisecond) // who takes all sees no change
	if asked.Load() != "GET /readyz" {
		t.Errorf("Consul asked %v, want GET /readyz", asked.Load())
	}
	server.Close() // as a process that dies
	w.until()
}

// TestTLSCheck: the agent asks over TLS, and takes a certificate whose name it does not know.
func TestTLSCheck(t *testing.T) {
	t.Parallel()
	s := servertest.Shared(t, servers.Consul)
	var sick atomic.Bool
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	ca, err := identity.NewAuthority("example.org")
	if err != nil {
		t.Fatal(err)
	}
	text, err := ca.Issue("order-service", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13, ClientAuth: tls.VerifyClientCertIfGiven}
	server.StartTLS()
	defer server.Close()
	service := name(t)
	in := discovery.Instance{ID: service + "-1", Service: service, HTTP: server.Listener.Addr().String(), Tags: []string{"https"}}
	r := open(t, s.URL()+"?interval=1s", nil)
	register(t, r, in)
	w := watch(t, r, service)
	w.until(in)
	sick.Store(true)
	w.until()
	sick.Store(false)
	w.until(in)
}

func TestGRPCCheck(t *testing.T) {
	t.Parallel()
	s := servertest.Shared(t, servers.Consul)
	l, err := listen.TCP("127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	server, state := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, state)
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	service := name(t)
	in := discovery.Instance{ID: service + "-1", Service: service, GRPC: l.Addr().String()}
	r := open(t, s.URL()+"?interval=1s", nil)
	register(t, r, in)
	w := watch(t, r, service)
	w.until(in)
	state.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	w.until()
	state.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
	w.until(in)
}

// Without an address to ask, the process itself says that it lives, until it does not.
func TestTTLCheck(t *testing.T) {
	t.Parallel()
	s := servertest.Shared(t, servers.Consul)
	r, service := open(t, s.URL()+"?ttl=8s", nil), name(t) // a third of it passes between two signs of life
	in := discovery.Instance{ID: service + "-1", Service: service}
	register(t, r, in)
	w := watch(t, open(t, s.URL(), nil), service)
	w.until(in)
	w.quiet(18 * time.Second)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	w.until()
	if err := r.Register(t.Context(), in); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("Register after Close: %v, want an error that says so", err)
	}
	// Who registers it in another way is rid of the red check.
	register(t, open(t, s.URL()+"?check=none", nil), in)
	w.until(in)
}

// An agent that does not know an instance any more is told again, and one that was told to forget
// is not.
func TestKeepers(t *testing.T) {
	t.Parallel()
	s := servertest.Shared(t, servers.Consul)
	for _, check := range []string{"none", "ttl"} {
		t.Run(check, func(t *testing.T) {
			t.Parallel()
			var log logged
			r, service := open(t, s.URL()+"?check="+check, &log), name(t)
			kept := discovery.Instance{ID: service + "-1", Service: service, HTTP: "127.0.0.1:1", Meta: map[string]string{"a": "b"}}
			gone := discovery.Instance{ID: service + "-2", Service: service}
			w := watch(t, r, service)
			register(t, r, gone)
			register(t, r, kept)
			w.until(kept, gone)
			if err := r.Deregister(t.Context(), gone); err != nil {
				t.Fatalf("Deregister: %v", err)
			}
			w.until(kept)
			if got := rest(t, s, http.MethodGet, "/v1/agent/services", nil); strings.Contains(got, gone.ID) {
				t.Errorf("the agent has %s after Deregister: %s", gone.ID, got)
			}
			rest(t, s, http.MethodPut, "/v1/agent/service/deregister/"+kept.ID, nil)
			log.waitFor(t, "registered again") // perhaps before a watch hears that it was gone
			watch(t, r, service).until(kept)
			<-time.After(3500 * time.Millisecond) // as long as a keeper waits at most
			if got := strings.Count(log.String(), "\n"); got != 1 || !strings.Contains(log.String(), "registered again") || !strings.Contains(log.String(), kept.ID) {
				t.Errorf("the log is\n%s, want one line that names %s", &log, kept.ID)
			}
		})
	}
}

// Services of other programs resolve, in whatever way they say where they listen.
func TestForeignServices(t *testing.T) {
	t.Parallel()
	s := servertest.Shared(t, servers.Consul)
	type m = map[string]any
	for what, tc := range map[string]struct {
		entry      m
		http, grpc string
		version    string
		meta       map[string]string
	}{
		"no address":   {m{"Port": 5000}, "127.0.0.1:5000", "", "", nil}, // as python-consul does; the node's address
		"address":      {m{"Address": "10.1.1.1", "Port": 5000, "Tags": []string{"x"}}, "10.1.1.1:5000", "", "", nil},
		"a name":       {m{"Address": "flask.example", "Port": 80}, "flask.example:80", "", "", nil},
		"IPv6":         {m{"Address": "fd00::1", "Port": 80}, "[fd00::1]:80", "", "", nil},
		"no port":      {m{"Address": "10.1.1.1"}, "", "", "", nil},
		"tag grpc":     {m{"Address": "10.1.1.1", "Port": 5000, "Tags": []string{"grpc"}}, "", "10.1.1.1:5000", "", nil},
		"meta true":    {m{"Address": "10.1.1.1", "Port": 5000, "Meta": m{"grpc": "true"}}, "", "10.1.1.1:5000", "", nil},
		"meta 1":       {m{"Address": "10.1.1.1", "Port": 5000, "Meta": m{"grpc": "1"}}, "", "10.1.1.1:5000", "", nil},
		"meta false":   {m{"Address": "10.1.1.1", "Port": 5000, "Meta": m{"grpc": "false"}}, "10.1.1.1:5000", "", "", nil},
		"meta port":    {m{"Address": "10.1.1.1", "Port": 5000, "Meta": m{"grpc": "5001"}}, "10.1.1.1:5000", "10.1.1.1:5001", "", nil},
		"meta address": {m{"Port": 5000, "Meta": m{"grpc": "10.2.2.2:9"}}, "127.0.0.1:5000", "10.2.2.2:9", "", nil},
		"other meta":   {m{"Port": 5000, "Meta": m{"version": "v7", "zone": "a"}}, "127.0.0.1:5000", "", "v7", map[string]string{"zone": "a"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			service := name(t)
			tc.entry["Name"], tc.entry["ID"] = service, service+"-flask"
			rest(t, s, http.MethodPut, "/v1/agent/service/register", tc.entry)
			t.Cleanup(func() {
				if err := open(t, s.URL(), nil).Deregister(context.Background(), discovery.Instance{ID: service + "-flask", Service: service}); err != nil {
					t.Error(err)
				}
			})
			tags, _ := tc.entry["Tags"].([]string)
			watch(t, open(t, s.URL(), nil), service).until(discovery.Instance{
				ID: service + "-flask", Service: service, Version: tc.version, HTTP: tc.http, GRPC: tc.grpc, Tags: tags, Meta: tc.meta,
			})
		})
	}
}

// Ids are unique at one agent only, and many clients use the service's name.
func TestSameIDAtTwoNodes(t *testing.T) {
	t.Parallel()
	s, service := servertest.Shared(t, servers.Consul), name(t)
	for i := range 2 {
		node := fmt.Sprint(service, "-node-", i)
		rest(t, s, http.MethodPut, "/v1/catalog/register", map[string]any{
			"Node": node, "Address": fmt.Sprint("10.0.0.", i), "Service": map[string]any{"ID": "web", "Service": service, "Port": 80},
		})
		rest(t, s, http.MethodPut, "/v1/catalog/register", map[string]any{
			"Node": node, "Address": fmt.Sprint("10.0.0.", i), "Service": map[string]any{"ID": fmt.Sprint("only-", 9-i), "Service": service},
		})
		t.Cleanup(func() {
			r, err := http.NewRequest(http.MethodPut, "http://"+s.Addr("")+"/v1/catalog/deregister", strings.NewReader(`{"Node":"`+node+`"}`))
			if err == nil {
				_, err = http.DefaultClient.Do(r)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	w := watch(t, open(t, s.URL(), nil), service)
	w.until( // ordered by id, not by node
		discovery.Instance{ID: "only-8", Service: service},
		discovery.Instance{ID: "only-9", Service: service},
		discovery.Instance{ID: "web@" + service + "-node-0", Service: service, HTTP: "10.0.0.0:80"},
		discovery.Instance{ID: "web@" + service + "-node-1", Service: service, HTTP: "10.0.0.1:80"},
	)
}

// Whatever an instance is, it comes back as it went in.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	s := servertest.Shared(t, servers.Consul)
	r := open(t, s.URL()+"?check=none", nil)
	for i, in := range []discovery.Instance{
		{},
		{GRPC: "10.0.0.1:2"},
		{GRPC: "10.0.0.1:2", Tags: []string{"grpc"}},
		{HTTP: "10.0.0.1:1", Tags: []string{"grpc"}},
		{HTTP: "10.0.0.1:1", GRPC: "10.0.0.1:1"},
		{HTTP: "[fd00::1]:1", GRPC: "other.example:2"},
		{Meta: map[string]string{
			"version": "mine", "http": "mine", "grpc": "mine", "topology.kubernetes.io/zone": "a", "": "empty", "consul-x": "c", "é": "ü",
			"kaptar--x": "own prefix", "plain_KEY-1": "p", strings.Repeat("k", 90): "long", "none": "",
		}},
	} {
		in.Service = name(t)
		in.ID = fmt.Sprintf("%s/%d?a=b#c d%%é", in.Service, i) // ids travel in paths
		register(t, r, in)
		w := watch(t, r, in.Service)
		w.until(in)
		if err := r.Deregister(t.Context(), in); err != nil {
			t.Errorf("Deregister(%q): %v", in.ID, err)
		}
		w.until()
	}
}

func TestImpossibleInstances(t *testing.T) {
	t.Parallel()
	r := open(t, "consul://127.0.0.1:1", nil) // nobody is asked
	for want, in := range map[string]discovery.Instance{
		`"10.0.0.1"`:      {ID: "a", Service: "s", HTTP: "10.0.0.1"},
		`":80"`:           {ID: "a", Service: "s", HTTP: ":80"},
		`"10.0.0.1:http"`: {ID: "a", Service: "s", HTTP: "10.0.0.1:http"},
		`"10.0.0.1:0"`:    {ID: "a", Service: "s", HTTP: "10.0.0.1:1", GRPC: "10.0.0.1:0"},
		`id ".."`:         {ID: "..", Service: "s"},
		`service "a//b"`:  {ID: "a", Service: "a//b"},
	} {
		if err := r.Register(t.Context(), in); !errors.Is(err, discovery.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("Register(%+v): %v, want ErrInvalid with %s", in, err, want)
		}
	}
	if err := r.Watch(t.Context(), "..", nil); !errors.Is(err, discovery.ErrInvalid) {
		t.Errorf("Watch(..): %v, want ErrInvalid", err)
	}
}

// Consul would quietly give the id to the new service.
func TestIDOfAnotherService(t *testing.T) {
	t.Parallel()
	s := servertest.Shared(t, servers.Consul)
	r, service := open(t, s.URL()+"?check=none", nil), name(t)
	in := discovery.Instance{ID: service + "-1", Service: service}
	register(t, r, in)
	other := discovery.Instance{ID: in.ID, Service: service + "-other"}
	if err := r.Deregister(t.Context(), other); err != nil {
		t.Errorf("Deregister of what is not listed: %v", err)
	}
	second := open(t, s.URL()+"?check=none", nil)
	if err := second.Register(t.Context(), other); !errors.Is(err, discovery.ErrInvalid) || !strings.Contains(err.Error(), in.ID) {
		t.Errorf("Register of an id that another service has: %v, want ErrInvalid and the id", err)
	}
	watch(t, r, service).until(in)
}

func TestDatacenter(t *testing.T) {
	t.Parallel()
	var log logged
	r := open(t, servertest.Shared(t, servers.Consul).URL()+"?dc=nowhere", &log)
	w := watch(t, r, "web")
	log.waitFor(t, "No path to datacenter")
	w.quiet(10 * time.Millisecond)
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"consul://secret@h?chek=ttl":           `consul://[redacted]@h:8500: unknown parameter "chek": expected one of ca, cert, check, dc`,
		"consul://secret@h?root=a%20b":         `parameter root="a b"`,
		"consul://secret@h?ca=/does/not/exist": "/does/not/exist",
	} {
		_, err := consul.Open(url, nil)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q): %v, want %q and no token", url, err, want)
		}
	}
}

func ExampleOpen() {
	_, err := consul.Open("consul://my-token@localhost?check=tcp", nil)
	fmt.Println(err)

	backend, err := consul.Open("consul://my-token@localhost?check=ttl&ttl=15s", nil) // in a service: app.Backend
	if err != nil {
		fmt.Println(err)
		return
	}
	defer backend.Close(context.Background())
	store, _ := backend.Store()
	_, err = store.Put(context.Background(), "rollout//weight", []byte("10")) // refused before anybody is asked
	fmt.Println(err)
	// Output:
	// consul: url: consul://[redacted]@localhost:8500: parameter check="tcp": expected http, ttl or none
	// kv: invalid key "rollout//weight": it has an empty segment, expected segments separated by single slashes
}
