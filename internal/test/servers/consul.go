package servers

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

func consul() description {
	return description{
		example: "consul://127.0.0.1:8500",
		ports:   []port{{usual: 8500}, {name: "dns", usual: 8600}, {name: "server", inner: true}, {name: "serf", inner: true}},
		recipe:  recipe{product: tool("consul", "github.com/hashicorp/consul"), minutes: 3, gigabytes: 2.2},
		prepare: func(_ context.Context, s *Server) error {
			return s.write("consul.hcl", fmt.Sprintf(`server = true
bootstrap_expect = 1
node_name = "kaptar"
data_dir = %q
bind_addr = "127.0.0.1"
client_addr = "127.0.0.1"
ports { http = %d, dns = %d, server = %d, serf_lan = %d, serf_wan = -1, grpc = -1, grpc_tls = -1 }
performance { raft_multiplier = 1, leave_drain_time = "0s" }
limits { http_max_conns_per_client = 10000 }
disable_update_check = true
log_level = "warn"
%s
`, s.path("data"), s.ports[""], s.ports["dns"], s.ports["server"], s.ports["serf"], s.opts.Config))
		},
		command: func(s *Server) command {
			return command{args: []string{s.program, "agent", "-config-file=" + s.path("consul.hcl")}}
		},
		url:   func(s *Server) string { return "consul://" + s.Addr("") },
		ready: consulReady,
	}
}

// consulReady writes: a leader that is known may not yet be one that accepts.
func consulReady(ctx context.Context, s *Server) error {
	leader, err := Request(ctx, nil, http.MethodGet, "http://"+s.Addr("")+"/v1/status/leader", nil)
	if err != nil {
		return err
	}
	if len(strings.TrimSpace(leader)) <= len(`""`) {
		return fmt.Errorf("it has no leader yet: %s", leader)
	}
	key := "http://" + s.Addr("") + "/v1/kv/kaptar-servers-ready"
	if _, err := Request(ctx, nil, http.MethodPut, key, strings.NewReader("1")); err != nil {
		return err
	}
	_, err = Request(ctx, nil, http.MethodDelete, key, nil)
	return err
}
