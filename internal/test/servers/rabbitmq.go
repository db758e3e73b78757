package servers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func rabbitmq() description {
	return description{
		example: "amqp://guest:guest@127.0.0.1:5672",
		ports:   []port{{usual: 5672}, {name: "management", usual: 15672}, {name: "prometheus", usual: 15692}, {name: "epmd", inner: true}, {name: "dist", inner: true}},
		recipe:  recipe{needs: []string{"epmd", "erl"}, find: findRabbitMQ, debian: []debianPackage{{name: "rabbitmq-server"}}, minutes: 0.5, gigabytes: 0.1},
		prepare: prepareRabbitMQ,
		command: rabbitmqCommand,
		url: func(s *Server) string {
			if query, files := s.client("?"); files.On {
				return "amqps://guest:guest@" + s.Addr("") + query
			}
			return "amqp://guest:guest@" + s.Addr("")
		},
		ready:      rabbitmqReady,
		beforeKill: time.Second,
	}
}

// findRabbitMQ returns the server's own start script. What Debian has on the PATH is a wrapper that
// changes the user.
func findRabbitMQ() (string, error) {
	found, err := filepath.Glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
	if err != nil || len(found) == 0 {
		return "", errors.New("no /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
	}
	return found[len(found)-1], nil
}

func prepareRabbitMQ(_ context.Context, s *Server) error {
	listen := fmt.Sprintf("listeners.tcp.default = 127.0.0.1:%d", s.ports[""])
	if s.opts.TLS != "" {
		listen = fmt.Sprintf(`listeners.tcp = none
listeners.ssl.default = 127.0.0.1:%d
ssl_options.cacertfile = %s
ssl_options.certfile = %s
ssl_options.keyfile = %s
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true`, s.ports[""], s.path("ca.pem"), s.path("server.pem"), s.path("server.pem"))
	}
	for name, text := range map[string]string{
		"rabbitmq.conf": fmt.Sprintf(`%s
management.tcp.ip = 127.0.0.1
management.tcp.port = %d
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = %d
loopback_users = none
log.console = true
log.console.level = warning
log.file = false
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 64MB
raft.wal_max_size_bytes = 33554432
%s
`, listen, s.ports["management"], s.ports["prometheus"], s.opts.Config),
		"enabled_plugins": "[rabbitmq_consistent_hash_exchange,rabbitmq_management,rabbitmq_prometheus].\n",
		"env.conf":        "",
	} {
		if err := s.write(name, text); err != nil {
			return err
		}
	}
	return nil
}

func rabbitmqCommand(s *Server) command {
	epmd := strconv.Itoa(s.ports["epmd"])
	return command{
		args:   []string{s.program},
		helper: []string{"epmd", "-port", epmd, "-address", "127.0.0.1"}, // one of its own, or it would start one that outlives it
		env: []string{ // the cookie is in HOME
			"ERL_EPMD_PORT=" + epmd, "ERL_EPMD_ADDRESS=127.0.0.1", "ERL_CRASH_DUMP=/dev/null",
			"RABBITMQ_NODENAME=kaptar@localhost", "RABBITMQ_USE_LONGNAME=false",
			"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_DIST_PORT=" + strconv.Itoa(s.ports["dist"]),
			"RABBITMQ_MNESIA_BASE=" + s.path("mnesia"), "RABBITMQ_LOG_BASE=" + s.path("logs"),
			"RABBITMQ_CONFIG_FILE=" + s.path("rabbitmq.conf"), "RABBITMQ_ADVANCED_CONFIG_FILE=" + s.path("advanced.config"),
			"RABBITMQ_ENABLED_PLUGINS_FILE=" + s.path("enabled_plugins"), "RABBITMQ_CONF_ENV_FILE=" + s.path("env.conf"),
			"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
		},
	}
}

// rabbitmqReady shakes hands, and asks the management interface, which is up a moment later.
func rabbitmqReady(ctx context.Context, s *Server) error {
	_, files := s.client("")
	secure, err := files.Config()
	if err != nil {
		return err
	}
	server, _, _ := strings.Cut(s.URL(), "?")
	conn, err := amqp.DialConfig(server, amqp.Config{Dial: amqp.DefaultDial(2 * time.Second), TLSClientConfig: secure})
	if err != nil {
		return err
	}
	if err := conn.Close(); err != nil {
		return err
	}
	_, err = Request(ctx, nil, http.MethodGet, "http://guest:guest@"+s.Addr("management")+"/api/vhosts", nil)
	return err
}
