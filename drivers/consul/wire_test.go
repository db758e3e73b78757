package consul

import (
	"fmt"
	"testing"

	"github.com/kaptar/kaptar/discovery"
)

// secure is an instance that serves TLS.
func secure(in discovery.Instance) discovery.Instance {
	in.Tags = []string{"https"}
	return in
}

// No answer of the API shows what a check does, so this looks at what is sent.
func TestChecks(t *testing.T) {
	t.Parallel()
	both := discovery.Instance{ID: "a", Service: "s", HTTP: "h:1", GRPC: "h:2"}
	rpc := discovery.Instance{ID: "a", Service: "s", GRPC: "h:2"}
	neither := discovery.Instance{ID: "a", Service: "s"}
	for _, tc := range []struct {
		url  string
		in   discovery.Instance
		want string
	}{
		{"consul://h", both, "HTTP http://h:1/readyz GRPC  TTL  every 2s for 1s forget 10m0s"},
		{"consul://h", rpc, "HTTP  GRPC h:2 TTL  every 2s for 1s forget 10m0s"},
		{"consul://h", neither, "HTTP  GRPC  TTL 10s every  for  forget 10m0s"},
		{"consul://h?check=ttl&ttl=30s", both, "HTTP  GRPC  TTL 30s every  for  forget 10m0s"},
		{"consul://h?interval=5s&forget=1h", both, "HTTP http://h:1/readyz GRPC  TTL  every 5s for 1s forget 1h0m0s"},
		{"consul://h?forget=0", both, "HTTP http://h:1/readyz GRPC  TTL  every 2s for 1s forget "},
		{"consul://h?check=none", both, "none"},
		{"consul://h", secure(both), "HTTP https://h:1/readyz TLS GRPC  TTL  every 2s for 1s forget 10m0s"},
		{"consul://h", secure(rpc), "HTTP  TLS GRPC h:2 TLS TTL  every 2s for 1s forget 10m0s"},
	} {
		settings, err := parse(tc.url)
		if err != nil {
			t.Fatal(err)
		}
		s, err := registration(tc.in, settings)
		if err != nil {
			t.Fatal(err)
		}
		got := "none"
		if c := s.Check; c != nil {
			tls, grpcTLS := "", ""
			if c.TLSSkipVerify {
				tls = " TLS"
			}
			if c.GRPCUseTLS {
				grpcTLS = " TLS"
			}
			got = fmt.Sprintf("HTTP %s"+tls+" GRPC %s"+grpcTLS+" TTL %s every %s for %s forget %s", c.HTTP, c.GRPC, c.TTL, c.Interval, c.Timeout, c.DeregisterCriticalServiceAfter)
		}
		if got != tc.want {
			t.Errorf("%s: the check is %q, want %q", tc.url, got, tc.want)
		}
	}
}
