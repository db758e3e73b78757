package dns_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/discovery/discoverytest"
	"github.com/kaptar/kaptar/drivers/dns"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// consulAgent is the HTTP API of a Consul agent.
type consulAgent struct {
	t      *testing.T
	server *servers.Server
}

func (c consulAgent) put(path string, body any) {
	c.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPut, "http://"+c.server.Addr("")+"/v1/agent/service/"+path, bytes.NewReader(text))
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		c.t.Fatalf("PUT %s: %s", path, resp.Status)
	}
}

func (c consulAgent) register(service, id, address string, port int) {
	c.t.Helper()
	c.put("register", map[string]any{"ID": id, "Name": service, "Address": address, "Port": port})
}

func TestConsulConformance(t *testing.T) {
	t.Parallel()
	c := consulAgent{t, servertest.Shared(t, servers.Consul)}
	c.register("dns-listed", "dns-listed-1", "10.0.0.7", 8081)
	c.register("dns-listed", "dns-listed-2", "10.0.0.7", 8082)
	c.register("dns-listed", "dns-listed-3", "10.0.0.8", 8081)
	discoverytest.Run(t, discoverytest.Harness{
		Open: func(t *testing.T) discovery.Registry {
			r, err := dns.Open("dns://" + c.server.Addr("dns") + "/service.consul?srv=plain&interval=50ms")
			if err != nil {
				t.Fatal(err)
			}
			return r
		},
		Fixed: true,
		Listed: []discovery.Instance{
			{ID: "dns-listed@10.0.0.7:8081", Service: "dns-listed", HTTP: "10.0.0.7:8081"},
			{ID: "dns-listed@10.0.0.7:8082", Service: "dns-listed", HTTP: "10.0.0.7:8082"},
			{ID: "dns-listed@10.0.0.8:8081", Service: "dns-listed", HTTP: "10.0.0.8:8081"},
		},
	})
}

func TestConsulChanges(t *testing.T) {
	t.Parallel()
	c := consulAgent{t, servertest.Shared(t, servers.Consul)}
	r := registry(t, dns.Options{Server: c.server.Addr("dns"), Domain: "service.consul", SRV: "plain", GRPC: 50051})
	lists := follow(t, r, "dns-changes")
	expect(t, lists, "")
	c.register("dns-changes", "dns-changes-1", "10.0.0.7", 8081)
	expect(t, lists, "dns-changes@10.0.0.7:8081 10.0.0.7:8081 10.0.0.7:50051")
	c.register("dns-changes", "dns-changes-1", "fd00::7", 8081)
	expect(t, lists, "dns-changes@[fd00::7]:8081 [fd00::7]:8081 [fd00::7]:50051")
	c.put("deregister/dns-changes-1", nil)
	expect(t, lists, "")
}

// The answer does not fit into a packet, and Consul by default does not say that it left something
// out.
func TestConsulWithManyInstances(t *testing.T) {
	t.Parallel()
	c := consulAgent{t, servertest.Shared(t, servers.Consul)}
	const n = 60
	for i := range n {
		c.register("dns-many", fmt.Sprint("dns-many-", i), fmt.Sprintf("10.0.3.%d", i), 8081)
	}
	r := registry(t, dns.Options{Server: c.server.Addr("dns"), Domain: "service.consul", SRV: "plain", Timeout: 10 * time.Second})
	lists := follow(t, r, "dns-many")
	for end := time.After(limit); ; {
		select {
		case got := <-lists:
			if strings.Count(got, "@") == n {
				return
			}
		case <-end:
			t.Fatalf("there never were %d instances at once", n)
		}
	}
}

func TestConsulKilled(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.Consul)
	c := consulAgent{t, server}
	c.register("dns-killed", "dns-killed-1", "10.0.0.7", 8081)
	r := registry(t, dns.Options{Server: server.Addr("dns"), Domain: "service.consul", SRV: "plain"})
	lists := follow(t, r, "dns-killed")
	expect(t, lists, "dns-killed@10.0.0.7:8081 10.0.0.7:8081 ")
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	until(t, "the failure", func() bool { return r.Healthy() != nil })
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "its end", func() bool { return r.Healthy() == nil })
	c.register("dns-killed", "dns-killed-2", "10.0.0.8", 8081)
	for end := time.After(limit); ; {
		select {
		case got := <-lists:
			if got == "dns-killed@10.0.0.7:8081 10.0.0.7:8081 , dns-killed@10.0.0.8:8081 10.0.0.8:8081 " {
				return
			}
			// Until the agent has told its catalogue again, Consul itself answers that there is
			// nothing.
			t.Logf("list %q", got)
		case <-end:
			t.Fatal("the instances are not back")
		}
	}
}
