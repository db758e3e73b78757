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
			http, secure := fmt.Sprintf("http = %d", s.ports[""]), ""
			if s.opts.TLS != "" {
				http = fmt.Sprintf("http = -1, https = %d", s.ports[""])
				secure = fmt.Sprintf(`tls { https { ca_file = %q, cert_file = %q, key_file = %q, verify_incoming = true } }`,
					s.path("ca.pem"), s.path("server.pem"), s.path("server.pem"))
			}
			return s.write("consul.hcl", fmt.Sprintf(`server = true
bootstrap_expect = 1
node_name = "kaptar"
data_dir = %q
bind_addr = "127.0.0.1"
client_addr = "127.0.0.1"
ports { %s, dns = %d, server = %d, serf_lan = %d, serf_wan = -1, grpc = -1, grpc_tls = -1 }
performance { raft_multiplier = 1, leave_drain_time = "0s" }
limits { http_max_conns_per_client = 10000 }
disable_update_check = true
log_level = "warn"
%s
%s
`, s.path("data"), http, s.ports["dns"], s.ports["server"], s.ports["serf"], secure, s.opts.Config))
		},
		command: func(s *Server) command {
			return command{args: []string{s.program, "agent", "-config-file=" + s.path("consul.hcl")}}
		},
		url: func(s *Server) string {
			query, _ := s.client("?")
			return "consul://" + s.Addr("") + query
		},
		ready: consulReady,
	}
}

// consulReady writes: a leader that is known may not yet be one that accepts.
// Where access is limited a right to do that is not ours.
func consulReady(ctx context.Context, s *Server) error {
	_, files := s.client("")
	secure, err := files.Config()
	if err != nil {
		return err
	}
	agent := "http://" + s.Addr("")
	if secure != nil {
		agent = "https://" + s.Addr("")
	}
	leader, err := Request(ctx, secure, http.MethodGet, agent+"/v1/status/leader", nil)
	if err != nil {
		return err
	}
	if len(strings.TrimSpace(leader)) <= len(`""`) {
		return fmt.Errorf("it has no leader yet: %s", leader)
	}
	key := agent + "/v1/kv/kaptar-servers-ready"
	_, err = Request(ctx, secure, http.MethodPut, key, strings.NewReader("1"))
	if err == nil {
		_, err = Request(ctx, secure, http.MethodDelete, key, nil)
	}
	if err != nil && strings.Contains(err.Error(), "Permission denied") {
		return nil
	}
	return err
}
